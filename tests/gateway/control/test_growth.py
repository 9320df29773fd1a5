"""The cost of a step, a report or a plan follows what happens, not what is configured or how long it has run.

Counted in statements and in hundreds of instructions of SQLite's machine, not in time: so it is the same everywhere.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, Table, event
from sqlalchemy.pool import Pool

from gateway.store import Store, retention
from gateway.store.counts import history
from gateway.store.schema import count_tables, row_tables, sql
from router.snapshot import Route, Snapshot
from tests.gateway.control.builders import T0, Desk, call, metric, uuid
from tests.gateway.control.builders import event as feedback

#: Instructions of SQLite's machine that are counted as one.
STRIDE = 50
MANY = 300

#: A tally of mature values: where it is, and what it sums up.
MATURE = ("a", "1", "primary", "", "k", "d", "mature")
SUMS = (1, 1.0, 1.0, 1.0, 1.0, 1.0, 1, 0, 1.0, None, 1.0, 1.0, 1.0, 1.0, 1)


@dataclass
class Cost:
    """Statements, and instructions by the stride."""

    statements: int = 0
    instructions: int = 0


@contextmanager
def counting() -> Iterator[Cost]:
    """Count the work of every connection that is made from now on."""
    cost = Cost()

    def statement(*_: Any) -> None:
        cost.statements += 1

    def instruction() -> int:
        cost.instructions += 1
        return 0

    def connected(connection: Any, _: Any) -> None:
        connection.run_async(lambda driver: driver.set_progress_handler(instruction, STRIDE))

    event.listen(Engine, "before_cursor_execute", statement)
    event.listen(Pool, "connect", connected)
    try:
        yield cost
    finally:
        event.remove(Engine, "before_cursor_execute", statement)
        event.remove(Pool, "connect", connected)


Fill = Callable[[Store, int], Awaitable[None]]


async def fill(store: Store, table: Table, rows: Sequence[tuple[Any, ...]]) -> None:
    async with store.begin() as connection:
        await sql.insert(connection, table, rows)


async def routes(store: Store, n: int) -> None:
    """Routes without calls: each with its metric, and its epoch."""
    [metric_row] = (await rows_of(store, count_tables.definitions))[:1]
    await fill(store, count_tables.definitions, [(f"s{i}", *metric_row[1:]) for i in range(n)])
    await fill(store, count_tables.epochs, [(f"s{i}", "e", T0, "{}") for i in range(n)])
    await fill(store, count_tables.plans, [(f"s{i}", 1, "e", 1, T0, "{}", "{}") for i in range(n)])


async def revisions(store: Store, n: int) -> None:
    """Plans of the route, and the counts of what they assigned, folded as in the background."""
    shares = '{"a":0.5,"b":0.5}'
    await fill(store, count_tables.plans, [("r", 10 + i, "e", 1, T0, "{}", shares) for i in range(n)])
    await fill(store, count_tables.stretches, [("r", "e", 1, 10 + i, "a", 1) for i in range(n)])
    more = True
    while more:
        async with store.begin() as connection:
            more = await history.fold(connection, "r")


async def split(store: Store, n: int) -> None:
    """Stretches of the route, with their mature values."""
    await fill(store, count_tables.tallies, [("r", "e", 1, *MATURE, 10 + i, *SUMS) for i in range(n)])


async def epochs(store: Store, n: int) -> None:
    """Epochs that are over, with what was counted in them."""
    await fill(store, count_tables.epochs, [("r", f"e{i}", T0, "{}") for i in range(n)])
    await fill(store, count_tables.newest_calls, [("r", f"e{i}", T0 - 10**9) for i in range(n)])
    await fill(store, count_tables.tallies, [("r", f"e{i}", 1, *MATURE, 0, *SUMS) for i in range(n)])
    await fill(store, count_tables.stretches, [("r", f"e{i}", 1, 1, "a", 1) for i in range(n)])


async def definitions(store: Store, n: int) -> None:
    """Earlier definitions of a metric of the route."""
    [row] = await rows_of(store, count_tables.definitions)
    await fill(store, count_tables.definitions, [("r", row[1], row[2] - 1 - i, *row[3:5], row[2]) for i in range(n)])


async def units(store: Store, n: int) -> None:
    """Units that were seen before."""
    await fill(store, count_tables.units, [(1, f"u{i}", 1.0, 1.0, None) for i in range(n)])
    await fill(store, count_tables.arrivals, [("r", "e", 0, f"u{i}", T0, "x", 1, "a", 1) for i in range(n)])


async def orphans(store: Store, n: int) -> None:
    """Events that found no prediction."""
    await fill(
        store,
        row_tables.feedback,
        [
            (f"i{i}", 0, T0, None, T0, "k", "1", None, "r", f"key{i}", None, None, None, "orphaned", "r", T0)
            for i in range(n)
        ],
    )


async def joined(store: Store, n: int) -> None:
    """Events that count."""
    row = (0, T0, None, T0, "k", "1")
    rows = [(f"j{i}", *row, uuid(-1 - i), None, None, None, None, uuid(-1 - i), "joined", "r", T0) for i in range(n)]
    await fill(store, row_tables.feedback, rows)


async def bodies(store: Store, n: int) -> None:
    """Requests and answers that were captured."""
    await fill(store, row_tables.bodies, [(uuid(-1 - i), T0, "r", "{}", "{}") for i in range(n)])


async def rows_of(store: Store, table: Table) -> list[Any]:
    async with store.begin() as connection:
        return [tuple(row) for row in await connection.execute(table.select())]


async def idle(desk: Desk, at: int) -> None:
    """A heartbeat, and nothing else."""
    desk.journal.beat(at)
    await desk.recorder.step()


async def traffic(desk: Desk, at: int) -> None:
    """A call, an event about it, and a window that closes."""
    desk.journal.calls(call(at, prediction=1))
    desk.journal.events(feedback(at, 1, at + 1))
    desk.journal.beat(at + 2_000)
    await desk.recorder.step()


async def report(desk: Desk, at: int) -> None:
    """What a report reads."""
    await desk.store.ledger_versions()
    await desk.store.ledgers([("r", "e")])


async def sweep(desk: Desk, at: int) -> None:
    """Sweep where nothing is old."""
    for kind in retention.KINDS:
        async with desk.store.begin() as connection:
            await kind.expire(connection, T0 - 10**6, 0)


async def plan(desk: Desk, at: int) -> None:
    """What a plan reads."""
    await desk.store.evidence([("r", "e")])


FILLS: tuple[Fill, ...] = (routes, revisions, split, epochs, definitions, units, orphans, joined, bodies)
#: Each kind of work, and by how much its cost may grow: a report reads a row for each edit of its metrics, and what is
#: done once a minute reads one for each route and epoch.
WORKS = {idle: 60, traffic: 60, report: 60, plan: 60, sweep: 600}


def costs(path: Path, fill_with: Fill, n: int) -> dict[str, Cost]:
    async def story() -> dict[str, Cost]:
        with counting() as cost:
            async with Desk(path, metric()) as desk:
                desk.journal.calls(call(1, prediction=1))
                desk.journal.beat(5_000)
                await desk.record()
                await fill_with(desk.store, n)
                desk.restart()
                desk.journal.beat(5_001)
                await desk.record()
                await traffic(desk, 10_000)
                found = {}
                for number, work in enumerate(WORKS):
                    cost.statements = cost.instructions = 0
                    await work(desk, 20_000 + 5_000 * number)
                    found[work.__name__] = replace(cost)
                return found

    return asyncio.run(story())


@pytest.mark.parametrize("fill_with", FILLS, ids=lambda one: str(one.__name__))
def test_a_hundred_times_as_much_costs_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fill_with: Fill
) -> None:
    monkeypatch.setattr(history, "KEPT", 5)
    monkeypatch.setattr(history, "PACK", 10)
    few, many = costs(tmp_path / "few", fill_with, 3), costs(tmp_path / "many", fill_with, MANY)
    slack = {work.__name__: more for work, more in WORKS.items()}
    for work, cost in few.items():
        assert many[work].statements <= cost.statements, work
        if fill_with is split and work in {"report", "plan"}:
            continue  # they read every stretch: a bandit makes few (``policies.thompson``)
        assert many[work].instructions <= 1.3 * cost.instructions + slack[work], work


def test_routes_that_are_used_cost_what_is_used(tmp_path: Path) -> None:
    """At 30d391e a heartbeat cost five statements a route and metric, whether it was used or not."""

    def beats(path: Path, n: int) -> Cost:
        async def story() -> Cost:
            with counting() as cost:
                async with Desk(path, metric()) as desk:
                    desk.adopt(many_routes(desk.snapshot, n))
                    desk.journal.beat(1_000)
                    await desk.record()
                    cost.statements = cost.instructions = 0
                    for at in range(2_000, 12_000, 1_000):
                        await idle(desk, at)
                    return replace(cost)

        return asyncio.run(story())

    few, many = beats(tmp_path / "few", 2), beats(tmp_path / "many", 200)
    assert many == few


def many_routes(given: Snapshot, n: int) -> Snapshot:
    route: Route = given.routes["r"]
    more = {f"s{i}": replace(route, name=f"s{i}", path=f"/s{i}") for i in range(n)}
    return replace(given, routes={**given.routes, **more})
