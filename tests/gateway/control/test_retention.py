"""What has been kept long enough goes, with all that hangs on it; what is counted stays."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from sqlalchemy import select, text

from gateway.control import retention as chores
from gateway.control.retention import Retention
from gateway.journal import PREDICTIONS
from gateway.store import calls, partitions, retention, tables, tallies
from router.records import body_line
from router.snapshot import Gateway
from tests.gateway.control.builders import T0, Desk, at_desk, call, comparable, event, keyed, metric, sums

DAY_MS = partitions.DAY_MS
#: The first midnight after the beginning: predictions of two days and more are told by their numbers.
DAWN = (partitions.day_of(T0) + 1) * DAY_MS - T0


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chores, "PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(retention, "CHUNK", 7)


async def sweep(desk: Desk, now: int, **kept: int) -> Counter[str]:
    """Sweep at ``now`` milliseconds after the beginning, and return what went."""
    gone: Counter[str] = Counter()

    def tell(kind: str, n: int) -> None:
        gone[kind] += n

    await Retention(desk.store, behind=lambda: 0, tell=tell).sweep(Gateway(**kept), T0 + now)  # type: ignore[arg-type]
    return gone


async def stored(desk: Desk) -> tuple[set[str], list[str]]:
    """The predictions there are, and the status of each event, in their order."""
    async with desk.store.begin() as connection:
        ids = {row[0] for row in await connection.execute(select(tables.calls.c.id))}
        events = await connection.execute(select(tables.feedback.c.status).order_by(tables.feedback.c.seq))
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
            return len((await connection.execute(select(tables.bodies.c.id))).all())

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


def test_without_a_retention_everything_stays(tmp_path: Path, store: str) -> None:
    async def story(desk: Desk) -> None:
        desk.journal.calls(call(1))
        desk.journal.events(event(2, 1, at=3))
        desk.journal.beat(60_000)
        await desk.record()
        assert await sweep(desk, 3_650 * DAY_MS) == {}
        assert await stored(desk) == (ids(1), ["orphaned"])

    at_desk(Desk(tmp_path, metric(), store=store), story)


def test_a_prediction_stays_while_a_window_is_open_whatever_its_age(tmp_path: Path, store: str) -> None:
    """Traffic may have ceased, or a node be far behind: the clock says it is old, and event time that it is not."""

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
            told = await tallies.feedback_total(connection)
        assert told == {("r", "k", "joined"): 1, ("unknown", "k", "orphaned"): 2}

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


def test_feedback_about_several_predictions_goes_with_the_last_of_them(tmp_path: Path, store: str) -> None:
    """What is left of it could be taken for another event's, whose number it gets."""

    async def story(desk: Desk) -> None:
        desk.journal.calls(*(call(n, key="k", prediction=1) for n in (10, 20, 30)))
        desk.journal.events(keyed("k", 1, at=40))
        desk.journal.beat(DAWN + 5_000)
        await desk.record()
        assert await sweep(desk, 100 * DAY_MS, prediction_retention=DAY_MS) == {"predictions": 3, "feedback": 1}
        async with desk.store.begin() as connection:
            assert list(await connection.execute(select(tables.feedback_targets))) == []

    at_desk(Desk(tmp_path, metric(), store=store, key_rule="all"), story)


def test_while_the_journal_waits_nothing_is_removed(tmp_path: Path, store: str) -> None:
    async def story(desk: Desk) -> None:
        desk.journal.calls(call(1))
        desk.journal.beat(DAWN + DAY_MS)
        await desk.record()
        busy = Retention(desk.store, behind=lambda: chores.BEHIND_BYTES + 1, tell=lambda *_: None)
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
    """With a year of them, a look into each would cost a label as much as everything else together."""

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


def test_a_day_that_somebody_dropped_is_made_again(tmp_path: Path, postgresql_url: str) -> None:
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
    """The younger one's window is still open: without the event it would close on nothing."""

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
