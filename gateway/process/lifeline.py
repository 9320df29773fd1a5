"""A pipe between the supervisor and its children: its end means that the supervisor is gone.

Rule: nobody writes to it. Each child holds the reading end; the supervisor holds the only writing end, and whichever
way it dies, ``kill -9`` included, the kernel closes that. A child without a supervisor leaves as it would on SIGTERM.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import Final

#: The environment variable that tells a child the descriptor of its end.
VARIABLE: Final = "TURNOUT_LIFELINE_FD"


def watch_lifeline(cut: Callable[[], None]) -> None:
    """Call ``cut`` once, in the running loop, when the supervisor is gone. Without a supervisor: never."""
    text = os.environ.get(VARIABLE, "")
    if not text.isdecimal():
        return
    fd = int(text)
    loop = asyncio.get_running_loop()

    def ended() -> None:
        loop.remove_reader(fd)
        cut()

    try:
        os.set_inheritable(fd, False)  # what a child starts is not the supervisor's
        loop.add_reader(fd, ended)
    except OSError:  # a descriptor that is none: the variable came from elsewhere
        return
