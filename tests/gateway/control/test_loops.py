"""Every loop of the controller goes on: where there are no descriptors, it tries again until there are some."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
from collections.abc import Iterator
from pathlib import Path

from gateway.control.__main__ import run
from gateway.control.cpu_share import LOOK_SECONDS, CpuShare
from gateway.store import Store
from tests.gateway.control.builders import Journal, call
from tests.ports import free_port

CONFIG = """
[gateway]
data_dir = "{data}"
admin = "127.0.0.1:{port}"
[backends.a]
version = "1"
url = "http://127.0.0.1:9"
[routes.r]
path = "/r"
policy = {{ kind = "single", variant = "a" }}
"""


@contextlib.contextmanager
def no_descriptors() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


async def eventually(said: str, so: object) -> None:
    assert callable(so)
    async with asyncio.timeout(20):
        while not await so():
            await asyncio.sleep(0.05)


def test_a_controller_without_descriptors_goes_on_when_there_are_some(tmp_path: Path) -> None:
    """It died seven times in 25 seconds, and each start needed more descriptors."""
    (tmp_path / "turnout.toml").write_text(CONFIG.format(data=tmp_path, port=free_port()))
    journal = Journal(tmp_path / "journal")
    journal.calls(call(1))

    async def recorded(number: int) -> bool:
        with contextlib.suppress(OSError):
            return journal.file().stat().st_size == 0 or await _offset(tmp_path) >= journal.file().stat().st_size
        return False

    async def story() -> int:
        controlling = asyncio.create_task(run(tmp_path / "turnout.toml", tmp_path, None))
        await eventually("recorded", lambda: recorded(1))
        with no_descriptors():
            await asyncio.sleep(3)
            assert not controlling.done()
        journal.calls(call(2))
        await eventually("recorded", lambda: recorded(2))
        os.kill(os.getpid(), signal.SIGTERM)
        return await asyncio.wait_for(controlling, 30)

    assert asyncio.run(story()) == 0

    async def both() -> None:
        store = await Store.open("sqlite", tmp_path)
        assert await store.prediction(call(2).id) is not None
        await store.close()

    asyncio.run(both())


async def _offset(data: Path) -> int:
    import sqlite3

    try:
        with contextlib.closing(sqlite3.connect(f"file:{data / 'turnout.db'}?mode=ro", uri=True)) as connection:
            found = connection.execute("SELECT max(offset) FROM offsets").fetchone()
    except sqlite3.Error:
        return -1
    return int(found[0] or 0)


def test_the_cpu_share_goes_on_though_a_look_fails() -> None:
    failures = iter([OSError(24, "Too many open files")] * 3)
    done: list[bool] = []

    def set_idle(idle: bool) -> None:
        for failure in failures:
            raise failure
        done.append(idle)

    async def story() -> None:
        task = asyncio.create_task(CpuShare(lambda: 0.0, set_idle, asyncio.Event()).run())
        await asyncio.sleep(LOOK_SECONDS * 4.5)
        assert (done, task.done()) == ([True], False)
        task.cancel()

    asyncio.run(story())
