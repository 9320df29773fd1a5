"""A freeze is in force where it was said at once, everywhere soon, and stands whatever fails."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from sqlalchemy import text

from gateway.control import event_log
from gateway.control.event_log import EventLog
from gateway.control.opened import Opened
from gateway.control.plan import freezes
from gateway.control.plan.freezes import Freezes
from gateway.files import overrides
from gateway.files.overrides import OVERRIDES, frozen, read_overrides
from gateway.store import Store
from gateway.store.audit import Audited, listed, verify
from router.compile import with_periods
from tests.router.builders import SMALL, snapshot_of

SNAPSHOT = snapshot_of(SMALL)


class Node:
    """A data directory with its freezes, and a store that may be out of reach."""

    def __init__(self, path: Path, store: Store) -> None:
        self.path = path
        self.store = store
        self.reached = True
        path.mkdir(exist_ok=True)
        self.begin()

    def begin(self) -> None:
        """Start the controller."""
        self.event_log = EventLog()
        # The member is asked for nothing: it says that other nodes write the store, too.
        opened = Opened(self.store, cast(Any, None), cast(Any, None), cast(Any, "a member"))
        self.freezes = Freezes(self.path, self.event_log, lambda: opened if self.reached else None, lambda: SNAPSHOT)

    def by_file(self, to: str | None, who: str = "cli") -> None:
        overrides.act(self.path, {"digits": to}, who=who, via="file")

    @property
    def frozen(self) -> dict[str, str]:
        """What its workers obey."""
        return frozen(read_overrides(self.path))

    def events(self, kind: str = "act") -> list[str]:
        return [one["detail"] for one in self.event_log.newest if one["kind"] == kind]


class Fleet:
    def __init__(self, path: Path, store: Store) -> None:
        self.store = store
        self.a, self.b = Node(path / "a", store), Node(path / "b", store)

    async def step(self) -> None:
        for node in (self.a, self.b, self.a):
            await node.freezes.step()

    async def audit(self) -> list[Audited]:
        async with self.store.read() as connection:
            assert (await verify(connection)).wrong is None
            return await listed(connection)


AtFleet = Callable[[Callable[[Fleet], Awaitable[None]]], None]


@pytest.fixture
def at_fleet(tmp_path: Path, store: str) -> AtFleet:
    return playing(tmp_path, store)


@pytest.fixture
def at_postgresql(tmp_path: Path, postgresql_url: str) -> AtFleet:
    return playing(tmp_path, postgresql_url)


def playing(tmp_path: Path, store: str) -> AtFleet:
    def play(story: Callable[[Fleet], Awaitable[None]]) -> None:
        async def run() -> None:
            opened = await Store.open(store, tmp_path)
            try:
                await story(Fleet(tmp_path, opened))
            finally:
                await opened.close()

        asyncio.run(run())

    return play


def test_an_act_at_one_node_is_in_force_at_the_others_after_one_step(at_fleet: AtFleet) -> None:
    async def story(fleet: Fleet) -> None:
        assert await fleet.a.freezes.act({"digits": "v2"}, who="ann", why="it lies", via="api")
        await fleet.b.freezes.step()
        assert fleet.a.frozen == fleet.b.frozen == {"digits": "v2"}
        assert await fleet.b.freezes.act({"digits": None}, who="bob", via="api")
        await fleet.step()
        assert fleet.a.frozen == fleet.b.frozen == {}
        assert fleet.a.events() == ["digits is frozen to v2"]
        last, first = await fleet.audit()
        assert (first.who, first.act, first.route, first.why) == ("ann", "freeze", "digits", "it lies")
        assert (last.who, last.act, last.via) == ("bob", "unfreeze", "api")

    at_fleet(story)


def test_an_act_on_the_file_is_recorded_once_however_often_the_controller_starts(at_fleet: AtFleet) -> None:
    async def story(fleet: Fleet) -> None:
        fleet.a.by_file("v2")
        for _ in range(3):
            fleet.a.begin()
            await fleet.step()
        assert fleet.b.frozen == {"digits": "v2"}
        assert [one.via for one in await fleet.audit()] == ["file"]

    at_fleet(story)


def test_a_controller_that_dies_before_it_has_written_the_file_records_nothing_twice(at_fleet: AtFleet) -> None:
    async def story(fleet: Fleet) -> None:
        fleet.a.by_file("v2")
        before = (fleet.a.path / OVERRIDES).read_bytes()
        await fleet.step()
        (fleet.a.path / OVERRIDES).write_bytes(before)  # as it was when the transaction was committed
        fleet.a.begin()
        await fleet.step()
        assert len(await fleet.audit()) == 1
        assert all(one.recorded for one in read_overrides(fleet.a.path).values())

    at_fleet(story)


@pytest.mark.parametrize("skew_ms", [-60_000, 60_000])
def test_of_two_conflicting_acts_the_later_by_the_stores_clock_wins_and_both_are_shown(
    at_postgresql: AtFleet, monkeypatch: pytest.MonkeyPatch, skew_ms: int
) -> None:
    """Said where the store is out of reach, by a clock that is wrong, and recorded after a later act elsewhere."""

    async def story(fleet: Fleet) -> None:
        true_ms = event_log.now_ms
        fleet.b.reached = False
        monkeypatch.setattr(overrides, "now_ms", lambda: true_ms() + skew_ms)
        await fleet.b.freezes.act({"digits": "v2"}, who="bob", via="api")
        monkeypatch.undo()
        assert fleet.b.frozen == {"digits": "v2"}
        await asyncio.sleep(0.02)
        await fleet.a.freezes.act({"digits": "v1"}, who="ann", via="api")
        fleet.b.reached = True
        monkeypatch.setattr(freezes, "now_ms", lambda: true_ms() + skew_ms)
        await fleet.b.freezes.step()
        monkeypatch.undo()
        await fleet.step()
        assert fleet.a.frozen == fleet.b.frozen == {"digits": "v1"}
        overtaken, stands = await fleet.audit()
        assert (stands.who, overtaken.who) == ("ann", "bob")
        assert "overtaken by a later act of ann: digits is frozen to v1" in overtaken.changed
        assert [said for said in fleet.b.events() if "overtaken" in said] == [overtaken.changed]

    at_postgresql(story)


def test_without_a_store_an_act_is_in_force_and_recorded_later(at_fleet: AtFleet) -> None:
    async def story(fleet: Fleet) -> None:
        fleet.a.reached = False
        assert not await fleet.a.freezes.act({"digits": "v2"}, who="ann", via="api")
        await fleet.step()
        assert (fleet.a.frozen, fleet.b.frozen) == ({"digits": "v2"}, {})
        fleet.a.reached = True
        await fleet.step()
        assert fleet.a.frozen == fleet.b.frozen == {"digits": "v2"}

    at_fleet(story)


def test_a_store_that_hangs_delays_no_act_and_loses_none(at_fleet: AtFleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(freezes, "RECORD_SECONDS", 0.05)

    async def story(fleet: Fleet) -> None:
        async with fleet.store.begin():  # nobody else can write
            fleet.a.by_file("v1")
            stepping = asyncio.create_task(fleet.a.freezes.step())
            await asyncio.sleep(0.05)
            async with asyncio.timeout(2):
                assert not await fleet.a.freezes.act({"digits": "v2"}, who="ann", via="api")
            assert fleet.a.frozen == {"digits": "v2"}
        await stepping
        assert fleet.a.frozen == {"digits": "v2"}
        await fleet.step()
        assert fleet.a.frozen == fleet.b.frozen == {"digits": "v2"}
        assert [one.who for one in await fleet.audit()] == ["ann", "cli"]

    at_fleet(story)


@pytest.mark.parametrize("content", [b"{", None])
def test_a_damaged_or_missing_file_is_written_anew_as_it_was_known(at_fleet: AtFleet, content: bytes | None) -> None:
    async def story(fleet: Fleet) -> None:
        await fleet.a.freezes.act({"digits": "v2"}, who="ann", via="api")
        for reached in (True, False):
            fleet.a.reached = reached
            if content is None:
                (fleet.a.path / OVERRIDES).unlink()
            else:
                (fleet.a.path / OVERRIDES).write_bytes(content)
            await fleet.a.freezes.step()
            assert fleet.a.frozen == {"digits": "v2"}
        assert len(fleet.a.events("overrides_mended")) == 2

    at_fleet(story)


def test_a_store_that_lost_an_act_gets_it_from_the_nodes(at_fleet: AtFleet) -> None:
    """An older copy of the store was restored: what is frozen stays so."""

    async def story(fleet: Fleet) -> None:
        await fleet.a.freezes.act({"digits": "v2"}, who="ann", via="api")
        await fleet.step()
        async with fleet.store.begin() as connection:
            await connection.execute(text("DELETE FROM standings"))
        await fleet.step()
        assert fleet.a.frozen == fleet.b.frozen == {"digits": "v2"}
        async with fleet.store.read() as connection:
            assert (await connection.execute(text("SELECT count(*) FROM standings"))).scalar() == 1

    at_fleet(story)


def test_a_freeze_of_what_is_not_there_is_told_once(at_fleet: AtFleet) -> None:
    async def story(fleet: Fleet) -> None:
        overrides.act(fleet.a.path, {"digits": "v9", "nowhere": "v1"})
        for _ in range(3):
            await fleet.a.freezes.step()
        assert len(fleet.a.events("override_ignored")) == 2

    at_fleet(story)


def test_a_freeze_and_its_end_begin_a_period_each_and_nothing_else_does() -> None:
    [route] = SNAPSHOT.routes.values()
    frozen = with_periods(SNAPSHOT, {"digits": route.period + 5}, route.period + 2, 9)
    assert (frozen.revision, frozen.routes["digits"]) == (9, replace(route, period=route.period + 5, revision=9))
    assert with_periods(frozen, {"digits": route.period + 5, "nowhere": 2**50}, 2**50, 10) is frozen
    assert with_periods(frozen, {"digits": route.period + 6}, 1, 10).routes["digits"].period == route.period + 6
