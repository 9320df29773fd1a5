"""The exit codes of every command but ``serve``, which adds those of the supervisor.

Rule: 0 means that all is well; the numbers are public, and ``turnout --help`` lists them.
"""

from __future__ import annotations

from typing import Final

#: Something is wrong, or what was asked for is not there.
PROBLEM: Final = 1
#: The command was called in a way that it does not take.
USAGE: Final = 2
#: Ctrl-C: 128 and the number of SIGINT, as shells have it.
INTERRUPTED: Final = 130
