"""PostgreSQL goes away under load and comes back: no client notices, and nothing is missing."""

from __future__ import annotations

import pytest

from loadtests.outage import measure

pytestmark = pytest.mark.story


@pytest.mark.parametrize("accident", ["stop", "kill"])
def test_while_the_database_is_away_traffic_goes_on_and_afterwards_every_row_is_there_once(accident: str) -> None:
    """`python -m loadtests.outage` does the same for a minute, on a database that waits for the disk."""
    found = measure(accident, seconds=4.0, rate=100.0, durable=False)
    assert found.answered > 400
    assert found.events > 50
    assert found.behind_bytes > 0
    assert found.whole, str(found)
