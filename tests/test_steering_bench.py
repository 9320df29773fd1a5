"""``kill -9`` of a controller at each moment of a move: a short form of ``loadtests.steering``."""

from __future__ import annotations

import subprocess
import sys


def test_a_move_is_made_once_whenever_its_controller_is_killed() -> None:
    """Inside its transaction, after it, before its snapshot is published, and after that."""
    command = [sys.executable, "-m", "loadtests.steering", "--kills", "4", "--routes", "0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "4 kills: 11 moves, each once, done\n"), done.stderr
