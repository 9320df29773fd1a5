"""Calls and mature values by hour, after a week by day, whatever was corrected when."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sqlalchemy import func, select, text

from gateway.control.upkeep.cleanup import Retention
from gateway.store.counts import hours
from gateway.store.counts.hours import DAY_MS, HOUR_MS
from gateway.store.counts.ledger import CALLS
from gateway.store.schema import count_tables
from gateway.store.schema.fleet_tables import numbers
from tests.gateway.control.builders import T0, Desk, at_desk, call, event, metric

DAY = T0 - T0 % DAY_MS - T0  # when the day begins, for the builders
LABEL = metric("value", window_ms=30 * DAY_MS, mature="arrival")


async def series(desk: Desk, now: int, name: str = "k", since: int = DAY) -> list[tuple[Any, ...]]:
    found = await desk.store.series("r", name, T0 + since, T0 + now)
    return [((one["at_ms"] - T0 - DAY) // HOUR_MS, one["hours"], one["variant"], one["n"], one["sum"]) for one in found]


async def fold(desk: Desk, now: int) -> None:
    more = True
    while more:
        async with desk.store.begin() as connection:
            more = await hours.fold(connection, T0 + now)


async def rows(desk: Desk) -> int:
    async with desk.store.begin() as connection:
        return int((await connection.execute(select(func.count()).select_from(count_tables.hours))).scalar_one())


def test_hours_become_days_and_corrections_find_them(tmp_path: Path, store: str) -> None:
    async def story(desk: Desk) -> None:
        at = [DAY + HOUR_MS * hour + place for place, hour in enumerate((1, 1, 2, 30))]
        desk.journal.calls(*(call(n, "ab"[place == 1], period=1 + place) for place, n in enumerate(at)))
        desk.journal.events(*(event(n, 1e9 if n == at[2] else 0.1, at[3]) for n in at))
        await desk.record()
        now = DAY + 31 * HOUR_MS
        expected = [(1, 1, "a", 1, 0.1), (1, 1, "b", 1, 0.1), (2, 1, "a", 1, 1e9), (30, 1, "a", 1, 0.1)]
        assert await series(desk, now) == expected
        assert await series(desk, now, since=DAY + 2 * HOUR_MS + 5) == expected[2:]
        assert await series(desk, now, CALLS) == [(*of, n, 0.0) for *of, n, _ in expected]
        # Eight days later the first day is one of days, whether it was folded yet or not.
        later = DAY + 8 * DAY_MS
        expected = [(0, 24, "a", 2, 1e9 + 0.1), (0, 24, "b", 1, 0.1), (30, 1, "a", 1, 0.1)]
        assert await series(desk, later) == expected
        assert await rows(desk) == 8
        await fold(desk, later)
        assert (await series(desk, later), await rows(desk)) == (expected, 6)
        desk.journal.events(event(at[2], 5, at[3] + 1, revision=1), event(at[0], None, at[3] + 1, revision=1))
        await desk.record()
        expected[0] = (0, 24, "a", 1, 5.0)  # exactly, though a thousand million was there
        assert await series(desk, later) == expected
        await fold(desk, later)
        assert (await series(desk, later), await rows(desk)) == (expected, 6)

    at_desk(Desk(tmp_path, LABEL, store=store), story)


def test_values_that_an_earlier_version_counted_are_in_no_hour(tmp_path: Path) -> None:
    """Nor is their correction: an hour would have values less than nothing."""

    async def story(desk: Desk) -> None:
        desk.journal.calls(call(1))
        desk.journal.events(event(1, 3, 5))
        await desk.record()
        async with desk.store.begin() as connection:
            await connection.execute(text("DELETE FROM hours"))
            await connection.execute(numbers.insert(), {"name": "finer_since_ms", "value": T0 + 2})
        desk.restart()
        desk.journal.calls(call(2))
        desk.journal.events(event(1, 4, 6, revision=1), event(2, 5, 6))
        await desk.record()
        assert [row[3:] for row in await series(desk, 10)] == [(1, 5.0)]

    at_desk(Desk(tmp_path, LABEL), story)


def test_old_hours_are_folded_once_a_day(tmp_path: Path) -> None:
    async def story(desk: Desk) -> None:
        async def exclusively(change: Any) -> Any:
            return await change()

        sweeper = Retention(desk.store, behind=lambda: 0, on_expired=lambda *_: None, exclusively=exclusively)
        desk.journal.calls(*(call(DAY + hour * HOUR_MS) for hour in range(5)))
        await desk.record()
        await sweeper.fold_hours(T0 + DAY + 6 * HOUR_MS)
        assert await rows(desk) == 5
        await sweeper.fold_hours(T0 + DAY + 8 * DAY_MS)
        assert await rows(desk) == 1

    at_desk(Desk(tmp_path, LABEL), story)
