"""``python -m loadtests.steering``: what moving many routes costs, and that ``kill -9`` repeats and loses no move.

Rule: a controller in this process, without traffic: its journal is written as a worker writes it. A killed controller
is a forked child that kills itself: inside the transaction of a move, after it, before the snapshot is published, after
it. What is left is read from its files.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import random
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import orjson

from gateway.control.control import Control
from gateway.control.plan import stored_standings
from gateway.control.plan.publisher import Publisher
from gateway.control.steer import moves
from gateway.files.published import SNAPSHOT, SnapshotFile
from gateway.journal.appender import Appender
from gateway.journal.segments import JOURNAL, PREDICTIONS, new_run, new_writer
from gateway.proxy.exchange.ids import new_id
from gateway.store import Store, audit
from gateway.store.audit import verify
from gateway.store.schema.row_tables import outbox
from gateway.store.standings import read_standing
from loadtests.recorder import line_of
from policies.rollouts.history import replay
from policies.rollouts.standing import Standing, decode_standing
from router.records import Prediction, mark_line

HEAD: Final = """
schema_version = 1
[backends]
a = { url = "http://127.0.0.1:9", version = "1" }
b = { url = "http://127.0.0.1:9", version = "1" }
[metrics]
click = { kind = "event", missing = 0 }
"""
ROUTE: Final = """
[routes.r{n}]
path = "/r{n}"
unit = "header:x-user-id"
metrics = ["click"]
guardrails = [{{ metric = "click", worse_by = 0.05 }}, {{ metric = "latency_ms.p95", worse_by = 50 }}]
policy = {{ kind = "rollout", stable = "a", candidate = "b", steps = [
  {{ share = 0.5, hold = "1h", units = 100000, whole_days = false }}, {{ share = 1.0 }}] }}
"""
#: Passes that are measured, and calls of each route between them.
PASSES: Final = 20
CALLS: Final = 4

#: Where a controller is killed; each is a moment of its next move.
POINTS: Final = ("before_commit", "after_commit", "before_publish", "after_publish")
LADDER: Final = """
[sinks.lake]
kind = "cloudevents"
url = "http://127.0.0.1:9"
events = ["rollout"]
[routes.r]
path = "/r"
unit = "header:x-user-id"
policy = {{ kind = "rollout", stable = "a", candidate = "b", steps = [
{steps}] }}
"""


class _Nobody:
    """An observer that does not look."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_, **__: None


async def opened(directory: Path, config: str) -> tuple[Control, asyncio.Event, asyncio.Task[None]]:
    """Return a controller whose store is open and whose deciders wait to be called."""
    (directory / "turnout.toml").write_text(config)
    (directory / "data").mkdir(exist_ok=True)
    observer: Any = _Nobody()
    control, stopping = Control(directory / "turnout.toml", directory / "data", observer), asyncio.Event()
    recording = asyncio.create_task(control.keep_recording(stopping))
    while control.opened is None:
        await asyncio.sleep(0.01)
    return control, stopping, recording


