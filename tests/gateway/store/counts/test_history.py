"""A bandit makes a plan a second, for ever: old plans cost no more than on the first day, and none is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.control.upkeep.cleanup import Retention
from gateway.report.account import Account
from gateway.report.verdict import sample_ratio_of
from gateway.store import Store
from gateway.store.counts import history, plans
from gateway.store.schema import sql
from gateway.store.schema.count_tables import plans as numbered
from gateway.store.schema.count_tables import stretches
from policies.plans import Weighted, encode_plan
from policies.statistics.sample_ratio import sample_ratio
from router.snapshot import Route
from tests.gateway.control.builders import snapshot
from tests.gateway.store.schema.test_version_1 import made_by_the_first_program

EPOCHS = ("e", "f")
Given = tuple[str, int, dict[str, int]]


def route_of(revision: int, epoch: str, share: float) -> Route:
    plan = Weighted((("a", share), ("b", 1 - share)), sticky=False)
    return snapshot(revision=revision, epoch=epoch, plan=plan, policy="thompson").routes["r"]


async def decide(store: Store, revision: int, epoch: str, counts: Mapping[str, int]) -> None:
    """Make a plan, and give units to variants under it."""
    async with store.begin() as connection:
        await plans.write_plans(connection, [route_of(revision, epoch, share_of(revision))], revision)
        await give(connection, revision, epoch, counts)


async def give(connection: AsyncConnection, revision: int, epoch: str, counts: Mapping[str, int]) -> None:
    await sql.add(connection, stretches, [(("r", epoch, 1, revision, variant), n) for variant, n in counts.items()])


def share_of(revision: int) -> float:
    return 0.2 + 0.6 * (revision * 7_919 % 1_009) / 1_009


async def fold(store: Store) -> None:
    more = True
    while more:
        async with store.begin() as connection:
            more = await history.fold(connection, "r")


async def p_of(store: Store, epoch: str) -> float:
    ledger = await store.ledger("r", epoch)
    found = sample_ratio_of(Account(snapshot(policy="thompson", epoch=epoch), ledger))
    assert found is not None
    return found.p


def at_store(where: str, path: Path, story: Callable[[Store], Awaitable[None]]) -> None:
    async def run() -> None:
        store = await Store.open(where, path)
        try:
            await story(store)
        finally:
            await store.close()

    asyncio.run(run())


@settings(max_examples=10, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(EPOCHS),
            st.booleans(),
            st.dictionaries(st.sampled_from("ab"), st.integers(0, 60), max_size=2),
        ),
        max_size=40,
    )
)
def test_the_check_of_shares_is_the_same_number_however_much_is_folded(
    tmp_path_factory: pytest.TempPathFactory, made: list[tuple[str, bool, dict[str, int]]]
) -> None:
    """Between any two plans everything but the newest may have been folded, and epochs come and go and come back."""

    async def story(store: Store) -> None:
        whole: dict[str, list[tuple[dict[str, int], dict[str, float]]]] = {epoch: [] for epoch in EPOCHS}
        for number, (epoch, folding, counts) in enumerate(made):
            share = share_of(number + 1)
            await decide(store, number + 1, epoch, counts)
            whole[epoch].append((counts, {"a": share, "b": 1 - share}))
            if folding:
                await fold(store)
            assert await p_of(store, epoch) == sample_ratio(whole[epoch]).p
        for number, (epoch, _, _) in enumerate(made):
            async with store.begin() as connection:
                route = route_of(number + 1, epoch, share_of(number + 1))
                assert await plans.taken(connection, [route]) == set(), "each plan is found, and is what it was"
                assert ("r", number + 1) in await history.find(connection, [("r", number + 1)])
        last = {epoch: number + 1 for number, (epoch, _, _) in enumerate(made)}
        async with store.begin() as connection:
            for epoch, revision in last.items():
                found = await history.last_of(connection, "r", epoch)
                assert found is not None
                assert found.revision == revision

    with few_kept():
        at_store("sqlite", tmp_path_factory.mktemp("store"), story)


@contextmanager
def few_kept() -> Iterator[None]:
    """Packs of three plans, and two that stay rows."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(history, "KEPT", 2)
        patch.setattr(history, "PACK", 3)
        yield


def test_what_comes_late_under_a_folded_plan_is_a_stretch_of_its_own(tmp_path: Path, store: str) -> None:
    async def story(opened: Store) -> None:
        for revision in range(1, 9):
            await decide(opened, revision, "e", {"a": 50, "b": 50})
        await fold(opened)
        before = await p_of(opened, "e")
        async with opened.begin() as connection:
            await give(connection, 1, "e", {"a": 400, "b": 1})
        late = await p_of(opened, "e")
        assert late < before, "it counts"
        for revision in range(9, 14):
            await decide(opened, revision, "e", {"a": 1, "b": 1})
        await fold(opened)
        assert await p_of(opened, "e") <= late, "and goes on to count when it is folded, too"

    with few_kept():
        at_store(store, tmp_path, story)


def test_a_day_of_plans_leaves_as_many_rows_as_an_hour(tmp_path: Path, store: str) -> None:
    """At 30d391e every report, scrape and plan read a row for each plan that was ever made."""

    async def rows_after(opened: Store, since: int, until: int) -> int:
        for revision in range(since, until):
            await decide(opened, revision, "e", {"a": 5, "b": 5})
        await fold(opened)
        ledger = await opened.ledger("r", "e")
        return len(ledger.stretches) + len(await opened.plans("r", 10_000))

    async def story(opened: Store) -> None:
        first = await rows_after(opened, 1, 20)
        assert await rows_after(opened, 20, 200) <= first + 2 * history.PACK
        assert await p_of(opened, "e") > 0.5

    with few_kept():
        at_store(store, tmp_path, story)


def test_what_the_first_program_left_of_a_bandit_is_folded_and_says_the_same(tmp_path: Path, store: str) -> None:
    made_by_the_first_program(store, tmp_path)

    async def story(opened: Store) -> None:
        plan = orjson.dumps(encode_plan(Weighted((("a", 0.5), ("b", 0.5)), sticky=False))).decode()
        shares = [orjson.dumps({"a": share_of(n), "b": 1 - share_of(n)}).decode() for n in range(300)]
        async with opened.begin() as connection:
            await sql.insert(
                connection, numbered, [("r", n, "e", 1, n, plan, said) for n, said in enumerate(shares, start=1)]
            )
            for n in range(1, 301):
                await give(connection, n, "e", {"a": 7 + n % 3, "b": 5})
        before = await opened.ledger("r", "e")
        assert len(before.stretches) == 300
        p = await p_of(opened, "e")
        sweeper = Retention(opened, behind=lambda: 0, on_expired=lambda *_: None, exclusively=lambda change: change())
        await sweeper.fold()
        after = await opened.ledger("r", "e")
        assert len(after.stretches) == 50
        assert await p_of(opened, "e") == p
        async with opened.begin() as connection:
            found = await history.find(connection, [("r", n) for n in range(1, 301)])
        assert [found["r", n].shares for n in range(1, 301)] == shares

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(history, "KEPT", 50)
        patch.setattr(history, "PACK", 50)
        at_store(store, tmp_path, story)
