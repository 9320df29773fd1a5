"""The benchmark of the join: a small run of it, and that it would notice an error."""

from __future__ import annotations

import asyncio

import pytest

from loadtests import joining


def test_feedback_in_random_order_comes_to_exactly_the_fold(store: str) -> None:
    result = asyncio.run(joining.measure(2_000, url=store))
    assert result.differences == ()
    assert result.events == 2_000
    assert "equal to the fold in memory" in joining.report(result, store)


def test_another_order_makes_no_difference() -> None:
    assert joining.order(500, seed=1) != joining.order(500, seed=2)
    assert asyncio.run(joining.measure(500, seed=2)).differences == ()


def test_a_difference_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """A comparison with a value computed in the same way would never find an error."""
    right = joining.feedback
    monkeypatch.setattr(joining, "feedback", lambda n, at: right(n, at)._replace(value=99) if n == 8 else right(n, at))
    result = asyncio.run(joining.measure(500))
    assert len(result.differences) == 0, "its label was wrong anyhow"
    monkeypatch.setattr(joining, "feedback", lambda n, at: right(n, at)._replace(value=99) if n == 7 else right(n, at))
    assert len(asyncio.run(joining.measure(500)).differences) == 2, "live and mature"
