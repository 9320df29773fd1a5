"""Every event reaches its receiver at least once, in order, whatever fails meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest

from gateway.sinks import sender
from gateway.sinks.http_events import HttpEvents
from gateway.sinks.outlet import Trouble
from gateway.sinks.sinks import Sinks
from gateway.sinks.stdout import Stdout
from router.snapshot import Sink
from tests.gateway.control.builders import Desk, at_desk, call, metric, uuid
from tests.gateway.sinks.builders import Receiver, sink
from tests.stories.backends import Backend


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten pauses to milliseconds: the tests are about what happens after them."""
    monkeypatch.setattr(sender, "SHORTEST_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(sender, "LONGEST_PAUSE_SECONDS", 0.05)


@contextlib.asynccontextmanager
async def running(desk: Desk, *sinks: Sink) -> AsyncIterator[tuple[Sinks, list[tuple[str, str | None]]]]:
    """Start senders for these sinks, for which the recorder makes events; return them and what they noted."""
    noted: list[tuple[str, str | None]] = []
    named = {one.name: one for one in sinks}
    desk.adopt(replace(desk.snapshot, sinks=named))
    keeper = Sinks(desk.store, lambda: named, lambda name, trouble: noted.append((name, trouble)))
    task = asyncio.create_task(keeper.run())
    try:
        yield keeper, noted
    finally:
        task.cancel()
        await asyncio.wait([task])


def in_force(keeper: Sinks, *sinks: Sink) -> None:
    """Put a snapshot with these sinks in force."""
    keeper._wanted = lambda: {one.name: one for one in sinks}


async def until(ask: Callable[[], Any], what: str, seconds: float = 15.0) -> None:
    deadline = asyncio.get_running_loop().time() + seconds
    while not (found := await ask() if asyncio.iscoroutinefunction(ask) else ask()):
        assert asyncio.get_running_loop().time() < deadline, f"{what}: last {found!r}"
        await asyncio.sleep(0.02)


async def account(desk: Desk, keeper: Sinks, *sinks: Sink) -> dict[str, Any]:
    """Return the counts of a sink's events, and check that they add up."""
    (shown,) = await keeper.shown({one.name: one for one in sinks}, 0)
    ends = ("delivered", "refused", "dropped", "erased", "pending")
    assert shown["made"] == sum(shown[name] for name in ends)
    return shown


def with_receiver(
    tmp_path: Path, story: Callable[[Desk, Receiver, str], Awaitable[None]], *, store: str = "sqlite"
) -> None:
    receiver = Receiver()
    with Backend(receiver.answer) as backend:
        at_desk(Desk(tmp_path, metric(), store=store), lambda desk: story(desk, receiver, f"{backend.url}/events"))


@pytest.mark.parametrize("mode", ["batch", "structured", "binary"])
def test_everything_arrives_once_and_as_it_was_made_in_every_mode(tmp_path: Path, mode: Any) -> None:
    async def story(desk: Desk, receiver: Receiver, url: str) -> None:
        target = sink(url=f"{url}?x=1", mode=mode, headers=(("x-team", "models"),))
        async with running(desk, target) as (keeper, noted):
            desk.journal.calls(*(call(n, prediction={"é": n}, unit='100 % "x"') for n in range(70)))
            await desk.record()
            await until(lambda: len(receiver.events) >= 210, "all events are here")
            shown = await settled(desk, keeper, target)
        assert set(receiver.ids) == {
            f"{uuid(n)}.{what}" for n in range(70) for what in ("request", "decision", "response.primary.a")
        }
        assert set(receiver.ids.values()) == {1}
        if mode == "batch":
            assert [event["id"] for event in receiver.events] == list(receiver.ids)
            assert [event["subject"] for event in receiver.events[::3]] == [uuid(n) for n in range(70)]
        assert (shown["made"], shown["delivered"], noted) == (210, 210, [])
        assert {asked.target for asked in receiver.asked} == {"/events?x=1"}
        assert {asked.headers["x-team"] for asked in receiver.asked} == {"models"}
        assert not any("cookie" in asked.headers for asked in receiver.asked)
        for event in receiver.events:
            assert event["specversion"] == "1.0"
            assert event["datacontenttype"].startswith("application/json")
            if event["type"] == "turnout.request":
                assert event["data"]["unit"] == '100 % "x"'
        assert len(receiver.asked) == (3 if mode == "batch" else 210)

    with_receiver(tmp_path, story)


async def settled(desk: Desk, keeper: Sinks, *sinks: Sink) -> dict[str, Any]:
    """Return the counts once no event waits any more."""

    async def nothing_waits() -> bool:
        return bool((await account(desk, keeper, *sinks))["pending"] == 0)

    await until(nothing_waits, "nothing waits")
    return await account(desk, keeper, *sinks)


@pytest.mark.parametrize("status", [301, 401, 404, 408, 415, 429, 500, 503])
def test_a_receiver_that_fails_loses_nothing_and_that_is_reported_once(tmp_path: Path, status: int) -> None:
    """A wrong address or token, or too many requests: the events wait until it passes or an operator mends it."""

    async def story(desk: Desk, receiver: Receiver, url: str) -> None:
        receiver.status = status
        async with running(desk, target := sink(url=url)) as (keeper, noted):
            desk.journal.calls(*(call(n) for n in range(10)))
            await desk.record()
            await until(lambda: len(receiver.asked) >= 3, "it is tried again")
            assert (await account(desk, keeper, target))["pending"] == 30
            receiver.status = 204
            shown = await settled(desk, keeper, target)
        assert shown["delivered"] == 30
        assert set(receiver.ids.values()) == {1}
        assert noted == [("lake", f"it answers {status}"), ("lake", None)]

    with_receiver(tmp_path, story)


def test_an_event_that_is_refused_delays_no_other(tmp_path: Path, store: str) -> None:
    async def story(desk: Desk, receiver: Receiver, url: str) -> None:
        receiver.poisoned = {f"{uuid(3)}.decision", f"{uuid(20)}.request"}
        async with running(desk, target := sink(url=url)) as (keeper, _):
            desk.journal.calls(*(call(n) for n in range(30)))
            await desk.record()
            shown = await settled(desk, keeper, target)
        assert (shown["made"], shown["delivered"], shown["refused"]) == (90, 88, 2)
        assert len(receiver.ids) == 88
        assert not receiver.poisoned & receiver.ids.keys()

    with_receiver(tmp_path, story, store=store)


def test_a_secret_that_is_missing_delays_events_until_it_is_there(tmp_path: Path) -> None:
    async def story(desk: Desk, receiver: Receiver, url: str) -> None:
        secret = tmp_path / "token"
        target = sink(url=url, headers=(("authorization", f"Bearer ${{file:{secret}}}"),))
        async with running(desk, target) as (keeper, noted):
            desk.journal.calls(call(1))
            await desk.record()
            await until(lambda: bool(noted), "the trouble is noted")
            assert "No such file" in str(noted[0][1])
            secret.write_text("s3cret\n")
            await settled(desk, keeper, target)
        assert {asked.headers["authorization"] for asked in receiver.asked} == {"Bearer s3cret"}

    with_receiver(tmp_path, story)


def test_a_receiver_that_never_answers_is_given_up_in_time(tmp_path: Path) -> None:
    async def hang(_: object) -> None:
        await asyncio.sleep(60)

    async def story() -> None:
        with Backend(hang) as backend:
            outlet = HttpEvents(sink(url=backend.url, timeout_ms=100))
            with pytest.raises(Trouble, match="no answer within 100 ms"):
                await outlet.send([b"{}"])
            await outlet.close()

    asyncio.run(story())


@pytest.mark.parametrize("secret", ["s3cret \n", "s3\tcret", "s3crét", "s3\ncret"])
def test_a_secret_that_cannot_be_sent_is_named_and_not_shown(tmp_path: Path, secret: str) -> None:
    file = tmp_path / "token"
    file.write_text(secret)
    with pytest.raises(Trouble) as trouble:
        HttpEvents(sink(url="http://127.0.0.1:9/", headers=(("authorization", f"Bearer ${{file:{file}}}"),)))
    assert "authorization" in str(trouble.value)
    assert "s3" not in str(trouble.value)


def test_no_event_is_sent_before_the_pause_that_a_receiver_asks_for(tmp_path: Path) -> None:
    async def story(desk: Desk, receiver: Receiver, url: str) -> None:
        receiver.status, receiver.retry_after = 503, "1"
        async with running(desk, target := sink(url=url)) as (keeper, noted):
            desk.journal.calls(call(1))
            await desk.record()
            await until(lambda: bool(noted), "it asks for a second")
            began = asyncio.get_running_loop().time()
            receiver.status = 204
            await settled(desk, keeper, target)
            assert asyncio.get_running_loop().time() - began > 0.9  # pauses of its own are 50 ms at most here

    with_receiver(tmp_path, story)


def test_an_event_that_was_being_sent_at_a_restart_is_sent_again_with_the_same_id(tmp_path: Path, store: str) -> None:
    async def story(desk: Desk, receiver: Receiver, url: str) -> None:
        target = sink(url=url)
        desk.adopt(replace(desk.snapshot, sinks={"lake": target}))
        desk.journal.calls(*(call(n) for n in range(300)))
        await desk.record()
        async with running(desk, target):
            await until(lambda: len(receiver.events) >= 150, "half of it is here")
        async with running(desk, target) as (keeper, _):
            shown = await settled(desk, keeper, target)
        assert shown["delivered"] == 900
        assert len(receiver.ids) == 900

    with_receiver(tmp_path, story, store=store)


def test_a_sink_that_is_edited_keeps_the_events_that_wait(tmp_path: Path) -> None:
    async def story(desk: Desk, receiver: Receiver, url: str) -> None:
        nobody, target = sink(url="http://127.0.0.1:9/"), sink(url=url)
        async with running(desk, nobody) as (keeper, noted):
            desk.journal.calls(call(1))
            await desk.record()
            await until(lambda: bool(noted), "nobody is there")
            in_force(keeper, target)
            assert (await settled(desk, keeper, target))["delivered"] == 3
            in_force(keeper)
            await until(lambda: not keeper._running, "no sender is left")

    with_receiver(tmp_path, story)


def test_a_reader_of_standard_output_gets_whole_lines(tmp_path: Path) -> None:
    async def story(desk: Desk) -> None:
        reading, writing = os.pipe()
        lines: list[bytes] = []

        def read() -> None:
            with open(reading, "rb") as file:
                lines.extend(file)

        reader = threading.Thread(target=read)
        reader.start()
        out = Stdout(writing)
        sent = [orjson.dumps({"n": n, "text": "x" * (n * 37 % 9_000)}) for n in range(400)]
        at = 0
        while at < len(sent):
            together = sent[at : at + out.take(sent[at:])]
            assert await out.send(together) == 0
            at += len(together)
        await out.close()
        os.close(writing)
        await asyncio.to_thread(reader.join, 10)
        assert [line.removesuffix(b"\n") for line in lines] == sent

    at_desk(Desk(tmp_path), story)


def test_a_reader_that_does_not_read_delays_nothing_else() -> None:
    """While a pipe is full, the event loop goes on, and the process can end."""

    async def story() -> None:
        reading, writing = os.pipe()
        out = Stdout(writing)
        stuck = asyncio.create_task(out.send([b"x" * 200_000]))
        for _ in range(20):
            await asyncio.sleep(0.005)
        assert not stuck.done()
        os.close(reading)
        with pytest.raises(Trouble, match="standard output"):
            await stuck
        await out.close()
        os.close(writing)

    asyncio.run(story())
