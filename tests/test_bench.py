"""The bench measures what it says: a real round against the bench's own model, and the table it makes of rounds."""

from __future__ import annotations

from pathlib import Path

import pytest

from loadtests.__main__ import Round, measure, report, running
from loadtests.client import ask


def test_a_round_counts_what_was_answered_and_the_cpu_it_cost(tmp_path: Path) -> None:
    with running(("-m", "loadtests.backend"), tmp_path / "log", says=True) as model:
        assert model.stdout is not None
        port = int(model.stdout.readline())
        found = measure(port, model.pid, connections=2, seconds=0.5)
    assert found.answers > 100
    assert 0 < found.p50_ms <= found.p99_ms
    assert found.cpu_us is not None
    assert 0 < found.cpu_us < 1e6 * 0.5 / found.answers * 2


def test_nobody_to_ask_is_an_error_and_no_number() -> None:
    with pytest.raises(ConnectionError):
        ask("127.0.0.1", 9, b"", connections=1, seconds=0.1)


def test_what_is_added_is_the_difference_within_a_pair_of_rounds() -> None:
    """The machine was slower in the second pair; that must not look like a cost."""
    direct = [Round(10, 1.0, 2.0, None), Round(10, 5.0, 6.0, None)]
    through = [Round(10, 1.5, 3.0, 40.0), Round(10, 5.5, 7.0, 60.0)]
    table = report(direct, through, connections=1, seconds=1)
    assert "added" in table
    assert "0.500 ms (0.500 to 0.500)" in table
    assert "1.000 ms (1.000 to 1.000)" in table
    assert "50.0 µs (40.0 to 60.0)" in table