async def costs(routes: int) -> list[float]:
    """Return the CPU milliseconds of passes of all deciders, while the counts of every route move."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        config = HEAD + "".join(ROUTE.format(n=n) for n in range(routes))
        control, stopping, recording = await opened(directory, config)
        run = new_run(time.time_ns() // 1_000_000)
        writer = new_writer(run, 0, time.time_ns() // 1_000_000)
        folder = directory / "data" / JOURNAL / PREDICTIONS
        folder.mkdir(parents=True, exist_ok=True)
        journal = Appender(folder, writer, roll_bytes=2**24)
        assert control.opened is not None
        took, number = list[float](), 0
        for done in range(-3 * PASSES, PASSES):  # before 0 everything is learned for the first time
            now_ms = time.time_ns() // 1_000_000
            for route in control.in_force.snapshot.routes.values():
                for _ in range(CALLS):
                    number += 1
                    journal.append(line_of(_call(route, now_ms, number)))
            journal.append(mark_line("beat", now_ms))
            await control.opened.recorder.step()
            begun = time.process_time()
            await control.in_force.decide()
            if done >= 0:
                took.append((time.process_time() - begun) * 1000)
        stopping.set()
        await recording
        await control.close(5)
        return took


def _call(route: Any, now_ms: int, number: int) -> Prediction:
    return Prediction(
        id=new_id(now_ms),
        at_ms=now_ms,
        route=route.name,
        epoch=route.epoch,
        period=route.period,
        revision=route.revision,
        variant="ab"[number % 2],
        model="m",
        version="1",
        role="primary",
        reason="unit",
        propensity=0.5,
        status=200,
        latency_ms=12.0,
        unit=f"u{number % 997}",
        by_unit=True,
    )


def ladder(steps: int) -> str:
    """Return a file whose rollout passes a step in each pass."""
    each = [f'{{ share = {(n + 1) / steps:.4f}, hold = "1ms", whole_days = false }},' for n in range(steps)]
    return HEAD + LADDER.format(steps="\n".join(each))


async def _until_killed(directory: Path, steps: int, point: str, nth: int) -> None:
    control, stopping, recording = await opened(directory, ladder(steps))
    _arm(point, nth)
    while control.in_force.snapshot.routes["r"].standing.state != "done":
        await asyncio.sleep(0.002)
        with suppress(OSError):
            await control.in_force.decide()
    stopping.set()
    await recording
    await control.close(5)


def _arm(point: str, nth: int) -> None:
    """Have this process kill itself at a point of its ``nth`` move."""
    left = [nth]

    def due() -> bool:
        left[0] -= 1
        return left[0] <= 0

    def kill() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    append, store_moves, publish = audit.append, moves.store_moves, Publisher._publish
    moved = [False]

    async def appending(*given: Any) -> Any:
        written = await append(*given)
        if point == "before_commit" and due():
            kill()
        return written

    async def storing(*given: Any) -> Any:
        logged = await store_moves(*given)
        if point == "after_commit" and due():
            kill()
        moved[0] = True
        return logged

    async def publishing(self: Publisher, snapshot: Any) -> None:
        last = moved[0] and point.endswith("publish") and due()
        if last and point == "before_publish":
            kill()
        await publish(self, snapshot)
        if last:
            kill()

    setattr(moves, "append", appending)  # noqa: B010  # mypy knows it as a function
    setattr(stored_standings, "store_moves", storing)  # noqa: B010
    setattr(Publisher, "_publish", publishing)  # noqa: B010


def killed(directory: Path, steps: int, point: str, nth: int) -> bool:
    """Run a controller in a child until it kills itself; return whether it did, or else came to its end."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            asyncio.run(_until_killed(directory, steps, point, nth))
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return True
    assert os.WEXITSTATUS(status) == 0, f"a controller failed at {point}"
    return False


async def left(directory: Path) -> tuple[Standing, list[Mapping[str, Any]], list[str]]:
    """Return what is stored: where the route stands, its moves in order, and the ids of the events for the sink."""
    store = await Store.open("sqlite", directory / "data")
    async with store.read() as connection:
        found = await read_standing(connection, "route", "r")
        queued = [bytes(row[0]) for row in await connection.execute(outbox.select().with_only_columns(outbox.c.events))]
        checked = await verify(connection)
    events = [one.shown["move"] for one in reversed(await store.events(10_000)) if one.kind == moves.ROLLOUT]
    await store.close()
    assert checked.wrong is None, checked
    ids = [orjson.loads(line)["id"] for lines in queued for line in lines.split(b"\n")]
    return Standing() if found is None else decode_standing(found.body), events, ids


async def check(directory: Path) -> Standing:
    """Return where the route stands; fails unless every move is there once, wherever one looks for it."""
    standing, events, ids = await left(directory)
    assert replay(events) == standing, (standing, events[-2:])
    assert len(events) == len(set(ids)) == len(ids) == standing.number, (standing.number, len(events), len(ids))
    return standing


def kills(times: int, seed: int) -> Standing:
    """Kill controllers at the points in turn, look after each, and let the last one come to its end."""
    chance, before, steps = random.Random(seed), Standing(), 2 * times + 2
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        for number in range(times):
            assert killed(directory, steps, POINTS[number % len(POINTS)], chance.randint(1, 2)), "it ended too soon"
            now = asyncio.run(check(directory))
            assert 0 <= now.number - before.number <= 2, (before.number, now.number)
            before = now
        assert not killed(directory, steps, "never", 1)
        ended = asyncio.run(check(directory))
        snapshot = SnapshotFile(directory / "data" / SNAPSHOT).read()
        assert snapshot is not None
        assert (snapshot.routes["r"].standing, snapshot.routes["r"].plan.shares) == (ended, {"b": 1.0})
        return ended


def main() -> None:
    asking = argparse.ArgumentParser(description=__doc__)
    asking.add_argument("--routes", type=int, default=200)
    asking.add_argument("--kills", type=int, default=50)
    asking.add_argument("--seed", type=int, default=1)
    asked = asking.parse_args()
    logging.disable(logging.CRITICAL)
    said: list[str] = []
    if asked.kills:
        ended = kills(asked.kills, asked.seed)
        said.append(f"{asked.kills} kills: {ended.number} moves, each once, {ended.state}")
    if asked.routes:
        took = asyncio.run(costs(asked.routes))
        middle, most = statistics.median(took), max(took)
        said.append(f"a pass over {asked.routes} routes: {middle:.0f} ms of CPU in the median, {most:.0f} at most")
    sys.stdout.write("\n".join(said) + "\n")


if __name__ == "__main__":
    main()
