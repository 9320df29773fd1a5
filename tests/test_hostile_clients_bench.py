"""The load of hostile clients, for a few seconds and with few of each: the program works, and ordinary requests do."""

from __future__ import annotations

import pytest

from loadtests.hostile_clients import ATTACKS, Found, measure

pytestmark = pytest.mark.story


def test_beside_one_of_each_hostile_client_every_ordinary_request_is_answered() -> None:
    found = measure(3.0, rate=40.0, share=0.02, beside_nginx=False)
    assert isinstance(found, Found)
    assert found.turnout.offered == 120
    assert found.turnout.errors == 0
    assert "failed 0" in str(found)
    assert found.peak.worker_bytes > 0
    assert len(ATTACKS) >= 7
