"""The benchmark of a large store: what it fills in stands where recorded rows would, in both databases."""

from __future__ import annotations

import pytest

from loadtests import volume
from loadtests.postgresql import Server


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_a_store_is_filled_and_looked_at_before_and_after_more(kind: str, request: pytest.FixtureRequest) -> None:
    """A row that is missing or cannot be read ends the run with an error."""
    store = "sqlite"
    if kind == "postgresql":
        server: Server = request.getfixturevalue("postgresql_server")
        store = server.url(server.new_schema())
    looked = dict(volume.measure(5_000, 600, store, count=2 * volume.CHUNK))
    assert list(looked) == ["at once", "at work"]
    assert all(0 < one.memory_mb <= one.peak_mb for one in looked.values())
