"""An act that is asked for at a node that may not perform it is performed by the holder of the lease: once or not."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from gateway.control.command import relay
from gateway.control.command.ask import Ask, Asker, Done, NotDone
from gateway.control.command.relay import Relay
from gateway.control.opened import Opened
from gateway.store import Store
from gateway.store.standings import read_standings, write_standings

ANN = Asker("ann", "api")
ASK = Ask(verb="pause", route="r", why="it looks odd", saw=3)


class Node:
    """A node as acts see it: whether it holds the lease, and what it has performed."""

    def __init__(self, store: Store, name: str, *, holds: bool) -> None:
        self.done: list[tuple[Ask, Asker]] = []
        self.refuses: NotDone | None = None
        member = SimpleNamespace(holds=holds, alone=False, view=lambda _: SimpleNamespace(holder="b"))
        self.opened = Opened(store, cast(Any, None), cast(Any, None), cast(Any, member))
        self.relay = Relay(lambda: self.opened, self._perform)

    async def _perform(self, ask: Ask, asker: Asker) -> Done:
        if self.refuses is not None:
            raise self.refuses
        self.done.append((ask, asker))
        return Done(ask.verb, ask.dry_run, ("r is paused",), {"standing": {"number": 4}})


Story = Callable[[Store, Node, Node], Awaitable[None]]


@pytest.fixture
def play(tmp_path: Path, store: str, monkeypatch: pytest.MonkeyPatch) -> Callable[[Story], None]:
    monkeypatch.setattr(relay, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(relay, "CLAIM_SECONDS", 0.5)
    monkeypatch.setattr(relay, "ANSWER_SECONDS", 0.5)

    def run(story: Story) -> None:
        async def main() -> None:
            opened = await Store.open(store, tmp_path)
            try:
                await story(opened, Node(opened, "a", holds=False), Node(opened, "b", holds=True))
                async with opened.read() as connection:
                    assert await read_standings(connection, "ask") == {}, "nothing is left behind"
            finally:
                await opened.close()

        asyncio.run(main())

    return run


def test_the_holder_performs_it_once_and_the_asker_gets_its_answer(play: Callable[[Story], None]) -> None:
    async def story(store: Store, a: Node, b: Node) -> None:
        loops = [asyncio.create_task(node.relay.keep()) for node in (a, b, b)]  # b is asked by two loops at once
        done = await a.relay.ask(ASK, ANN, "not here")
        assert (done.said, done.more) == (("r is paused",), {"standing": {"number": 4}})
        assert (a.done, b.done) == ([], [(ASK, ANN)])
        b.refuses = NotDone(409, "it is paused already", standing={"number": 4})
        with pytest.raises(NotDone, match="paused already") as refused:
            await a.relay.ask(ASK, ANN, "not here")
        assert (refused.value.status, refused.value.more) == (409, {"standing": {"number": 4}})
        for loop in loops:
            loop.cancel()

    play(story)


def test_a_holder_that_does_not_answer_is_named_and_the_act_is_withdrawn(play: Callable[[Story], None]) -> None:
    async def story(store: Store, a: Node, b: Node) -> None:
        with pytest.raises(NotDone, match=r"the holder of the lease \(b\) does not answer, so nothing was done"):
            await a.relay.ask(ASK, ANN, "not here")
        await b.relay.step()
        assert b.done == []

    play(story)


def test_a_holder_that_dies_in_the_middle_leaves_a_warning_and_nothing_is_done_twice(
    play: Callable[[Story], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(store: Store, a: Node, b: Node) -> None:
        asking = asyncio.create_task(a.relay.ask(ASK, ANN, "not here"))
        async with asyncio.timeout(5):
            while not asking.done():
                await asyncio.sleep(0.01)
                async with store.read() as connection:
                    waiting = await read_standings(connection, "ask")
                for name, stood in waiting.items():
                    if "claimed" not in stood.body:
                        assert await b.relay._claimed(b.opened, name)  # and then it dies
        with pytest.raises(NotDone, match="look at where the route stands"):
            await asking
        await b.relay.step()
        assert b.done == []
        monkeypatch.setattr(relay, "KEPT_MS", -1)
        await b.relay.step()

    play(story)


def test_what_is_no_ask_is_forgotten(play: Callable[[Story], None]) -> None:
    async def story(store: Store, a: Node, b: Node) -> None:
        async with store.begin() as connection:
            await write_standings(connection, "ask", {"x": {}}, 0)
        await b.relay.step()

    play(story)
