"""Rows older than their retention are removed, with everything that refers to them; what is counted stays."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete, func, select, text

from gateway.control.upkeep import cleanup
from gateway.control.upkeep.cleanup import Retention
from gateway.journal.segments import PREDICTIONS
from gateway.store import retention
from gateway.store.counts import history, plans, tallies
from gateway.store.counts.ledger import CALLS
from gateway.store.rows import calls
from gateway.store.schema import count_tables, partitions, row_tables, sql
from router.records import body_line
from router.snapshot import Gateway
from tests.gateway.control.builders import T0, Desk, at_desk, call, comparable, event, keyed, metric, snapshot, sums

DAY_MS = partitions.DAY_MS
#: The first midnight after the beginning: predictions of two days and more are distinguished by their numbers.
DAWN = (partitions.day_of(T0) + 1) * DAY_MS - T0


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cleanup, "PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(retention, "CHUNK", 7)


async def sweep(desk: Desk, now: int, **kept: int) -> Counter[str]:
    """Sweep at ``now`` milliseconds after the beginning, and return what was removed."""
    gone: Counter[str] = Counter()

    def count(kind: str, n: int) -> None:
        gone[kind] += n

    sweeping = Retention(desk.store, behind=lambda: 0, on_expired=count, exclusively=desk.recorder.exclusively)
    await sweeping.sweep(Gateway(**kept), T0 + now)  # type: ignore[arg-type]
    return gone


async def stored(desk: Desk) -> tuple[set[str], list[str]]:
    """The stored predictions, and the status of each event, in order."""
    async with desk.store.begin() as connection:
        ids = {row[0] for row in await connection.execute(select(row_tables.calls.c.id))}
        events = await connection.execute(select(row_tables.feedback.c.status).order_by(row_tables.feedback.c.seq))
        return ids, [status for (status,) in events]


def ids(*numbers: int) -> set[str]:
    return {call(number).id for number in numbers}


def test_old_predictions_go_with_their_feedback_and_every_count_stays(tmp_path: Path, store: str) -> None:
    old, young = range(20), [DAWN + 1, DAWN + DAY_MS]

    async def story(desk: Desk) -> None:
        desk.journal.calls(*(call(n, prediction=1, unit=f"u{n}", by_unit=True) for n in (*old, *young)))
        desk.journal.events(*(event(n, 1, at=n + 1) for n in (*old, *young)))
        desk.journal.beat(DAWN + 2 * DAY_MS)
        before = await desk.record()
        gone = await sweep(desk, DAWN + 10 * DAY_MS, prediction_retention=10 * DAY_MS)
        assert gone == {"predictions": 20, "feedback": 20}
        assert await stored(desk) == (ids(*young), ["joined", "joined"])
        after = await desk.ledger()
        assert comparable(after.tallies) == comparable(before.tallies)
        assert after.feedback == before.feedback
        assert await sweep(desk, DAWN + 10 * DAY_MS, prediction_retention=10 * DAY_MS) == {}

    at_desk(Desk(tmp_path, metric(), store=store), story)


def test_captured_bodies_go_by_themselves_or_with_their_predictions(tmp_path: Path, store: str) -> None:
    async def captured(desk: Desk) -> int:
        async with desk.store.begin() as connection:
            return len((await connection.execute(select(row_tables.bodies.c.id))).all())

    async def story(desk: Desk) -> None:
        numbers = (*range(20), DAWN + DAY_MS)
        desk.journal.calls(*(call(n) for n in numbers))
        desk.journal.write(PREDICTIONS, (body_line(call(n).id, T0 + n, "r", {"/a": n}, None) for n in numbers))
        desk.journal.beat(DAWN + 2 * DAY_MS)
        await desk.record()
        assert await sweep(desk, DAY_MS + 10, body_retention=DAY_MS) == {"bodies": 10}
        assert await captured(desk) == 11
        gone = await sweep(desk, DAWN + 10 * DAY_MS, prediction_retention=10 * DAY_MS)
        assert gone == {"bodies": 10, "predictions": 20}
        assert await captured(desk) == 1

    at_desk(Desk(tmp_path, metric(), store=store), story)


def test_without_a_retention_everything_stays_but_feedback_that_found_nothing(tmp_path: Path, store: str) -> None:
    async def story(desk: Desk) -> None:
        desk.journal.calls(call(1))
        desk.journal.events(event(2, 1, at=3))
        desk.journal.beat(60_000)
        await desk.record()
        assert await sweep(desk, 89 * DAY_MS) == {}
        assert await stored(desk) == (ids(1), ["orphaned"])
        assert await sweep(desk, 3_650 * DAY_MS) == {"feedback": 1}
        assert await stored(desk) == (ids(1), [])

    at_desk(Desk(tmp_path, metric(), store=store), story)


def test_a_prediction_stays_while_a_window_is_open_whatever_its_age(tmp_path: Path, store: str) -> None:
    """Traffic may have ceased, or a node be far behind: old by the clock is not old in event time."""

    async def story(desk: Desk) -> None:
        desk.journal.calls(call(1, prediction=1), call(DAWN + 5_000))
        desk.journal.beat(900)
        await desk.record()
        assert await sweep(desk, 100 * DAY_MS, prediction_retention=DAY_MS) == {}
        desk.journal.events(event(1, 1, at=950))
        desk.journal.beat(DAWN + 5_000)
        assert sums(await desk.record()) == {"a": (1.0, 1.0)}
        assert (await sweep(desk, 100 * DAY_MS, prediction_retention=DAY_MS)) == {"predictions": 1, "feedback": 1}
        assert (await stored(desk))[0] == ids(DAWN + 5_000)

    at_desk(Desk(tmp_path, metric(), store=store), story)


def test_what_comes_about_a_prediction_that_is_gone_finds_none_and_moves_no_tally(tmp_path: Path, store: str) -> None:
    async def story(desk: Desk) -> None:
        desk.journal.calls(call(1, prediction=1))
        desk.journal.events(event(1, 1, at=10, event_id="e"))
        desk.journal.beat(DAWN + 60_000)
        before = await desk.record()
        await sweep(desk, 100 * DAY_MS, prediction_retention=DAY_MS)
        desk.journal.events(
            event(1, 0, at=DAWN + 60_001, event_id="e", revision=1, occurred_ms=T0 + 20),
            event(1, 1, at=DAWN + 60_002, event_id="e", occurred_ms=T0 + 10),
        )
        desk.journal.beat(DAWN + 90_000)
        after = await desk.record()
        assert comparable(after.tallies) == comparable(before.tallies)
        async with desk.store.begin() as connection:
            totals = await tallies.feedback_total(connection)
        assert totals == {("r", "k", "joined"): 1, ("unknown", "k", "orphaned"): 2}

    at_desk(Desk(tmp_path, metric(), store=store), story)


def test_feedback_without_a_prediction_has_a_retention_of_its_own(tmp_path: Path, store: str) -> None:
    async def story(desk: Desk) -> None:
        desk.journal.calls(call(1, prediction=1))
        desk.journal.events(event(1, 1, at=10), event(1, 1, at=10))
        desk.journal.events(*(keyed(f"k{n}", 1, at=20 + n) for n in range(20)))
        desk.journal.events(event(2, 1, at=5 * DAY_MS))
        desk.journal.beat(6 * DAY_MS)
        await desk.record()
        assert await sweep(desk, 9 * DAY_MS, feedback_retention=8 * DAY_MS) == {"feedback": 21}
        assert await stored(desk) == (ids(1), ["joined", "orphaned"])

    at_desk(Desk(tmp_path, metric(), store=store), story)


def test_of_events_without_a_prediction_the_oldest_go_beyond_so_many(tmp_path: Path, store: str) -> None:
    """A flood of them is bounded by default, in time and in number; what was joined stays."""
    assert Gateway().feedback_retention == 90 * DAY_MS
    assert Gateway().max_orphans == 1_000_000

    async def story(desk: Desk) -> None:
        desk.journal.calls(call(1, prediction=1))
        desk.journal.events(event(1, 1, at=10))
        desk.journal.events(*(keyed(f"k{n}", 1, at=20 + n) for n in range(20)))
        desk.journal.beat(6 * DAY_MS)
        await desk.record()
        assert await sweep(desk, 6 * DAY_MS, max_orphans=5) == {"orphans": 15}
        assert await stored(desk) == (ids(1), ["joined", *["orphaned"] * 5])
        assert await sweep(desk, 6 * DAY_MS, max_orphans=5) == {}

    at_desk(Desk(tmp_path, metric(), store=store), story)


def test_feedback_about_several_predictions_goes_with_the_last_of_them(tmp_path: Path, store: str) -> None:
    """A leftover row could be taken for one of another event that gets the same number."""

    async def story(desk: Desk) -> None:
        desk.journal.calls(*(call(n, key="k", prediction=1) for n in (10, 20, 30)))
        desk.journal.events(keyed("k", 1, at=40))
        desk.journal.beat(DAWN + 5_000)
        await desk.record()
        assert await sweep(desk, 100 * DAY_MS, prediction_retention=DAY_MS) == {"predictions": 3, "feedback": 1}
        async with desk.store.begin() as connection:
            assert list(await connection.execute(select(row_tables.feedback_targets))) == []

    at_desk(Desk(tmp_path, metric(), store=store, key_rule="all"), story)


def test_while_the_journal_waits_nothing_is_removed(tmp_path: Path, store: str) -> None:
    async def story(desk: Desk) -> None:
        desk.journal.calls(call(1))
        desk.journal.beat(DAWN + DAY_MS)
        await desk.record()
        busy = Retention(
            desk.store,
            behind=lambda: cleanup.BEHIND_BYTES + 1,
            on_expired=lambda *_: None,
            exclusively=desk.recorder.exclusively,
        )
        await busy.sweep(Gateway(prediction_retention=DAY_MS), T0 + 100 * DAY_MS)
        assert (await stored(desk))[0] == ids(1)

    at_desk(Desk(tmp_path, metric(), store=store), story)


def test_postgresql_has_a_partition_for_each_day_and_some_ahead(tmp_path: Path, postgresql_url: str) -> None:
    async def story(desk: Desk) -> None:
        desk.journal.calls(call(1), call(DAWN - 1), call(DAWN), call(DAWN + 3 * DAY_MS))
        await desk.record()
        first = partitions.day_of(T0)
        async with desk.store.begin() as connection:
            assert await partitions.present(connection) == {first, first + 1, first + 4}
            counted = text(f"SELECT count(*) FROM {partitions.name_of(first)}")
            assert (await connection.execute(counted)).scalar() == 2
        await sweep(desk, DAWN)
        async with desk.store.begin() as connection:
            assert await partitions.present(connection) == {first, first + 1, first + 2, first + 3, first + 4}

    at_desk(Desk(tmp_path, store=postgresql_url), story)


def test_an_id_is_looked_for_in_the_partition_of_its_time(tmp_path: Path, postgresql_url: str) -> None:
    """With a year of partitions, looking into each would double the cost of a label."""

    async def story(desk: Desk) -> None:
        desk.journal.calls(*(call(n * DAY_MS) for n in range(20)), call(3, id="of an older program"))
        await desk.record()
        async with desk.store.begin() as connection:
            found = await calls.of(connection, [call(5 * DAY_MS).id, "of an older program", "never heard of"])
            assert set(found) == {call(5 * DAY_MS).id, "of an older program"}
            bounds = {"low": T0 + 5 * DAY_MS - 1, "high": T0 + 6 * DAY_MS}
            query = calls._timed().compile(dialect=connection.dialect, compile_kwargs={"render_postcompile": True})
            values = {**query.params, **bounds, "listed": "[]"}
            explained = await connection.exec_driver_sql(
                f"EXPLAIN {query}", tuple(values[name] for name in query.positiontup or ())
            )
            plan = "\n".join(line for (line,) in explained)
        touched = {day for day in range(30) if partitions.name_of(partitions.day_of(T0) + day) in plan}
        assert touched == {5, 6}

    at_desk(Desk(tmp_path, store=postgresql_url), story)


def test_a_partition_that_was_dropped_by_hand_is_made_again(tmp_path: Path, postgresql_url: str) -> None:
    async def story(desk: Desk) -> None:
        desk.journal.calls(*(call(n) for n in range(20)))
        await desk.record()
        async with desk.store.begin() as connection:
            assert await partitions.drop(connection, partitions.day_of(T0)) == 20
        desk.journal.calls(*(call(n) for n in range(20, 40)))
        for _ in range(20):
            await desk.recorder.step()
        await desk.record()
        assert (await stored(desk))[0] == ids(*range(20, 40))

    at_desk(Desk(tmp_path, store=postgresql_url), story)


def test_feedback_about_several_predictions_stays_until_the_last_of_them_goes(tmp_path: Path, store: str) -> None:
    """The younger one's window is still open: without the event it would close without a value."""

    async def story(desk: Desk) -> None:
        desk.journal.calls(call(1, key="k", prediction=1), call(DAWN + 10, key="k", prediction=1))
        desk.journal.events(keyed("k", 1, at=DAWN + 20))
        desk.journal.beat(2 * DAWN + 105)
        await desk.record()
        assert await sweep(desk, 9 * DAY_MS, prediction_retention=DAY_MS) == {"predictions": 1}
        assert await stored(desk) == (ids(DAWN + 10), ["joined"])
        desk.journal.beat(DAWN + 20 * DAY_MS)
        assert sums(await desk.record()) == {"a": (2.0, 2.0)}
        assert await sweep(desk, 100 * DAY_MS, prediction_retention=DAY_MS) == {"predictions": 1, "feedback": 1}
        async with desk.store.begin() as connection:
            assert (await connection.execute(text("SELECT count(*) FROM feedback_targets"))).scalar() == 0

    # The window of everything before dawn has closed, and that of the younger one has not.
    bought = metric("event", window_ms=DAWN + 100)
    at_desk(Desk(tmp_path, bought, store=store, key_rule="all"), story)


