"""The command line: one file per command family, parsing and printing only.

Rule: data goes to stdout, everything else to stderr; a mistake ends in a sentence, never a traceback. Importing this
package, or asking for help, costs the standard library, typer and rich: what a command needs it imports when it runs.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Final

PROBLEM: Final = 1
USAGE: Final = 2
INTERRUPTED: Final = 130


def main() -> None:
    """Run the ``turnout`` command and leave with its exit code."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code. Raises nothing."""
    try:
        code = _run(arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read us has enough (`turnout report | head`). What Python still wants to flush goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = PROBLEM
    return code


def _run(arguments: Sequence[str]) -> int:
    from gateway.cli.app import app

    try:
        app(args=list(arguments), prog_name="turnout")
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else 0 if ended.code is None else PROBLEM
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        raise
    except Exception as error:  # the last resort: whatever went wrong, an operator gets one line
        if os.environ.get("TURNOUT_DEBUG"):
            raise
        said = " ".join(str(error).split())
        print(f"turnout: error: {type(error).__name__}: {said}", file=sys.stderr)
        print("This is a fault of turnout. TURNOUT_DEBUG=1 shows where it happened.", file=sys.stderr)
        return PROBLEM
    return 0
