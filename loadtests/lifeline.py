"""How the bench's own programs end: when their standard input closes, which also happens if their parent is killed."""

from __future__ import annotations

import asyncio
import os
import sys


async def until_stdin_closes() -> None:
    """Return when standard input is at its end."""
    loop = asyncio.get_running_loop()
    over = asyncio.Event()
    descriptor = sys.stdin.fileno()

    def look() -> None:
        if not os.read(descriptor, 4096):
            loop.remove_reader(descriptor)
            over.set()

    loop.add_reader(descriptor, look)
    await over.wait()
