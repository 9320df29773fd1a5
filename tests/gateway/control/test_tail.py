"""The journal followed from its end, without a store."""

from __future__ import annotations

import asyncio
from pathlib import Path

from gateway.control.tail import Tail
from gateway.journal import PREDICTIONS, segments
from gateway.store.calls import Call
from router.records import call_line
from tests.gateway.control.builders import OTHER, Journal, call


def numbers(seen: list[Call]) -> list[int]:
    return [int(one.id[-4:], 16) for one in seen]


def test_every_finished_call_is_told_once_from_the_end_on(tmp_path: Path) -> None:
    async def story() -> None:
        journal, seen = Journal(tmp_path), list[Call]()
        journal.calls(call(1))
        tail = Tail(tmp_path, seen.extend)
        await tail.step()
        assert seen == []
        journal.calls(call(2))
        journal.opens(call(3, fault="incomplete"))
        journal.calls(call(4), writer=OTHER)
        await tail.step()
        journal.roll()
        journal.closes(call(3))
        await tail.step()
        await tail.step()
        assert sorted(numbers(seen)) == [2, 3, 4]

    asyncio.run(story())


def test_half_a_line_is_waited_for_and_a_torn_one_is_left(tmp_path: Path) -> None:
    async def story() -> None:
        journal, seen = Journal(tmp_path), list[Call]()
        tail = Tail(tmp_path, seen.extend)
        line = call_line(call(1))
        journal.write(PREDICTIONS, [line[:20]])
        await tail.step()
        journal.write(PREDICTIONS, [line[20:], line[:20]])
        await tail.step()
        assert numbers(seen) == [1]
        journal.roll()
        await tail.step()
        assert not any(tail.reading(segment) for segment in segments(tmp_path / PREDICTIONS))

    asyncio.run(story())


def test_a_segment_that_is_not_read_yet_is_being_read(tmp_path: Path) -> None:
    async def story() -> None:
        journal = Journal(tmp_path)
        tail = Tail(tmp_path, lambda _: None)
        journal.calls(call(1))
        [segment] = segments(tmp_path / PREDICTIONS)
        assert tail.reading(segment)
        await tail.step()
        assert not tail.reading(segment)
        journal.file().unlink()
        await tail.step()

    asyncio.run(story())
