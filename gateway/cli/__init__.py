"""The command line: one file per command family, parsing and printing only.

Rule: data goes to stdout, everything else to stderr; a mistake ends in a sentence, never a traceback. Importing this
package, or asking for help, imports the standard library, typer and rich only: a command imports the rest when it runs.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from gateway.cli.exits import INTERRUPTED, PROBLEM, USAGE


def main() -> None:
    """Run the ``turnout`` command and leave with its exit code."""
    _open_streams()
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code. Raises nothing."""
    try:
        code = _run(arguments)
        sys.stdout.flush()
    except OSError as error:
        # A broken pipe is no error: the reader has seen enough (`turnout report | head`).
        if not isinstance(error, BrokenPipeError):
            where = f"{error.filename}: " if error.filename else ""
            print(f"turnout: error: {where}{error.strerror or error}", file=sys.stderr)
        # Python flushes stdout once more at its end: that goes to the null device.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = PROBLEM
    return code


def _open_streams() -> None:
    """Open the standard streams that the caller has closed (`turnout check >&-`) on the null device.

    Python sets them to None, which cannot be written to; and the next file or socket that is opened would get their
    number, and with it everything that is printed.
    """
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(fd, True)
    os.close(fd)
    sys.stdin = sys.stdin or os.fdopen(0, closefd=False)
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", closefd=False)


def _run(arguments: Sequence[str]) -> int:
    try:
        from gateway.cli.commands import app  # the slowest part of a short command, in which an interrupt may well come

        app(args=list(arguments), prog_name="turnout")
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else 0 if ended.code is None else PROBLEM
    except KeyboardInterrupt:
        return INTERRUPTED
    except OSError:  # of the output or of a file: no fault of the program
        raise
    except UnicodeEncodeError:
        print("turnout: error: an argument is not UTF-8", file=sys.stderr)
        return USAGE
    except Exception as error:  # the last resort: the operator gets one line for any error
        if os.environ.get("TURNOUT_DEBUG"):
            raise
        said = " ".join(str(error).split())
        print(f"turnout: error: {type(error).__name__}: {said}", file=sys.stderr)
        print("This is a fault of turnout. TURNOUT_DEBUG=1 shows where it happened.", file=sys.stderr)
        return PROBLEM
    return 0
