"""The journal followed from its end, without a store."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from sqlalchemy.exc import DBAPIError

from gateway.control.record.recorder import Recorder
from gateway.control.record.tail import PATIENCE_SECONDS, Tail
from gateway.journal.segments import PREDICTIONS, segments
from gateway.store.counts.ledger import CALLS
from gateway.store.rows.calls import StoredCall
from tests.gateway.control.builders import OTHER, RUN, Desk, Journal, at_desk, call
from tests.router.journal_lines import call_line


def numbers(seen: list[StoredCall]) -> list[int]:
    return [int(one.id[-4:], 16) for one in seen]


def test_every_finished_call_is_reported_once_from_the_end_on(tmp_path: Path) -> None:
    async def story() -> None:
        journal, seen = Journal(tmp_path), list[StoredCall]()
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
        journal, seen = Journal(tmp_path), list[StoredCall]()
        tail = Tail(tmp_path, seen.extend)
        line, torn = (journal.sealed(PREDICTIONS, [call_line(call(n))]) for n in (1, 2))
        journal.put(PREDICTIONS, line[:200])
        await tail.step()
        journal.put(PREDICTIONS, line[200:] + torn[:20])
        await tail.step()
        assert numbers(seen) == [1]
        journal.roll()
        await tail.step()
        assert not any(tail.reached(segment) < segment.size for segment in segments(tmp_path / PREDICTIONS))

    asyncio.run(story())


def test_it_says_how_far_it_is_and_takes_deletion_lightly(tmp_path: Path) -> None:
    async def story() -> None:
        journal = Journal(tmp_path)
        tail = Tail(tmp_path, lambda _: None)
        journal.calls(call(1))
        [segment] = segments(tmp_path / PREDICTIONS)
        assert tail.reached(segment) == 0
        await tail.step()
        assert tail.reached(segment) == segment.size
        journal.file().unlink()
        await tail.step()

    asyncio.run(story())


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_each_call_is_reported_once_whether_the_recorder_reads_it_first_or_last(tmp_path: Path, store: str) -> None:
    """While the recorder keeps reading, nothing that it has read is read again."""

    async def story(desk: Desk) -> None:
        seen, clock = list[StoredCall](), Clock()
        desk.journal.calls(call(1))
        tail = Tail(desk.journal.path, seen.extend, clock=clock)
        desk.recorder = Recorder(desk.store, desk.journal.path, run=RUN, follower=tail)
        desk.journal.calls(call(2))
        await tail.step()
        assert numbers(seen) == [2], "nobody else has read it"
        desk.journal.calls(call(3))
        await desk.recorder.step()
        assert numbers(seen) == [2], "what it read goes up to where the tail was"
        await desk.recorder.step()
        assert numbers(seen) == [2, 3]
        desk.journal.calls(call(4))
        await tail.step()
        assert numbers(seen) == [2, 3], "the recorder was here a moment ago"
        clock.now += PATIENCE_SECONDS
        await tail.step()
        assert numbers(seen) == [2, 3, 4]
        desk.journal.calls(call(5))
        await desk.record()
        await tail.step(at_once=True)
        assert numbers(seen) == [2, 3, 4, 5]

    at_desk(Desk(tmp_path, store=store), story)


def test_a_store_in_trouble_delays_no_request_rate_and_doubles_none(tmp_path: Path, store: str) -> None:
    async def story(desk: Desk) -> None:
        seen, clock = list[StoredCall](), Clock()
        tail = Tail(desk.journal.path, seen.extend, clock=clock)
        desk.recorder = Recorder(desk.store, desk.journal.path, run=RUN, follower=tail)
        await desk.record()
        await desk.read_only(True)
        for number in range(3):
            desk.journal.calls(call(number))
            with pytest.raises(DBAPIError):
                await desk.recorder.step()
            clock.now += PATIENCE_SECONDS
            await tail.step()
        await desk.read_only(False)
        await desk.record()
        assert numbers(seen) == [0, 1, 2]
        assert (await desk.ledger()).pooled("a", "primary", CALLS, "live").d == 3

    at_desk(Desk(tmp_path, store=store), story)
