"""The cost of one prediction, identity or key is bounded, and which events count does not depend on their order."""

from __future__ import annotations

import asyncio
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from sys import getsizeof
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import func, select

from gateway.control.join import event_join
from gateway.control.join.event_limit import EventLimit, order
from gateway.control.join.event_status import arrived
from gateway.store.counts import tallies
from gateway.store.rows import key_lookup
from gateway.store.schema import row_tables
from router.records import Feedback
from tests.gateway.control.builders import (
    T0,
    Desk,
    at_desk,
    call,
    comparable,
    event,
    keyed,
    metric,
    statuses,
    sums,
    uuid,
)
from tests.gateway.control.fold import fold

MOST = 4
METRICS = (metric("value", "sum", fold="sum", mature="arrival"), metric("value", "last"))
K = metric("value", fold="sum", mature="arrival")


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_join, "EventLimit", lambda: EventLimit(MOST))


@st.composite
def told(draw: Callable[[Any], Any]) -> list[Feedback]:
    """Events of few predictions: corrections, retractions, repeats, and more than there is room for."""
    events = list[Feedback]()
    for _ in range(draw(st.integers(0, 30))):
        number, name = draw(st.integers(0, 1)), draw(st.sampled_from(["sum", "last"]))
        value, at = draw(st.sampled_from([1, 2.5, -7, None])), draw(st.integers(0, 20))
        identity = f"{number}-{name}-{draw(st.integers(0, 6))}"
        one = event(number, value, 100 + at, metric=name, event_id=identity, revision=draw(st.integers(0, 1)))
        same = (one.identity, one.revision, one.received_ms)
        # Those that share identity, revision and millisecond are alike.
        events.append(next((e for e in events if (e.identity, e.revision, e.received_ms) == same), one))
    return events


def kept(events: list[Feedback]) -> list[Feedback]:
    """The first of each prediction and metric."""
    places: defaultdict[Any, list[Feedback]] = defaultdict(list)
    for one in events:
        places[one.prediction_id, one.metric].append(one)
    return [one for place in places.values() for one in sorted(place, key=lambda e: order(arrived(e)))[:MOST]]


def test_what_is_remembered_of_a_full_place_is_small_whatever_its_events_say() -> None:
    """A label has up to 64 KiB: of 100,000 full places that would be gigabytes."""
    said = [arrived(event(1, "x" * 65_000, at, event_id="i" * 256)) for at in range(MOST + 1)]
    limit = EventLimit(MOST)
    limit.bound_identities(said, [])
    (last,) = limit._last.values()
    assert sum(map(getsizeof, last)) < 200
    assert order(said[0]) < order(said[1])


async def recorded(desk: Desk, events: list[Feedback], portion: int, restarts: set[int]) -> Any:
    async with desk:
        desk.journal.calls(*(call(n, "ab"[n], unit="u", by_unit=True) for n in range(2)))
        desk.journal.beat(50)
        for at in range(0, len(events), portion):
            desk.journal.events(*events[at : at + portion])
            await desk.recorder.step()
            if at in restarts:
                desk.restart()
        desk.journal.beat(60_000)
        ledger = await desk.record()
        async with desk.store.begin() as connection:
            rows = (await connection.execute(select(func.count()).select_from(row_tables.feedback))).scalar()
        return ledger, rows


@settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    events=told().flatmap(st.permutations), portion=st.integers(1, 12), restarts=st.sets(st.integers(0, 30), max_size=2)
)
def test_the_first_events_count_in_whatever_order_they_are_read(
    new_store: Callable[[], str], events: list[Feedback], portion: int, restarts: set[int]
) -> None:
    calls = [call(n, "ab"[n], unit="u", by_unit=True) for n in range(2)]
    within = kept(events)
    expected = fold(calls, within, {one.name: one for one in METRICS}, T0 + 60_000)
    with tempfile.TemporaryDirectory() as folder:
        desk = Desk(Path(folder), *METRICS, store=new_store())
        ledger, rows = asyncio.run(recorded(desk, list(events), portion, restarts))
    assert comparable(ledger.tallies) == comparable(expected.tallies)
    counted = Counter({(metric, status): n for (_, metric, status), n in expected.feedback.items()})
    over = Counter(one.metric for one in events) - Counter(one.metric for one in within)
    counted.update({(name, "over_limit"): n for name, n in over.items()})
    assert ledger.feedback == dict(+counted)
    assert rows == len(within)
    assert ledger.watermark_ms == T0 + 60_000