async def left(desk: Desk) -> dict[str, int]:
    """How many rows of counts are left, by table, where there are any."""
    found = {}
    async with desk.store.begin() as connection:
        for table in (
            count_tables.tallies,
            count_tables.units,
            count_tables.buckets,
            count_tables.hours,
            count_tables.arrivals,
            count_tables.stretches,
            count_tables.plans,
            row_tables.shared_values,
        ):
            n = (await connection.execute(select(func.count()).select_from(table))).scalar_one()
            if n:
                found[table.name] = n
    return found


async def in_force(desk: Desk, epoch: str, at: int, revision: int) -> None:
    """Put the route into an epoch from now on."""
    desk.adopt(snapshot(metric(), revision=revision, epoch=epoch, period=T0 + at), at)
    async with desk.store.change() as connection:
        await plans.write_plans(connection, desk.snapshot.routes.values(), T0 + at)


KEPT = {"prediction_retention": 10 * DAY_MS, "tally_retention": 20 * DAY_MS}


def test_what_is_counted_of_an_epoch_goes_when_it_was_left_long_ago(tmp_path: Path, store: str) -> None:
    """And no sooner: the present epoch, one that was left lately, and one with a prediction still there stay."""

    async def story(desk: Desk) -> None:
        await in_force(desk, "e", 0, 1)
        desk.journal.calls(*(call(n, prediction=1, unit=f"u{n}", by_unit=True) for n in range(20)))
        desk.journal.events(*(event(n, 1, at=n + 1) for n in range(20)))
        desk.journal.beat(5_000)
        await desk.record()
        await in_force(desk, "f", 6_000, 2)
        later = DAWN + 30 * DAY_MS
        desk.journal.calls(*(call(later + n, epoch="f", revision=2, prediction=1) for n in range(5)))
        desk.journal.beat(later + 5_000)
        before = await desk.record()
        assert sums(before) == {"a": (20.0, 20.0)}
        assert await sweep(desk, DAWN + 19 * DAY_MS, **KEPT) == {"predictions": 20, "feedback": 20}
        assert comparable((await desk.ledger()).tallies) == comparable(before.tallies)
        gone = await sweep(desk, DAWN + 32 * DAY_MS, **KEPT)
        assert gone.keys() == {"tallies"}
        assert (await desk.ledger()).tallies == {}
        # Of the present epoch: its calls, and how many have their windows closed.
        assert await left(desk) == {"tallies": 2, "hours": 1, "stretches": 1, "plans": 1, "kin": 1}
        assert (await desk.store.ledger("r", "f")).pooled("a", "primary", CALLS, "live").d == 5
        assert await sweep(desk, DAWN + 32 * DAY_MS, **KEPT) == {}

    at_desk(Desk(tmp_path, metric(), store=store), story)


