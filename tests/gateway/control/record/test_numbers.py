"""Tallies are finite and exact, whatever values come: what is beyond the limit counts for nothing."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Callable
from math import inf, isfinite, nan
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from gateway.store.schema import migrations
from gateway.store.schema.migrations import Migrated
from router.records import LARGEST, Feedback
from tests.gateway.control.builders import T0, Desk, at_desk, call, comparable, event, keyed, metric, sums
from tests.gateway.control.fold import fold

UNITS: dict[str, Any] = {"unit": "u", "by_unit": True}


@pytest.mark.parametrize("more", [UNITS, {}], ids=["by unit", "alone"])
def test_a_value_that_is_corrected_leaves_nothing_of_itself(tmp_path: Path, store: str, more: dict[str, Any]) -> None:
    """A tally that moves by rounded differences would keep 1e15's rounding for ever."""

    async def story(desk: Desk) -> Any:
        desk.journal.calls(*(call(n, **more) for n in range(3)))
        desk.journal.events(event(0, 1e15, at=10), event(1, 0.1, at=11), event(2, -1e15, at=12))
        await desk.record()
        desk.journal.events(event(0, 5, at=20, revision=1), event(2, None, at=21, revision=1))
        return comparable((await desk.record()).tallies)

    metrics = metric("value", fold="last", mature="arrival")
    found = at_desk(Desk(tmp_path, metrics, store=store), story)
    events = [event(0, 5, at=20), event(1, 0.1, at=11)]
    calls = [call(n, **more) for n in range(3)]
    assert found == comparable(fold(calls, events, {"k": metrics}, T0).tallies)


@pytest.mark.parametrize("fold_", ["last", "sum"])
def test_a_value_beyond_the_limit_in_an_older_journal_counts_for_nothing(
    tmp_path: Path, store: str, fold_: str
) -> None:
    async def story(desk: Desk) -> Any:
        desk.journal.calls(call(0, **UNITS), call(1, **UNITS))
        desk.journal.events(event(0, 1e308, at=10, event_id="a"), event(0, 1.7e308, at=11, event_id="b"))
        desk.journal.events(event(1, 10**18, at=12, event_id="c"))
        desk.journal.beat(50_000)
        await desk.record()
        desk.journal.calls(call(2, **UNITS))
        desk.journal.events(event(2, 5, at=13, event_id="d"))
        return await desk.record()

    ledger = at_desk(Desk(tmp_path, metric("value", fold=fold_), store=store), story)
    assert sums(ledger, "live") == {"a": (5.0, 1.0)}
    assert ledger.watermark_ms == T0 + 50_000


def test_a_prediction_beyond_the_limit_scores_nothing(tmp_path: Path, store: str) -> None:
    async def story(desk: Desk) -> Any:
        desk.journal.calls(call(0, prediction=1e200, **UNITS), call(1, prediction=3, **UNITS))
        desk.journal.events(event(0, 1, at=10), event(1, 5, at=11))
        return await desk.record()

    metrics = metric("label", score="absolute_error", mature="arrival")
    assert sums(at_desk(Desk(tmp_path, metrics, store=store), story), "live") == {"a": (2.0, 1.0)}


@pytest.mark.parametrize("more", [UNITS, {}], ids=["by unit", "alone"])
def test_a_store_that_an_earlier_version_poisoned_is_counted_again(
    tmp_path: Path, store: str, more: dict[str, Any]
) -> None:
    """At 30d391e a value of 1e200 made m² infinite. The next one made it NaN in PostgreSQL, and failed in SQLite."""
    poison = inf if store == "sqlite" else nan

    async def story(desk: Desk) -> Any:
        desk.journal.calls(call(0, **more), call(1, **more), call(2, **UNITS | {"unit": "v"}))
        desk.journal.events(event(0, 4, at=10), event(1, 0.1, at=11), event(2, 7, at=12))
        await desk.record()
        await be_poisoned(desk, poison)
        desk.restart()
        desk.journal.events(event(1, 5, at=20, revision=1))
        desk.journal.beat(50_000)
        return await desk.record()

    metrics = metric("value")
    ledger = at_desk(Desk(tmp_path, metrics, store=store), story)
    calls = [call(0, **more), call(1, **more), call(2, **UNITS | {"unit": "v"})]
    expected = fold(calls, [event(1, 5, at=20), event(2, 7, at=12)], {"k": metrics}, T0 + 50_000)
    assert comparable(ledger.tallies) == comparable(expected.tallies)
    assert ledger.watermark_ms == T0 + 50_000


async def be_poisoned(desk: Desk, poison: float) -> None:
    """Leave the store as 30d391e left it after a value of 1e200 about the first prediction."""
    async with desk.store.begin() as connection:
        for statement in (
            "UPDATE feedback SET value = '1e200' WHERE value = '4'",
            "UPDATE tallies SET m = 1e200, m2 = :poison, md = :poison, rest = NULL WHERE metric = 'k'",
            "UPDATE units SET m = 1e200, rest = NULL WHERE unit = 'u' AND tally IN "
            "(SELECT id FROM tallies WHERE metric = 'k')",
            "DELETE FROM numbers WHERE name = 'recounted'",
        ):
            await connection.execute(text(statement), {"poison": poison} if ":poison" in statement else {})


