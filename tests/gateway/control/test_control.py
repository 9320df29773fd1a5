"""The controller in one process: what is in force, and who changes it."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence, Set
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway.admin.api.reports import StoreUnavailable, from_store
from gateway.admin.controller import Controller
from gateway.control.control import Control
from gateway.control.opened import Opened
from gateway.control.plan.in_force import ReloadResult
from gateway.files.published import SNAPSHOT, SnapshotFile
from gateway.journal.segments import JOURNAL
from gateway.store import Store
from gateway.store.rows.calls import StoredCall
from router.config.config import Config, ConfigError
from tests.gateway.control.builders import RUN, Journal, call, event
from tests.gateway.control.plan.test_planner import CONFIG, Broken


class Watcher:
    """An observer that keeps every observation."""

    def __init__(self) -> None:
        self.statuses: list[tuple[Any, ...]] = []
        self.reloads: list[bool] = []
        self.calls: list[StoredCall] = []
        self.met = Counter[str]()
        self.datagrams: list[Mapping[str, Any]] = []

    def observe_calls(self, calls: Sequence[StoredCall]) -> None:
        self.calls += calls

    def observe_status(
        self,
        route: str,
        metric: str,
        status: str,
        n: int = 1,
        delay_seconds: float | None = None,
        variant: str | None = None,
    ) -> None:
        self.statuses.append((route, metric, status, n, delay_seconds))

    def observe_lines(self, met: Mapping[str, int]) -> None:
        self.met.update(met)

    def observe_datagram(self, datagram: Mapping[str, Any]) -> None:
        self.datagrams.append(datagram)

    def observe_expired(self, kind: str, n: int) -> None: ...

    def observe_reload(self, *, ok: bool, at_ms: int) -> None:
        self.reloads.append(ok)


class House:
    """A config, a data directory, and a controller over both."""

    def __init__(self, path: Path, config: str = CONFIG) -> None:
        self.config, self.data = path / "turnout.toml", path / "data"
        self.data.mkdir(exist_ok=True)
        self.config.write_text(config)
        self.journal = Journal(self.data / JOURNAL)

    def control(self) -> Control:
        return Control(self.config, self.data, Watcher(), RUN)

    def published(self) -> int:
        snapshot = SnapshotFile(self.data / SNAPSHOT).read()
        assert snapshot is not None
        return snapshot.revision

    def edit(self, before: str, after: str) -> None:
        text = self.config.read_text()
        assert before in text
        self.config.write_text(text.replace(before, after))


@asynccontextmanager
async def recording(control: Control) -> AsyncIterator[Control]:
    stopping = asyncio.Event()
    task = asyncio.create_task(control.keep_recording(stopping))
    try:
        yield control
    finally:
        stopping.set()
        await task
        await control.close(5)


async def until(what: Callable[[], bool | Awaitable[bool]]) -> None:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        found = what()
        if found if isinstance(found, bool) else await found:
            return
        await asyncio.sleep(0.02)
    raise AssertionError("it did not happen within 10 s")


def shown(control: Control) -> Controller:
    """What the admin port is given of it."""
    return Controller(
        control.in_force,
        control.queries,
        control.readiness,
        control.erasures,
        control.event_log,
        control.commands,
        control.tokens,
        control.slots,
    )


def kinds(control: Control) -> list[str]:
    return [event["kind"] for event in control.event_log.newest]


def errors(result: ReloadResult) -> list[str]:
    return [problem.path for problem in result.problems if problem.severity == "error"]


def clicked(house: House, control: Control, number: int = 60) -> None:
    """Variant b is clicked and a is not, and all windows have closed."""
    route = control.in_force.snapshot.routes["r"]
    for n in range(number):
        made = call(n, "ab"[n % 2], epoch=route.epoch, period=route.period, revision=route.revision)
        house.journal.calls(made)
        if n % 2:
            house.journal.events(event(n, 1, at=n + 5, metric="click"))
    house.journal.beat(2 * 24 * 3_600_000)


def test_a_first_start_publishes_the_config(tmp_path: Path) -> None:
    house = House(tmp_path)
    control = house.control()
    assert house.published() == control.in_force.snapshot.revision == 1
    assert control.in_force.config is not None
    assert not control.queries.ready


def test_without_a_usable_config_the_last_snapshot_goes_on(tmp_path: Path) -> None:
    house = House(tmp_path)
    house.control()
    house.edit('kind = "thompson"', 'kind = "thomson"')
    control = house.control()
    assert control.in_force.snapshot.revision == 1
    assert kinds(control) == ["config_refused"]
    (house.data / SNAPSHOT).unlink()
    with pytest.raises(ConfigError):
        house.control()


def test_a_reload_takes_over_the_whole_file_or_nothing_of_it(tmp_path: Path) -> None:
    async def story() -> None:
        house = House(tmp_path)
        async with recording(house.control()) as control:
            await until(lambda: control.queries.ready)
            result = await control.in_force.reload()
            assert (result.ok, result.revision, house.published()) == (True, 1, 1), "nothing changed"
            house.edit('path = "/s"', 'path = "/t"')
            result = await control.in_force.reload()
            assert (result.ok, result.revision, house.published()) == (True, 2, 2)
            assert control.in_force.snapshot.routes["s"].path == "/t"
            house.edit('path = "/t"', 'path = "t"')
            result = await control.in_force.reload()
            assert (result.ok, result.revision, house.published()) == (False, 2, 2)
            assert errors(result) == ["routes.s.path"]
            assert control.in_force.snapshot.routes["s"].path == "/t"
            house.edit('path = "t"', 'path = "/u"')
            house.edit("schema_version = 1", 'schema_version = 1\n[gateway]\nadmin = "127.0.0.1:1"')
            result = await control.in_force.reload()
            assert errors(result) == ["gateway.admin"]
            assert house.published() == 2
            assert isinstance(control._observer, Watcher)
            assert control._observer.reloads == [True, True, False, False]
            assert "plan_moved" not in kinds(control), "an edit that moves no share notes none"

    asyncio.run(story())


def test_mature_evidence_moves_the_plan_and_the_plan_is_stored_before_it_is_published(tmp_path: Path) -> None:
    async def story() -> None:
        house = House(tmp_path)
        async with recording(house.control()) as control:
            await until(lambda: control.queries.ready)
            await control.in_force.decide()
            assert house.published() == 1
            clicked(house, control)

            async def moved() -> bool:
                await control.in_force.decide()
                return house.published() == 2

            await until(moved)
            assert control.in_force.snapshot.routes["r"].plan.shares["b"] > 0.9
            stored = await control.queries.store.plans("r")
            assert [(p["revision"], p["shares"]["b"] > 0.9) for p in stored] == [(2, True), (1, False)]
            ledger = (await control.queries.ledgers(["r"]))["r"]
            assert [(s.revision, s.shares, dict(s.counts)) for s in ledger.stretches] == [
                (1, {"a": 0.5, "b": 0.5}, {"a": 30, "b": 30})
            ]
            assert "plan_moved" in kinds(control)
            # A restart resumes the plan, the evidence and the revision.
        again = house.control()
        assert again.in_force.snapshot.routes["r"].plan.shares["b"] > 0.9
        (house.data / SNAPSHOT).unlink()
        async with recording(house.control()) as control:
            await until(lambda: control.queries.ready)
            await control.in_force.decide()
            assert control.in_force.snapshot.revision == 4, (
                "numbers go on where the store's ended: begun anew, and planned"
            )
            stored = await control.queries.store.plans("r")
            assert [p["revision"] for p in stored] == [4, 3, 2, 1]
            assert control.in_force.snapshot.routes["r"].plan.shares["b"] > 0.9
            assert "epoch_began" in kinds(control), "what happened before is remembered"

    asyncio.run(story())


@pytest.mark.parametrize("content", [None, b"half a snaps"])
def test_a_published_snapshot_that_is_lost_or_damaged_is_published_again(tmp_path: Path, content: bytes | None) -> None:
    """A worker that runs does not need it; one that starts does."""
    house = House(tmp_path)

    async def main() -> None:
        control = house.control()
        published = house.data / SNAPSHOT
        if content is None:
            published.unlink()
        else:
            published.write_bytes(content)
        await control.in_force.decide()
        assert SnapshotFile(published).read() == control.in_force.snapshot
        await control.in_force.decide()
        assert kinds(control).count("snapshot_mended") == 1

    asyncio.run(main())


def test_a_policy_that_fails_leaves_its_last_plan_in_force(tmp_path: Path) -> None:
    async def story() -> None:
        house = House(tmp_path)
        async with recording(house.control()) as control:
            await until(lambda: control.queries.ready)
            assert control.in_force.config is not None
            broken = replace(control.in_force.config.routes["r"], policy=Broken())
            control.in_force.config = replace(
                control.in_force.config, routes={**control.in_force.config.routes, "r": broken}
            )
            await control.in_force.decide()
            assert kinds(control)[-1] == "plan_failed"
            assert house.published() == 1

    asyncio.run(story())


def test_a_decider_that_fails_stops_neither_the_planner_nor_another_decider(tmp_path: Path) -> None:
    """Each is given the same routes: a second decider is one more entry, and takes nothing from the first."""

    async def story() -> None:
        house, seen = House(tmp_path), list[Set[str]]()

        async def failing(opened: Opened, config: Config, matured: Set[str]) -> None:
            raise RuntimeError("no idea")

        async def watching(opened: Opened, config: Config, matured: Set[str]) -> None:
            seen.append(matured)

        async with recording(house.control()) as control:
            in_force = control.in_force
            in_force._deciders = (failing, *in_force._deciders, watching)
            await until(lambda: control.queries.ready)
            clicked(house, control)
            assert control.opened is not None
            assert await control.opened.recorder.drain(20)
            with pytest.raises(RuntimeError, match="no idea"):
                await in_force.decide()
            assert [set(one) for one in seen] == [{"r"}]
            assert in_force.snapshot.routes["r"].plan.shares["b"] > 0.9

    asyncio.run(story())


def test_everything_but_the_numbers_works_without_a_store_and_the_rows_arrive_once_there_is_one(tmp_path: Path) -> None:
    async def story() -> None:
        house = House(tmp_path)
        (house.data / "turnout.db").mkdir()  # what cannot be opened as a database
        async with recording(house.control()) as control:
            clicked(house, control)
            await until(lambda: "store_unavailable" in kinds(control))
            assert not control.queries.ready
            seconds, waiting = control.readiness.lag()
            assert seconds > 0
            assert waiting > 1_000
            with pytest.raises(StoreUnavailable, match="not open"):
                await from_store(control.queries, lambda ask: ask.ledgers(["r"]))
            with pytest.raises(StoreUnavailable, match="not open"):
                await from_store(control.queries, lambda ask: ask.store.prediction("x"))
            house.edit('path = "/s"', 'path = "/t"')
            assert (await control.in_force.reload()).ok
            assert house.published() == 2
            (house.data / "turnout.db").rmdir()
            await until(lambda: control.queries.ready)
            await until(lambda: control.readiness.lag() == (0.0, 0))
            await control.in_force.decide()
            assert control.in_force.snapshot.routes["r"].plan.shares["b"] > 0.9
            assert kinds(control).count("store_unavailable") == 1

    asyncio.run(story())


def test_a_second_controller_waits_for_the_store(tmp_path: Path) -> None:
    async def story() -> None:
        house = House(tmp_path)
        store = await Store.open("sqlite", house.data)
        async with recording(house.control()) as control:
            await until(lambda: "store_unavailable" in kinds(control))
            await store.close()
            await until(lambda: control.queries.ready)

    asyncio.run(story())


def test_statuses_and_predictions_are_observed(tmp_path: Path) -> None:
    async def story() -> None:
        house = House(tmp_path)
        async with recording(house.control()) as control:
            watcher = control._observer
            assert isinstance(watcher, Watcher)
            clicked(house, control, 2)
            await until(lambda: bool(watcher.statuses))
            assert watcher.statuses == [("r", "click", "joined", 1, 0.005)]
            await control.tail.step()
            assert len(watcher.calls) == 2

    asyncio.run(story())


def test_the_newest_datagram_of_each_worker_is_kept_and_not_for_ever(tmp_path: Path) -> None:
    control = House(tmp_path).control()
    for n in range(9):
        control.workers.receive({"writer": f"w{n}", "slot": 0, "pid": n})
        control.workers.receive({"writer": f"w{n}", "slot": 0, "pid": n})
    assert kinds(control) == ["worker_started"] * 9
    assert list(control.workers.newest) == ["w5", "w6", "w7", "w8"]
