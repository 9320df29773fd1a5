"""A cancelled caller returns its connection without locks, and reading never holds a lock that writing needs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Generator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from gateway.admin.api.api import API
from gateway.admin.api.readings import readings
from gateway.admin.api.reports import Reports
from gateway.admin.app import new_metrics
from gateway.control.control import Control
from gateway.store import Store
from gateway.store import store as stores
from gateway.store.export_batches import exported
from gateway.store.rows.calls import Span
from tests.gateway.control.builders import T0, Desk, at_desk, call, event, metric
from tests.gateway.control.test_control import Watcher, shown

LONG = {
    "sqlite": "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1e9) SELECT max(i) FROM n",
    "postgresql": "SELECT pg_sleep(120)",
}


class Counting(Coroutine[Any, Any, Any]):
    """A coroutine whose task is cancelled when it awaits for the ``at``-th time; ``waits`` counts its awaits."""

    def __init__(self, inner: Coroutine[Any, Any, Any], at: int) -> None:
        self._inner, self._at, self.waits = inner, at, 0

    def send(self, value: Any) -> Any:
        waited_for = self._inner.send(value)
        self.waits += 1
        task = asyncio.current_task()
        if self.waits == self._at and task is not None:
            asyncio.get_running_loop().call_soon(task.cancel)
        return waited_for

    def throw(self, *error: Any) -> Any:
        return self._inner.throw(*error)

    def close(self) -> None:
        self._inner.close()

    def __await__(self) -> Generator[Any, None, Any]:
        raise AssertionError("run as a task")


async def everywhere(work: Callable[[], Coroutine[Any, Any, Any]], then: Callable[[], Awaitable[None]]) -> int:
    """Cancel ``work`` at each of its awaits in turn, call ``then`` after each, and return their number."""
    at = 0
    while True:
        at += 1
        counting = Counting(work(), at)
        task = asyncio.create_task(counting)
        _, late = await asyncio.wait((task,), timeout=20)
        assert not late
        await then()
        if counting.waits < at:
            await task
            return at - 1


async def usable(store: Store) -> None:
    """Check that a write and a read succeed without waiting."""
    async with asyncio.timeout(5):
        async with store.begin() as connection:
            await connection.execute(text("UPDATE numbers SET value = value + 1 WHERE name = 'none'"))
        async with store.read() as connection:
            await connection.execute(text("SELECT count(*) FROM calls"))


async def filled(desk: Desk) -> None:
    for number in range(30):
        desk.journal.calls(call(number, "ab"[number % 2], unit=f"u{number % 3}", prediction=1))
        desk.journal.events(event(number, 1, number + 1))
    desk.journal.beat(20)
    await desk.record()


async def one_portion(desk: Desk) -> None:
    async with aclosing(exported(desk.store, Span("r", T0, T0 + 100), first=10)) as portions:  # type: ignore[type-var]
        await anext(portions)


@pytest.mark.parametrize(
    "work",
    [
        pytest.param(lambda desk: desk.ledger(), id="a report"),
        pytest.param(one_portion, id="an export"),
        pytest.param(lambda desk: desk.store.prediction(call(3).id), id="a prediction"),
        pytest.param(lambda desk: desk.store.make_durable(), id="a checkpoint"),
        pytest.param(lambda desk: usable(desk.store), id="a change"),
    ],
)
def test_the_store_is_usable_at_once_wherever_a_caller_is_cancelled(tmp_path: Path, store: str, work: Any) -> None:
    async def story(desk: Desk) -> None:
        await filled(desk)
        await everywhere(lambda: work(desk), lambda: usable(desk.store))
        before = await desk.ledger()
        desk.journal.calls(call(31))
        assert await desk.record() != before, "and it records"

    at_desk(Desk(tmp_path, metric(window_ms=50), store=store), story)


def test_a_scrape_can_be_cancelled_anywhere(tmp_path: Path) -> None:
    """Prometheus closes the connection after its own time-out, whatever the controller is doing then."""
    (tmp_path / "turnout.toml").write_text(CONFIG.format(data=tmp_path / "data"))
    (tmp_path / "data").mkdir()

    async def story() -> None:
        control, stopping = Control(tmp_path / "turnout.toml", tmp_path / "data", Watcher()), asyncio.Event()
        recording = asyncio.create_task(control.keep_recording(stopping))
        while not control.queries.ready:
            await asyncio.sleep(0.01)
        control.in_force._to_plan.clear()
        opened = control.queries.store

        async def scrape() -> Any:
            metrics = new_metrics(lambda: control.in_force.snapshot)
            clock = asyncio.get_running_loop().time
            reports = Reports(control.in_force, control.queries, clock=clock)
            api = API(shown(control), reports, metrics, readings(control.queries, reports, metrics, clock=clock))
            request: Any = type("Request", (), {"headers": {}})
            return await api.scrape(request)

        # The scrape awaits a reading, which itself runs on to its end.
        assert await everywhere(scrape, lambda: usable(opened)) >= 1
        assert b"turnout_store_ready 1.0" in (await scrape()).body
        stopping.set()
        await recording
        await control.close(5)

    asyncio.run(story())


CONFIG = """
[gateway]
data_dir = "{data}"
[backends.a]
version = "1"
url = "http://127.0.0.1:9"
[routes.r]
path = "/r"
policy = {{ kind = "single", variant = "a" }}
"""


def test_a_long_statement_that_is_cancelled_is_over(tmp_path: Path, new_store: Callable[[], str]) -> None:
    """The store was once locked for minutes, because an abandoned statement ran on."""
    where = new_store()

    async def story() -> None:
        store = await Store.open(where, tmp_path)
        long = text(LONG[where.partition(":")[0]])
        for begin in (store.begin, store.read):
            for _ in range(3):
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.2), begin() as connection:
                        await connection.execute(long)
                await usable(store)
        await store.close()

    asyncio.run(asyncio.wait_for(story(), 60))


def test_a_reading_that_takes_too_long_is_ended(tmp_path: Path, store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stores, "READ_SECONDS", 0.2)

    async def story(desk: Desk) -> None:
        with pytest.raises(TimeoutError):
            async with desk.store.read() as connection:
                await connection.execute(text(LONG[store.partition(":")[0]]))
        await usable(desk.store)

    at_desk(Desk(tmp_path, store=store), story)


def test_a_reader_sees_one_moment_blocks_no_writer_and_changes_nothing(tmp_path: Path, store: str) -> None:
    async def story(desk: Desk) -> None:
        counting = text("SELECT count(*) FROM calls")
        async with desk.store.read() as connection:
            assert (await connection.execute(counting)).scalar() == 0
            desk.journal.calls(call(1))
            async with asyncio.timeout(10):
                assert await desk.recorder.drain(5)
            assert (await connection.execute(counting)).scalar() == 0
        async with desk.store.read() as connection:
            assert (await connection.execute(counting)).scalar() == 1
        with pytest.raises(DBAPIError, match="read"):
            async with desk.store.read() as connection:
                await connection.execute(text("DELETE FROM calls"))
        await usable(desk.store)

    at_desk(Desk(tmp_path, store=store), story)


def test_the_wal_is_bounded_however_much_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite restarts its WAL only while no transaction reads from it; here readers follow each other without a gap."""
    monkeypatch.setattr(stores, "WAL_BYTES", 2**20)
    wal = tmp_path / "turnout.db-wal"

    async def story(desk: Desk) -> None:
        done = asyncio.Event()

        async def reading() -> None:
            while not done.is_set():
                async with desk.store.read() as connection:
                    await connection.execute(text("SELECT count(*) FROM numbers"))
                    await asyncio.sleep(0.002)

        readers = [asyncio.create_task(reading()) for _ in range(3)]
        for number in range(60):
            async with desk.store.begin() as connection:
                filler = {"name": f"n{number}", "segment": "x" * 200_000}
                await connection.execute(text("INSERT INTO offsets VALUES (:name || :segment, 1)"), filler)
        await asyncio.sleep(0.05)
        done.set()
        await asyncio.gather(*readers)
        assert wal.stat().st_size < 8 * 2**20

    at_desk(Desk(tmp_path), story)


def test_no_caller_waits_for_ever_when_the_store_is_closed_in_the_midst_of_what_it_asks(
    tmp_path: Path, store: str
) -> None:
    """Loops of the controller read and write once or more a second: each of them ends, or it could never end itself."""

    async def story(desk: Desk) -> None:
        async def asking(read: bool) -> None:
            while True:
                async with desk.store.read() if read else desk.store.begin() as connection:
                    for _ in range(3):
                        await connection.execute(text("SELECT count(*) FROM numbers"))

        asking_ones = [asyncio.create_task(asking(read)) for read in (True, False) * 4]
        await asyncio.sleep(0.05)
        async with asyncio.timeout(10):
            await desk.store.close()
            ends = await asyncio.gather(*asking_ones, return_exceptions=True)
        assert [str(one) for one in ends] == ["the store is closed"] * 8

    at_desk(Desk(tmp_path, store=store), story)