def test_an_epoch_that_is_resumed_after_it_went_begins_anew(tmp_path: Path, store: str) -> None:
    """The recorder forgets what it remembered of it: every call is counted, and found with what it has in common."""

    async def story(desk: Desk) -> None:
        await in_force(desk, "e", 0, 1)
        desk.journal.calls(call(1, prediction=1, unit="u", by_unit=True))
        desk.journal.beat(DAWN + DAY_MS)
        await desk.record()
        await in_force(desk, "f", 6_000, 2)
        await desk.record()
        assert (await sweep(desk, DAWN + 40 * DAY_MS, **KEPT))["tallies"] > 0
        await in_force(desk, "e", DAWN + 41 * DAY_MS, 3)
        again = DAWN + 41 * DAY_MS
        desk.journal.calls(call(again, prediction=1, unit="u", by_unit=True))  # as a row of the old revision, late
        desk.journal.beat(again + 5_000)
        ledger = await desk.record()
        assert ledger.pooled("a", "primary", CALLS, "live").d == 1
        assert await desk.store.prediction(call(again).id) is not None
        assert await sweep(desk, again + 5_000, **KEPT) == {}

    at_desk(Desk(tmp_path, metric(), store=store), story)


def test_an_epoch_stays_while_one_of_its_predictions_does(tmp_path: Path, store: str) -> None:
    async def story(desk: Desk) -> None:
        await in_force(desk, "e", 0, 1)
        desk.journal.calls(call(1, prediction=1), call(DAWN + 5_000))
        desk.journal.beat(900)  # the first one's window is open
        await desk.record()
        await in_force(desk, "f", 6_000, 2)
        assert await sweep(desk, 100 * DAY_MS, **KEPT) == {}
        desk.journal.events(event(1, 1, at=950))
        desk.journal.beat(DAWN + 5_000)
        assert sums(await desk.record()) == {"a": (1.0, 1.0)}

    at_desk(Desk(tmp_path, metric(), store=store), story)


