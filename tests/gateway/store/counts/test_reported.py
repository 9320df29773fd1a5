"""A test that is declared otherwise after values were known promises nothing: that is noted, also if it is undone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from gateway.control.event_log import EventLog
from gateway.control.plan.publisher import Publisher
from gateway.store.counts.reported import note_declared
from router.snapshot import Backend, DeclaredTest
from tests.gateway.control.builders import T0, Desk, at_desk, call, event, metric, snapshot

FOR_AN_EFFECT, FOR_AN_END = DeclaredTest(smallest_effect=0.01), DeclaredTest(units=9_000)


async def declare(
    desk: Desk, at: int, test: DeclaredTest | None, *, epoch: str = "e", a: str = "1", b: str = "1"
) -> list[str]:
    """Declare a test of variant b against a, in these versions."""
    route = replace(snapshot().routes["r"], test=test, epoch=epoch)
    backends = {name: Backend(name=name, urls=(), version=v, model=name) for name, v in (("a", a), ("b", b))}
    async with desk.store.begin() as connection:
        return await note_declared(connection, [route], backends, T0 + at)


def test_only_a_change_after_values_were_known_is_late(tmp_path: Path, store: str) -> None:
    async def story(desk: Desk) -> None:
        for at, test in enumerate((None, FOR_AN_EFFECT, FOR_AN_END, FOR_AN_END, FOR_AN_EFFECT)):
            assert await declare(desk, at, test) == []
        desk.journal.calls(call(1, "a"), call(2, "b"))
        desk.journal.events(event(1, 1, 20))
        assert (await desk.record()).test_changed_ms is None
        assert await declare(desk, 10, FOR_AN_END) == []  # of b there is a call, and nothing known
        desk.journal.events(event(2, 1, 20))
        await desk.record()
        assert await declare(desk, 30, FOR_AN_END) == []
        assert await declare(desk, 40, FOR_AN_EFFECT) == ["r"]
        assert await declare(desk, 50, None) == ["r"]
        assert await declare(desk, 60, None) == []
        assert await declare(desk, 70, FOR_AN_END, epoch="next") == []
        assert (await desk.store.ledger("r", "e")).test_changed_ms == T0 + 50
        assert (await desk.store.ledger("r", "next")).test_changed_ms is None

    at_desk(Desk(tmp_path, metric("value", mature="arrival"), store=store), story)


def test_a_new_version_may_be_declared_for_and_an_old_one_stays_late(tmp_path: Path) -> None:
    async def story(desk: Desk) -> None:
        desk.journal.calls(call(1, "b"))
        desk.journal.events(event(1, 1, 20))
        await desk.record()
        assert await declare(desk, 30, None) == []
        assert await declare(desk, 40, FOR_AN_EFFECT) == ["r"]  # a first declaration may come late as well
        assert await declare(desk, 50, FOR_AN_EFFECT, a="2") == []
        assert (await desk.store.ledger("r", "e")).test_changed_ms is not None
        assert await declare(desk, 60, FOR_AN_EFFECT, b="2") == []
        assert (await desk.store.ledger("r", "e")).test_changed_ms is None
        assert await declare(desk, 70, FOR_AN_END, b="3") == []
        assert (await desk.store.ledger("r", "e")).test_changed_ms is None

    at_desk(Desk(tmp_path, metric("value", mature="arrival")), story)


def test_an_edit_that_comes_late_is_an_event(tmp_path: Path) -> None:
    async def story(desk: Desk) -> None:
        desk.journal.calls(call(1, "b"))
        desk.journal.events(event(1, 1, 20))
        await desk.record()
        backends = {name: Backend(name=name, urls=(), version="1", model=name) for name in ("a", "b")}
        first = replace(snapshot(), backends=backends)
        log = EventLog()
        publisher = Publisher(tmp_path, first, log)
        await publisher.begin(desk.store)
        for revision, test in ((2, None), (3, FOR_AN_EFFECT), (4, FOR_AN_EFFECT)):
            route = replace(first.routes["r"], test=test, revision=revision)
            await publisher.put_in_force(replace(first, revision=revision, config=f"c{revision}", routes={"r": route}))
        [noted] = [one for one in log.newest if one["kind"] == "test_changed"]
        assert noted["route"] == "r"
        assert "after values were known" in noted["detail"]

    at_desk(Desk(tmp_path, metric("value", mature="arrival")), story)
