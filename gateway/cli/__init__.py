"""The command line: one file per command family, parsing and printing only.

Rule: data goes to stdout, everything else to stderr; a mistake ends in a sentence, never a traceback. Importing this
package, or asking for help, costs the standard library, typer and rich: what a command needs it imports when it runs.
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
        # A broken pipe: whoever read us has enough (`turnout report | head`), and there is nothing to say.
        if not isinstance(error, BrokenPipeError):
            where = f"{error.filename}: " if error.filename else ""
            print(f"turnout: error: {where}{error.strerror or error}", file=sys.stderr)
        # What Python still wants to flush goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = PROBLEM
    return code


def _open_streams() -> None:
    """Open on nothing the standard streams that whoever started us has closed (`turnout check >&-`).

    Python has None for them, which cannot be written to; and the next file or socket that is opened would get their
    number, and what is printed with it.
    """
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(fd, True)
    os.close(fd)
    sys.stdin = sys.stdin or os.fdopen(0, closefd=False)
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", closefd=False)


def _run(arguments: Sequence[str]) -> int:
    try:
        from gateway.cli.commands import app  # the slowest part of a short command: an interrupt may well meet it

        app(args=list(arguments), prog_name="turnout")
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else 0 if ended.code is None else PROBLEM
    except KeyboardInterrupt:
        return INTERRUPTED
    except OSError:  # of what was written to, or of a file: the machine's fault, not ours
        raise
    except UnicodeEncodeError:
        print("turnout: error: an argument is not UTF-8", file=sys.stderr)
        return USAGE
    except Exception as error:  # the last resort: whatever went wrong, an operator gets one line
        if os.environ.get("TURNOUT_DEBUG"):
            raise
        said = " ".join(str(error).split())
        print(f"turnout: error: {type(error).__name__}: {said}", file=sys.stderr)
        print("This is a fault of turnout. TURNOUT_DEBUG=1 shows where it happened.", file=sys.stderr)
        return PROBLEM
    return 0