def test_an_epoch_that_is_resumed_while_it_goes_keeps_what_is_new(tmp_path: Path, store: str) -> None:
    """Counts are removed in chunks: between two of them the operator may go back to the epoch."""

    async def story(desk: Desk) -> None:
        await in_force(desk, "e", 0, 1)
        desk.journal.calls(*(call(n, prediction=1, unit=f"u{n}", by_unit=True) for n in range(40)))
        desk.journal.beat(5_000)
        await desk.record()
        await in_force(desk, "f", 6_000, 2)
        await desk.record()
        late = T0 + DAWN + 40 * DAY_MS
        async with desk.store.change() as connection:
            await connection.execute(delete(row_tables.calls))  # as their own retention does
        for _ in range(3):
            await desk.recorder.exclusively(lambda: chunk(desk, late))
        again = DAWN + 41 * DAY_MS
        await in_force(desk, "e", again, 3)
        new: dict[str, Any] = {"epoch": "e", "period": T0 + again, "revision": 3, "by_unit": True}
        desk.journal.calls(*(call(again + n, prediction=1, unit=f"u{n}", **new) for n in range(40)))
        desk.journal.beat(again + 5_000)
        before = await desk.record()
        assert before.pooled("a", "primary", CALLS, "live").d == 40
        gone = await sweep(desk, again + 6_000, **KEPT)
        assert gone["tallies"] > 0
        after = await desk.ledger()
        assert comparable(after.tallies) == comparable(before.tallies)
        assert {stretch.period: stretch.counts for stretch in after.stretches} == {T0 + again: {"a": 40}}
        few = {"tallies": 2, "buckets": 1, "hours": 1, "stretches": 1, "plans": 2, "kin": 1}
        assert await left(desk) == {**few, "units": 40, "arrivals": 40}

    at_desk(Desk(tmp_path, metric(), store=store), story)


