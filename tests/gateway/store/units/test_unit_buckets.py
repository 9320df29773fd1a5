"""Units are in buckets, the same in every tally; where there are few of them, each can be looked at."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import delete, func, select

from gateway.store.counts.ledger import Ledger, UnitsOf
from gateway.store.schema.count_tables import buckets
from gateway.store.units.few_units import FEW
from gateway.store.units.unit_buckets import bucket_of, hash_of
from policies.types import BUCKETS, Buckets
from tests.gateway.control.builders import Desk, at_desk, call, event, metric

MONEY = metric("value", mature="arrival", fold="sum")


def units(n: int) -> list[str]:
    return [f"user-{i}" for i in range(n)]


def pooled(ledger: Ledger, phase: str, period: int | None = None) -> Buckets:
    total = Buckets()
    for key, found in ledger.buckets.items():
        if key.phase == phase and period in {None, key.period}:
            total += found
    return total


def test_units_spread_evenly_and_always_in_the_same_way() -> None:
    assert [bucket_of(unit) for unit in ("user-1", "", "Ünit")] == [
        hash_of(u) % BUCKETS for u in ("user-1", "", "Ünit")
    ]
    assert (bucket_of("user-1"), bucket_of("user-2")) == (9, 20)  # as they are in stores
    counts = [0] * BUCKETS
    for unit in units(64_000):
        counts[bucket_of(unit)] += 1
    assert sum((n - 1_000) ** 2 / 1_000 for n in counts) < 110  # χ² of 63 degrees of freedom, p = 0.0002


def test_a_corrected_value_leaves_nothing_behind(tmp_path: Path, store: str) -> None:
    async def story(desk: Desk) -> None:
        for n, unit in enumerate(units(3)):
            desk.journal.calls(call(n, unit=unit, by_unit=True))
        desk.journal.events(event(0, 1e9, 10), event(1, 0.1, 10), event(2, -4, 10))
        await desk.record()
        desk.restart()
        desk.journal.events(event(0, 5, 20, revision=1), event(2, None, 20, revision=1))
        found = pooled(await desk.record(), "mature")
        expected = [[0.0] * BUCKETS, [0.0] * BUCKETS]
        for unit, value in (("user-0", 5.0), ("user-1", 0.1)):
            expected[0][bucket_of(unit)] += value
            expected[1][bucket_of(unit)] += 1.0
        assert found == Buckets(*map(tuple, expected))

    at_desk(Desk(tmp_path, MONEY, store=store), story)


def test_a_unit_is_in_one_bucket_in_every_period_whether_it_has_a_value_or_not(tmp_path: Path) -> None:
    """The closed windows and the values of a bucket are of the same units: so coverage can be judged by bucket."""

    async def story(desk: Desk) -> None:
        for period in (1, 2):
            for n in range(200):
                unit = f"user-{n % 10}"
                desk.journal.calls(call(1_000 * period + n, "ab"[n % 2], unit=unit, by_unit=True, period=period))
            desk.journal.events(*(event(1_000 * period + n, n, 3_000) for n in range(10)))
        desk.journal.calls(call(5_000, by_unit=True))  # without a unit: a unit of its own
        desk.journal.beat(20_000)
        ledger = await desk.record()
        made, closed = Buckets(), [0.0] * BUCKETS
        for n in range(10):
            closed[bucket_of(f"user-{n}")] += 20
        assert pooled(ledger, "closed", 2).d == tuple(closed)
        closed[bucket_of(call(5_000).id)] += 1
        assert pooled(ledger, "closed", 1).d == tuple(closed)
        for period in (1, 2):
            made += pooled(ledger, "mature", period)
            assert {n for n, d in enumerate(pooled(ledger, "mature", period).d) if d} == {
                bucket_of(f"user-{n}") for n in range(10)
            }
        assert (sum(made.m), sum(made.d)) == (2 * 45, 20)

    at_desk(Desk(tmp_path, metric("value", window_ms=5_000)), story)


def test_what_an_earlier_version_began_has_no_buckets(tmp_path: Path) -> None:
    """Part of its values could not be put into any: so none is, until the next period."""

    async def story(desk: Desk) -> None:
        desk.journal.calls(*(call(n, unit="u", by_unit=True) for n in range(2)))
        desk.journal.events(event(0, 1, 10))
        await desk.record()
        async with desk.store.begin() as connection:
            await connection.execute(delete(buckets))
        desk.journal.events(event(1, 2, 20))
        assert (await desk.record()).buckets == {}
        desk.journal.calls(call(5, unit="u", by_unit=True, period=2))
        desk.journal.events(event(5, 2, 20))
        assert [key.period for key in (await desk.record()).buckets] == [2]

    at_desk(Desk(tmp_path, MONEY), story)


def test_without_units_there_are_no_buckets(tmp_path: Path) -> None:
    async def story(desk: Desk) -> None:
        desk.journal.calls(*(call(n, unit="u") for n in range(4)))
        desk.journal.events(event(0, 1, 10))
        desk.journal.beat(5_000)
        ledger = await desk.record()
        async with desk.store.begin() as connection:
            assert (await connection.execute(select(func.count()).select_from(buckets))).scalar() == 0
        assert (ledger.buckets, ledger.few_units) == ({}, {})

    at_desk(Desk(tmp_path, metric("value")), story)


def test_few_units_are_all_of_them_or_none(tmp_path: Path) -> None:
    async def story(desk: Desk) -> None:
        few = UnitsOf("a", "1", "primary", "", "k", MONEY.definition)
        for n, unit in enumerate(units(FEW - 1)):
            desk.journal.calls(*(call(2 * n + again, unit=unit, by_unit=True) for again in (0, 1)))
            desk.journal.events(event(2 * n, n, 900), event(2 * n + 1, 1, 900))
        found = (await desk.record()).few_units[few]
        assert sorted(found) == [(n + 1.0, 2.0) for n in range(FEW - 1)]
        by_hash = sorted(range(FEW - 1), key=lambda n: hash_of(f"user-{n}"))
        assert [m for m, _ in found] == [n + 1.0 for n in by_hash]
        desk.journal.calls(call(1_000, by_unit=True))  # of which there is no row
        desk.journal.events(event(1_000, 1, 900))
        assert (await desk.record()).few_units == {}
        desk.journal.events(event(1_000, None, 1_900, revision=1))
        assert len((await desk.record()).few_units[few]) == FEW - 1
        desk.journal.calls(call(1_001, unit="one more", by_unit=True))
        desk.journal.events(event(1_001, 1, 900))
        assert (await desk.record()).few_units == {}

    at_desk(Desk(tmp_path, MONEY), story)
