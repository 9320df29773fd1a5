"""A cached report is the one that would be made now, whatever moved meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.admin.api.reports import Reports
from gateway.control.opened import Opened
from gateway.control.plan.freezes import Freezes
from gateway.control.plan.in_force import InForce
from gateway.control.queries import Queries
from gateway.report import report
from gateway.sinks.sinks import Sinks
from gateway.store import unit_data
from gateway.store.counts import history, plans
from gateway.store.counts.ledger import Ledger
from policies.plans import Weighted
from router.snapshot import Backend, Snapshot
from tests.gateway.control.builders import Desk, call, event, metric, snapshot

METRIC = metric("event", missing=0)
MOVES = st.lists(
    st.one_of(
        st.tuples(st.just("call"), st.integers(1, 40), st.sampled_from("ab"), st.sampled_from(["u", "v", None])),
        st.tuples(st.just("event"), st.integers(1, 45), st.booleans()),
        st.tuples(st.just("beat"), st.integers(0, 4_000)),
        st.tuples(st.just("long"), st.integers(0, 3)),
        st.tuples(st.just("plan"), st.floats(0.1, 0.9)),
        st.tuples(st.just("fold")),
        st.tuples(st.just("erase"), st.sampled_from("uv")),
    ),
    max_size=14,
)


class _Unfrozen(Freezes):
    def __init__(self) -> None:
        self.acts = {}


class Desks(InForce):
    """The snapshot of a desk, in force."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self.config = None
        self.freezes = _Unfrozen()

    @property
    def snapshot(self) -> Snapshot:
        return self._desk.snapshot


class Counting(Queries):
    """Queries over a desk's store; ``read`` counts the ledgers that were asked for."""

    def __init__(self, desk: Desk) -> None:
        super().__init__(lambda: desk.snapshot)
        self.opened = Opened(desk.store, desk.recorder, Sinks(desk.store, dict, lambda name, trouble: None))
        self.read = 0

    async def ledgers(self, routes: Collection[str]) -> Mapping[str, Ledger]:
        self.read += len(routes)
        return await super().ledgers(routes)


def in_force(revision: int = 1, share: float = 0.5) -> Snapshot:
    plan = Weighted((("a", share), ("b", 1 - share)))
    given = snapshot(METRIC, revision=revision, by_unit=True, unit="header:u", plan=plan)
    backend = Backend(name="a", urls=("http://a",), version="1", model="m")
    return replace(given, backends={"a": backend, "b": replace(backend, name="b")})


async def move(desk: Desk, n: int, what: tuple[Any, ...]) -> None:
    match what:
        case ("call", number, variant, unit):
            revision = desk.snapshot.revision
            desk.journal.calls(
                call(number, variant, unit=unit, by_unit=True, revision=revision, status=500 if n % 3 else 200)
            )
        case ("event", number, value):
            desk.journal.events(event(number, value, number + 10, event_id=f"{n}"))
        case ("beat", at):
            desk.journal.beat(at)
        case ("long", hours):
            desk.journal.beat(hours * 3_600_000)
        case ("plan", share):
            desk.adopt(in_force(desk.snapshot.revision + 1, share))
            async with desk.store.begin() as connection:
                await plans.write_plans(connection, desk.snapshot.routes.values(), n)
        case ("fold",):
            async with desk.store.begin() as connection:
                await history.fold(connection, "r")
        case ("erase", unit):
            await desk.recorder.exclusively(lambda: unit_data.erase(desk.store, [unit]))
    assert await desk.recorder.drain(20)


@settings(max_examples=12, deadline=None)
@given(MOVES)
@example([("call", 5, "a", "u"), ("beat", 20), ("erase", "u"), ("beat", 30)])
@example([("call", 5, "a", "u"), ("event", 5, True), ("beat", 20), ("beat", 3_000), ("event", 5, False)])
@example(
    [("plan", 0.2), ("call", 5, "b", "u"), ("fold",), ("plan", 0.3), ("fold",), ("long", 3), ("call", 6, "a", "v")]
)
def test_a_report_that_is_kept_is_the_one_that_would_be_made_now(
    tmp_path_factory: pytest.TempPathFactory, moves: list[tuple[Any, ...]]
) -> None:
    async def story() -> None:
        async with Desk(tmp_path_factory.mktemp("desk"), METRIC) as desk:
            desk.adopt(in_force())
            async with desk.store.begin() as connection:
                await plans.write_plans(connection, desk.snapshot.routes.values(), 1)
            ticks = count(0.0, 10.0)
            reports: Any = Reports(Desks(desk), Counting(desk), clock=lambda: next(ticks))
            for n, what in enumerate(moves):
                await move(desk, n, what)
                fresh = (await desk.store.ledgers([("r", "e")]))["r", "e"]
                assert await reports.one("r") == report(desk.snapshot, fresh), what

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(history, "KEPT", 1)
        patch.setattr(history, "PACK", 2)
        asyncio.run(story())


def test_a_route_where_nothing_moves_is_not_read_again(tmp_path: Path) -> None:
    async def story() -> None:
        async with Desk(tmp_path, METRIC) as desk:
            desk.adopt(in_force())
            desk.journal.calls(call(1, unit="u", by_unit=True))
            desk.journal.beat(500)
            await desk.record()
            queries, ticks = Counting(desk), count(0.0, 10.0)
            reports: Any = Reports(Desks(desk), queries, clock=lambda: next(ticks))
            first = dict(await reports.one("r"))
            desk.journal.beat(900)
            await desk.record()
            later = await reports.one("r")
            assert queries.read == 1
            assert first["watermark"] < later["watermark"], "and is as of now"
            desk.journal.beat(1_500)
            await desk.record()
            await reports.one("r")
            assert queries.read == 2, "its window closed"

    asyncio.run(story())
