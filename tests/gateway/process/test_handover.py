"""Taking over from a supervisor, without real processes; ``tests/stories/test_takeover.py`` has those."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path

from gateway.process.handover import Predecessor
from gateway.process.premises import sole_supervisor


def test_who_is_killed_before_it_hears_go_is_followed_all_the_same(tmp_path: Path) -> None:
    """The successor already has the socket and the lock; if it stopped, no supervisor would be left."""
    ours, theirs = socket.socketpair()
    with ours, socket.create_server(("127.0.0.1", 0)) as listener, sole_supervisor(tmp_path) as hold:
        before = Predecessor(ours, listener, hold, "127.0.0.1:1")
        theirs.close()
        before.go()
        assert (tmp_path / "supervisor.pid").read_text() == f"{os.getpid()}\n"
        asyncio.run(asyncio.wait_for(before.gone(), 5))
