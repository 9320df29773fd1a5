"""Feedback segments: acknowledged is durable, and one sync serves everything that waits."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.journal.appender import Appender
from gateway.journal.feedback_appender import FeedbackAppender, JournalFailed
from gateway.journal.segments import new_run, new_writer
from tests.gateway.journals import by_segment, texts

WRITER = new_writer(new_run(1), 0, 2)


def stuck(until: threading.Event) -> Callable[[Appender], None]:
    """A disk that confirms nothing until it is allowed to."""

    def sync(appender: Appender) -> None:
        until.wait()
        appender.sync()

    return sync


def test_append_returns_after_the_sync_and_not_before(tmp_path: Path) -> None:
    async def main() -> None:
        allowed = threading.Event()
        journal = FeedbackAppender(tmp_path, WRITER, roll_bytes=2**20, sync=stuck(allowed))
        waiting = asyncio.create_task(journal.append(b"one\n"))
        await asyncio.sleep(0.05)
        assert not waiting.done()
        assert texts(tmp_path) == [b"one"]  # written, not yet durable: not acknowledged
        allowed.set()
        await waiting
        await journal.close()

    asyncio.run(main())


def test_everything_that_waits_shares_one_sync(tmp_path: Path) -> None:
    async def main() -> None:
        syncs = 0
        first = threading.Event()

        def sync(appender: Appender) -> None:
            nonlocal syncs
            syncs += 1
            first.wait()  # while the disk is busy with the first, the others gather
            appender.sync()

        journal = FeedbackAppender(tmp_path, WRITER, roll_bytes=2**20, sync=sync)
        tasks = [asyncio.create_task(journal.append(b"0\n"))]
        while not syncs:
            await asyncio.sleep(0.001)
        tasks += [asyncio.create_task(journal.append(b"%d\n" % n)) for n in range(1, 50)]
        await asyncio.sleep(0)
        first.set()
        await asyncio.gather(*tasks)
        await journal.close()
        assert syncs == 2

    asyncio.run(main())
    assert texts(tmp_path) == [b"%d" % n for n in range(50)]


def test_a_failed_sync_fails_all_that_waited_and_retires_the_segment(tmp_path: Path) -> None:
    async def main() -> None:
        failing = True

        def sync(appender: Appender) -> None:
            if failing:
                raise OSError(5, "Input/output error")
            appender.sync()

        journal = FeedbackAppender(tmp_path, WRITER, roll_bytes=2**20, sync=sync)
        results = await asyncio.gather(journal.append(b"1\n"), journal.append(b"2\n"), return_exceptions=True)
        assert [str(result) for result in results] == ["the journal could not be written: Input/output error"] * 2
        failing = False
        await journal.append(b"3\n")
        await journal.close()

    asyncio.run(main())
    assert by_segment(tmp_path) == [[b"1", b"2"], [b"3"]]


def test_more_than_may_wait_is_refused_at_once(tmp_path: Path) -> None:
    async def main() -> None:
        allowed = threading.Event()
        journal = FeedbackAppender(tmp_path, WRITER, roll_bytes=2**20, waiting_bytes=10, sync=stuck(allowed))
        first = asyncio.create_task(journal.append(b"1\n"))
        await asyncio.sleep(0.05)
        second = asyncio.create_task(journal.append(b"12345678\n"))
        await asyncio.sleep(0)
        with pytest.raises(JournalFailed, match="too much feedback is waiting"):
            await journal.append(b"2\n")
        allowed.set()
        await asyncio.gather(first, second)
        await journal.close()

    asyncio.run(main())


def test_a_disk_that_does_not_answer_is_not_waited_for_for_ever(tmp_path: Path) -> None:
    async def main() -> None:
        allowed = threading.Event()
        journal = FeedbackAppender(tmp_path, WRITER, roll_bytes=2**20, deadline_seconds=0.05, sync=stuck(allowed))
        with pytest.raises(JournalFailed, match="did not confirm"):
            await journal.append(b"1\n")
        allowed.set()
        await journal.close()

    asyncio.run(main())


def test_a_caller_that_stops_waiting_harms_nobody(tmp_path: Path) -> None:
    async def main() -> None:
        journal = FeedbackAppender(tmp_path, WRITER, roll_bytes=2**20)
        left = asyncio.create_task(journal.append(b"1\n"))
        await asyncio.sleep(0)
        left.cancel()
        await journal.append(b"2\n")
        await journal.close()

    asyncio.run(main())
    assert b"2" in texts(tmp_path)


def test_closing_finishes_what_waits_and_then_refuses(tmp_path: Path) -> None:
    async def main() -> None:
        journal = FeedbackAppender(tmp_path, WRITER, roll_bytes=2**20)
        waiting = asyncio.create_task(journal.append(b"1\n"))
        await asyncio.sleep(0)
        await journal.close()
        await waiting
        with pytest.raises(JournalFailed, match="closing"):
            await journal.append(b"2\n")

    asyncio.run(main())
    assert texts(tmp_path) == [b"1"]


def test_a_segment_can_be_finished_before_it_is_full(tmp_path: Path) -> None:
    async def main() -> None:
        journal = FeedbackAppender(tmp_path, WRITER, roll_bytes=2**20)
        await journal.append(b"1\n")
        journal.roll()
        await journal.append(b"2\n")
        await journal.close()

    asyncio.run(main())
    assert by_segment(tmp_path) == [[b"1"], [b"2"]]
