"""A unit that has values in several periods is one unit, after any sequence of corrections."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from itertools import count
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from gateway.store import Store
from gateway.store.counts.deltas import Deltas
from gateway.store.counts.ledger import Ledger
from gateway.store.counts.tallies import TallyCache, apply
from gateway.store.schema import migrations
from gateway.store.schema.tables import schema_version
from router.outcomes import Value
from router.records import Outcome
from tests.gateway.control.builders import call, metric, row

MONEY = metric("value")
NUMBERS = count()
#: A unit in a period has one value more, or one fewer.
Change = tuple[str, int, bool]


async def change(store: Store, cache: TallyCache, changes: list[Change], epoch: str = "e") -> None:
    """One transaction."""
    deltas = Deltas()
    for unit, period, more in changes:
        made = row(call(1, unit=unit, by_unit=True, period=period, epoch=epoch))
        outcome = Outcome(None, 1.0) if more else Outcome(1.0, None)
        deltas.outcome(made, MONEY, Value("a", "1", "primary", "", None, None), outcome, outcome)
    async with store.begin() as connection:
        await apply(connection, deltas, cache)


def distinct(ledger: Ledger) -> dict[int, int]:
    return {key.period: tally.distinct for key, tally in ledger.tallies.items() if key.phase == "mature"}


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    transactions=st.lists(
        st.lists(st.tuples(st.sampled_from("uvw"), st.integers(1, 5), st.booleans()), max_size=8), max_size=8
    ),
    forgetful=st.booleans(),
)
def test_each_unit_is_counted_in_its_first_period(
    tmp_path: Path, store: str, transactions: list[list[Change]], forgetful: bool
) -> None:
    epoch = f"e{next(NUMBERS)}"  # each in a corner of its own of one store

    async def run() -> None:
        opened = await Store.open(store, tmp_path)
        held: defaultdict[tuple[str, int], int] = defaultdict(int)
        cache = TallyCache()
        for wanted in transactions:
            changes = []
            for unit, period, more in wanted:
                if more or held[unit, period]:
                    changes.append((unit, period, more))
                    held[unit, period] += 1 if more else -1
            await change(opened, TallyCache() if forgetful else cache, changes, epoch)
            present = {at for at, n in held.items() if n}
            first = {unit: min(p for u, p in present if u == unit) for unit, _ in present}
            expected = {p: sum(at == p for at in first.values()) for p in {p for _, p in present}}
            assert distinct(await opened.ledger("r", epoch)) == expected
        await opened.close()

    asyncio.run(run())


def test_eighty_people_are_eighty_however_often_shares_are_edited(tmp_path: Path) -> None:
    async def run() -> None:
        opened, cache = await Store.open("sqlite", tmp_path), TallyCache()
        for period in range(1, 41):
            await change(opened, cache, [(f"user-{n}", period, True) for n in range(0, 80, 1 + period % 2)])
        ledger = await opened.ledger("r", "e")
        mature = [tally for key, tally in ledger.tallies.items() if key.phase == "mature"]
        assert (sum(tally.n for tally in mature), sum(tally.distinct for tally in mature)) == (2_400, 80)
        [few] = ledger.few_units.values()
        assert (len(few), sum(d for _, d in few)) == (80, 2_400)
        await opened.close()

    asyncio.run(run())


def test_units_of_an_earlier_version_are_counted_once(
    tmp_path: Path, store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = next(number for number, step in migrations.STEPS.items() if "a unit once" in step.what)

    async def run() -> None:
        opened, cache = await Store.open(store, tmp_path), TallyCache()
        people = {1: "uvw", 3: "wx", 2: "vwy"}
        for period, units in people.items():
            await change(opened, cache, [(unit, period, True) for unit in units])
        await change(opened, cache, [("v", 1, False)])
        fresh = distinct(await opened.ledger("r", "e"))
        assert fresh == {1: 2, 2: 2, 3: 1}
        async with opened.begin() as connection:
            await connection.execute(text('UPDATE tallies SET "distinct" = n'))
            await connection.execute(schema_version.update(), {"version": number - 1})
        await opened.close()
        monkeypatch.setattr(migrations, "VERSION", number)
        again = await Store.open(store, tmp_path)
        assert (again.migrated.before, distinct(await again.ledger("r", "e"))) == (number - 1, fresh)
        await again.close()

    asyncio.run(run())