async def chunk(desk: Desk, before_ms: int) -> None:
    (kind,) = [kind for kind in retention.KINDS if kind.name == "tallies"]
    async with desk.store.change() as connection:
        await kind.expire(connection, before_ms, 0)


def test_an_epoch_that_is_in_force_stays_though_no_call_comes(tmp_path: Path, store: str) -> None:
    async def story(desk: Desk) -> None:
        await in_force(desk, "e", 0, 1)
        desk.journal.calls(call(1, prediction=1))
        desk.journal.beat(DAWN + DAY_MS)
        before = await desk.record()
        gone = await sweep(desk, DAWN + 400 * DAY_MS, **KEPT)
        assert gone == {"predictions": 1}
        assert comparable((await desk.ledger()).tallies) == comparable(before.tallies)

    at_desk(Desk(tmp_path, metric(), store=store), story)


def test_a_plan_that_cannot_be_folded_stops_neither_other_routes_nor_retention(
    tmp_path: Path, store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cleanup, "FIRST_SECONDS", 0.0)
    monkeypatch.setattr(history, "KEPT", 2)
    monkeypatch.setattr(history, "PACK", 2)

    async def rows(desk: Desk, route: str) -> int:
        async with desk.store.read() as connection:
            query = select(func.count()).select_from(count_tables.plans).where(count_tables.plans.c.route == route)
            return int((await connection.execute(query)).scalar_one())

    async def story(desk: Desk) -> None:
        desk.journal.calls(call(1))
        desk.journal.beat(DAWN)
        await desk.record()
        async with desk.store.begin() as connection:
            for route, shares in (("broken", "{"), ("whole", "{}")):
                made = [(route, number, "e", 0, T0, "{}", shares) for number in range(1, 5)]
                await sql.insert(connection, count_tables.plans, made)
                await sql.insert(connection, count_tables.stretches, [(route, "e", 0, 1, "a", 1)])
        sweeping = Retention(
            desk.store, behind=lambda: 0, on_expired=lambda kind, n: None, exclusively=desk.recorder.exclusively
        )
        kept = Gateway(prediction_retention=DAY_MS)
        task = asyncio.create_task(cleanup.keep_sweeping(sweeping, lambda: kept, lambda: T0 + DAWN + 10 * DAY_MS))
        async with asyncio.timeout(20):
            while (await stored(desk))[0] or await rows(desk, "whole") > 2:
                await asyncio.sleep(0.01)
        task.cancel()
        assert await rows(desk, "broken") == 4

    at_desk(Desk(tmp_path, metric(), store=store), story)