METRICS = (
    metric("value", "sum", fold="sum", mature="arrival"),
    metric("value", "last", missing=1e-9),
    metric("label", "error", score="absolute_error", fold="mean"),
)
numbers = st.one_of(
    st.floats(-LARGEST, LARGEST),
    st.sampled_from([LARGEST, -LARGEST, 5, 1e9, 1e-300, 0.1, 0, 2**53, 1e16, -1e308]),
    st.none(),
)


@st.composite
def told(draw: Callable[[Any], Any]) -> list[Feedback]:
    """Events of any magnitude: repeats, corrections, retractions; by id and by key."""
    events: dict[Any, Feedback] = {}
    for index in range(draw(st.integers(0, 24))):
        more = {
            "metric": draw(st.sampled_from([one.name for one in METRICS])),
            "event_id": draw(st.sampled_from(["a", "b", None])),
            "revision": draw(st.integers(0, 3)),
        }
        value, at = draw(numbers), 100 + index
        if draw(st.booleans()):
            one = keyed("key", value, at, **more)
        else:
            one = event(draw(st.integers(0, 3)), value, at, **more)
        events[one.identity, one.revision, one.received_ms] = one
    return list(events.values())


async def recorded(desk: Desk, calls: list[Any], events: list[Feedback], portion: int) -> Any:
    async with desk:
        desk.journal.calls(*calls)
        desk.journal.beat(50)
        for at in range(0, len(events), portion):
            desk.journal.events(*events[at : at + portion])
            await desk.recorder.step()
        desk.journal.beat(60_000)
        return await desk.record()


@settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
@given(events=told(), portion=st.integers(1, 8), units=st.sampled_from(["u", None]))
def test_any_accepted_events_leave_finite_tallies_equal_to_the_fold(
    new_store: Callable[[], str], events: list[Feedback], portion: int, units: str | None
) -> None:
    calls = [call(n, "ab"[n % 2], unit=units, by_unit=True, key="key", prediction=n * 1e14) for n in range(4)]
    expected = fold(calls, events, {one.name: one for one in METRICS}, T0 + 60_000)
    with tempfile.TemporaryDirectory() as folder:
        desk = Desk(Path(folder), *METRICS, store=new_store())
        ledger = asyncio.run(recorded(desk, calls, events, portion))
    assert comparable(ledger.tallies) == comparable(expected.tallies)
    assert all(isfinite(number) for tally in ledger.tallies.values() for number in (tally.m, tally.m2, tally.md))
    assert ledger.watermark_ms == T0 + 60_000


def test_a_store_of_the_first_version_gets_the_columns_for_exact_sums(
    tmp_path: Path, store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrations, "VERSION", 2)

    async def story() -> Any:
        desk = Desk(tmp_path, metric("value", mature="arrival"), store=store)
        async with desk:
            desk.journal.calls(call(0, **UNITS))
            desk.journal.events(event(0, 0.1, at=10))
            await desk.record()
            async with desk.store.begin() as connection:
                for table in ("tallies", "units"):
                    await connection.execute(text(f"ALTER TABLE {table} DROP COLUMN rest"))
                await connection.execute(text("UPDATE schema_version SET version = 1"))
        async with desk:
            assert desk.store.migrated == Migrated(1, 2)
            desk.journal.events(event(0, 0.3, at=20, revision=1))
            return sums(await desk.record())

    assert asyncio.run(story()) == {"a": (0.3, 1.0)}


def test_many_events_of_any_magnitude_leave_the_fold_of_all(tmp_path: Path, store: str) -> None:
    """With TURNOUT_TEST_EVENTS=10000 as many: corrections and retractions of sums that nearly cancel."""
    chance = Random(14)
    calls = [call(n, "ab"[n % 2], unit=f"u{n % 7}", by_unit=n % 3 > 0, key=f"k{n % 5}") for n in range(90)]
    events = list[Feedback]()
    for index in range(int(os.environ.get("TURNOUT_TEST_EVENTS", "200"))):
        value = chance.choice([1, -1]) * chance.choice([LARGEST, 10 ** chance.uniform(-12, 15), 5, 0.1])
        more = {"metric": chance.choice(METRICS).name, "event_id": f"e{chance.randrange(900)}", "revision": index}
        about = chance.choice([None, value, value, value])
        if chance.random() < 0.2:
            events.append(keyed(f"k{chance.randrange(5)}", about, 100 + index % 800, **more))
        else:
            events.append(event(chance.randrange(90), about, 100 + index % 800, **more))
    expected = fold(calls, events, {one.name: one for one in METRICS}, T0 + 60_000)
    ledger = asyncio.run(recorded(Desk(tmp_path, *METRICS, store=store), calls, events, 97))
    assert comparable(ledger.tallies) == comparable(expected.tallies)
    assert ledger.watermark_ms == T0 + 60_000