def test_a_prediction_that_is_not_known_has_no_more_room(tmp_path: Path, store: str) -> None:
    async def story(desk: Desk) -> None:
        for n in range(3 * MOST):
            desk.journal.events(event(7, 1, at=100 + n, event_id=f"e{n}"))
            await desk.recorder.step()
        desk.journal.calls(call(7))
        ledger = await desk.record()
        assert sums(ledger) == {"a": (MOST, 1.0)}
        assert statuses(ledger) == {"joined": MOST}
        assert sum((await desk.store.feedback_total()).values()) == 3 * MOST, "statuses add up"

    at_desk(Desk(tmp_path, K, store=store), story)


def test_one_identity_of_many_predictions_has_no_more_room(tmp_path: Path, store: str) -> None:
    """An event id that a faulty client gives to everything would be compared with all of them each time."""

    async def story(desk: Desk) -> None:
        desk.journal.calls(*(call(n) for n in range(9)))
        for n in range(9):
            desk.journal.events(event(n, 1, at=100 + n, event_id="same"))
            await desk.recorder.step()
        assert statuses(await desk.record()) == {"joined": 1, "repeated": MOST - 1, "over_limit": 9 - MOST}

    at_desk(Desk(tmp_path, K, store=store), story)


def test_an_event_by_key_counts_for_those_predictions_that_have_room(tmp_path: Path, store: str) -> None:
    async def story(desk: Desk) -> None:
        desk.journal.calls(call(0, "a", key="k"), call(1, "b", key="k"))
        desk.journal.events(*(event(0, 1, at=100 + n, event_id=f"e{n}") for n in range(MOST)))
        desk.journal.events(*(keyed("k", 10, at=200 + n, event_id=f"k{n}") for n in range(MOST + 2)))
        desk.journal.beat(60_000)
        ledger = await desk.record()
        assert sums(ledger) == {"a": (MOST, 1.0), "b": (10 * MOST, 1.0)}
        assert statuses(ledger) == {"joined": 2 * MOST, "over_limit": 2}

    at_desk(Desk(tmp_path, K, store=store, key="body:/k", key_rule="all"), story)


def test_of_many_predictions_with_a_key_the_last_are_meant(
    tmp_path: Path, store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(key_lookup, "MOST", 3)
    key_lookup._every.cache_clear()

    async def story(desk: Desk) -> None:
        for n in range(6):
            drafts = (call(n, ranker, role="draft", items=("x",), key="k") for ranker in "ab")
            desk.journal.calls(*drafts, call(n, "s", role="shadow", key="k"))
        desk.journal.events(keyed("k", 1, at=100, item="x"))
        desk.journal.beat(60_000)
        await desk.record()
        meant = [n for n in range(6) if (found := await desk.store.prediction(uuid(n))) and found["feedback"]]
        assert meant == [3, 4, 5]

    at_desk(Desk(tmp_path, K, store=store, key="body:/k", key_rule="all"), story)
    key_lookup._every.cache_clear()


def test_events_about_crowded_predictions_are_joined_in_parts(
    tmp_path: Path, store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory is bounded, and the bound does not change what is counted."""
    monkeypatch.setattr(event_join, "MOST_AT_ONCE", 5)

    async def story(desk: Desk) -> None:
        desk.journal.calls(*(call(n) for n in range(8)))
        for at in range(3):
            desk.journal.events(*(event(n, n, at=100 + at, event_id=f"{n}-{at}") for n in range(8)))
            await desk.recorder.step()
        ledger = await desk.record()
        assert sums(ledger) == {"a": (3 * sum(range(8)), 8.0)}
        assert statuses(ledger) == {"joined": 24}

    at_desk(Desk(tmp_path, K, store=store), story)


def test_what_is_remembered_of_units_has_a_bound_in_bytes(
    tmp_path: Path, store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bound on the number of rows would not bound memory: at 30d391e 8,000 units of 60 KB took 1.2 GB."""
    monkeypatch.setattr(tallies, "CACHE_BYTES", 20_000)

    async def story(desk: Desk) -> None:
        for turn in range(6):
            units = [f"{turn % 3}-{n}-{'x' * 100}" for n in range(10)]
            desk.journal.calls(*(call(turn * 10 + n, unit=unit, by_unit=True) for n, unit in enumerate(units)))
            desk.journal.events(*(event(turn * 10 + n, 1, at=100, event_id=f"{turn}-{n}") for n in range(10)))
            ledger = await desk.record()
            assert desk.recorder._committer.state is not None
            cache = desk.recorder._committer.state.tally_cache
            names = sum(len(unit) for rows in cache.units.values() for unit in rows)
            assert names < cache.units_bytes < 60_000
            assert cache.arrivals.size_bytes < 30_000
        assert sums(ledger) == {"a": (60.0, 60.0)}
        assert [tally.n for key, tally in ledger.tallies.items() if (key.metric, key.phase) == ("k", "mature")] == [30]

    at_desk(Desk(tmp_path, K, store=store), story)
