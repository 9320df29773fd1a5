"""A pipe by which children notice that the supervisor has ended.

Rule: nothing is ever written to it. Each child holds the reading end and the supervisor the only writing end. However
the supervisor dies, ``kill -9`` included, the kernel closes that end, and each child then ends as it would on SIGTERM.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import Final

#: The environment variable with the descriptor of a child's end.
VARIABLE: Final = "TURNOUT_LIFELINE_FD"


def watch_lifeline(cut: Callable[[], None]) -> None:
    """Call ``cut`` once, in the running loop, when the supervisor has ended; never without a supervisor."""
    text = os.environ.get(VARIABLE, "")
    if not text.isdecimal():
        return
    fd = int(text)
    loop = asyncio.get_running_loop()

    def ended() -> None:
        loop.remove_reader(fd)
        cut()

    try:
        os.set_inheritable(fd, False)  # processes that a child starts do not inherit it
        loop.add_reader(fd, ended)
    except OSError:  # no such descriptor: the variable was not set by a supervisor
        return
