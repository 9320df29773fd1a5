"""Exactly once: whatever the journal holds and however recording is interrupted."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.control.record import drain
from gateway.control.record.recorder import Recorder
from gateway.journal.seal import sealed
from gateway.journal.segments import FEEDBACK, PREDICTIONS, Segment
from gateway.store import Store
from gateway.store.counts import tallies
from gateway.store.counts.ledger import CALLS
from gateway.store.rows.calls import StoredCall
from gateway.store.rows.feedback_status import UNKNOWN
from router.records import mark_line
from tests.gateway.control.builders import (
    OTHER,
    RUN,
    T0,
    Desk,
    Journal,
    at_desk,
    call,
    event,
    metric,
    snapshot,
    sums,
)
from tests.router.journal_lines import call_line


class Slow:
    """A follower that has reached nothing until it has reached everything."""

    there = False

    def reached(self, segment: Segment) -> int:
        return segment.size if self.there else 0

    def receive(self, segment: Segment, start: int, end: int, calls: Sequence[StoredCall]) -> None: ...


NEXT_RUN = f"{T0 + 60_000:012x}"
SUCCESSOR = f"{RUN}-00-{T0 + 1_000:012x}"


async def met(desk: Desk) -> dict[str, int]:
    async with desk.store.begin() as connection:
        return dict(await tallies.counted(connection))


async def calls(desk: Desk) -> tuple[float, float]:
    """(failures, calls) of variant a."""
    tally = (await desk.ledger()).pooled("a", "primary", CALLS, "live")
    return tally.m, tally.d


def test_a_restart_at_any_batch_boundary_repeats_nothing_and_skips_nothing(tmp_path: Path, store: str) -> None:
    async def story(desk: Desk) -> None:
        desk.journal.calls(*(call(n, unit=f"u{n % 7}", by_unit=True) for n in range(40)))
        desk.journal.events(*(event(n, 1, at=n + 1) for n in range(0, 40, 2)))
        desk.journal.beat(5_000)
        for _ in range(30):
            desk.restart()
            await desk.recorder.step()
        ledger = await desk.record()
        assert await calls(desk) == (0, 40)
        assert sums(ledger) == {"a": (20.0, 40.0)}
        assert ledger.feedback == {("k", "joined"): 20}

    at_desk(Desk(tmp_path, metric("event", missing=0.0), lines=3, store=store), story)


def test_kill_9_anywhere_loses_nothing_and_repeats_nothing(tmp_path: Path, store: str) -> None:
    """A real process, killed in the middle of whatever it is doing."""
    journal = Journal(tmp_path / "journal")
    journal.calls(*(call(n, unit=f"u{n % 50}", by_unit=True, prediction=n % 3) for n in range(4_000)))
    journal.events(*(event(n, 1, at=n + 1) for n in range(0, 4_000, 4)))
    journal.beat(9_000)
    recording = [sys.executable, __file__, str(tmp_path), store]
    for seconds in (0.05, 0.15, 0.3):
        with subprocess.Popen(recording, stdout=subprocess.PIPE) as child:
            assert child.stdout is not None
            assert child.stdout.readline() == b"recording\n"
            try:
                child.wait(seconds)
            except subprocess.TimeoutExpired:
                os.kill(child.pid, signal.SIGKILL)

    async def story(desk: Desk) -> None:
        ledger = await desk.record()
        assert await calls(desk) == (0, 4_000)
        assert sums(ledger) == {"a": (333.0, 1_000.0)}
        assert sums(ledger, "closed") == {"a": (0.0, 4_000.0)}
        assert ledger.feedback == {("k", "joined"): 1_000}
        assert "duplicate_rows" not in await met(desk)

    at_desk(Desk(tmp_path, metric(), store=store), story)


def test_corrupt_lines_are_counted_and_skipped(tmp_path: Path, store: str) -> None:
    wrong = [
        b"{not json}\n",
        b"[1]\n",
        b'"text"\n',
        b"\n",
        b'{"line":"dance"}\n',
        b'{"line":"beat"}\n',
        b'{"line":"beat","at_ms":"soon"}\n',
        b'{"line":"feedback","metric":"k","value":1,"received_ms":1}\n',
        call_line(call(1)).replace(b'"at_ms":1700000000001', b'"at_ms":"now"'),
        call_line(call(1)).replace(b'"at_ms":1700000000001', b'"at_ms":18446744073709551615'),
        call_line(call(1)).replace(b'"role":"primary"', b'"role":"spare"'),
        call_line(call(1)).replace(b'"role"', b'"rule"'),
        call_line(call(1, items=("x",))).replace(b'"items":["x"]', b'"items":[1]'),
    ]

    async def story(desk: Desk) -> None:
        desk.journal.calls(call(10))
        desk.journal.write(PREDICTIONS, wrong)
        desk.journal.write(FEEDBACK, wrong[:3])
        desk.journal.calls(call(11))
        await desk.record()
        assert await calls(desk) == (0, 2)
        assert await met(desk) == {"corrupt_lines": len(wrong) + 3}

    at_desk(Desk(tmp_path, store=store), story)


def test_a_line_still_being_written_is_waited_for(tmp_path: Path, store: str) -> None:
    async def story(desk: Desk) -> None:
        line = desk.journal.sealed(PREDICTIONS, [call_line(call(10))])
        desk.journal.put(PREDICTIONS, line[:200])
        await desk.record()
        assert await calls(desk) == (0, 0)
        desk.journal.put(PREDICTIONS, line[200:])
        await desk.record()
        assert await calls(desk) == (0, 1)
        assert await met(desk) == {}

    at_desk(Desk(tmp_path, store=store), story)


def test_a_torn_line_is_counted_once_and_left(tmp_path: Path, store: str) -> None:
    async def story(desk: Desk) -> None:
        desk.journal.calls(call(10))
        desk.journal.put(PREDICTIONS, desk.journal.sealed(PREDICTIONS, [call_line(call(11))])[:-9])
        await desk.record()
        desk.journal.calls(call(12), writer=SUCCESSOR)
        await desk.record()
        desk.restart()
        await desk.record()
        assert await calls(desk) == (0, 2)
        assert await met(desk) == {"torn_lines": 1}

    at_desk(Desk(tmp_path, store=store), story)


def test_a_duplicate_row_is_counted_and_the_first_one_stays(tmp_path: Path, store: str) -> None:
    async def story(desk: Desk) -> None:
        desk.journal.calls(call(10), call(10, status=503), call(10, "b"))
        await desk.record()
        desk.journal.calls(call(10, status=503), writer=OTHER)
        await desk.record()
        assert await calls(desk) == (0, 1)
        assert await met(desk) == {"duplicate_rows": 2}

    at_desk(Desk(tmp_path, store=store), story)


def test_a_stream_counts_when_it_has_ended_and_can_be_found_before(tmp_path: Path, store: str) -> None:
    async def story(desk: Desk) -> None:
        desk.journal.opens(call(10, fault="incomplete"))
        desk.journal.events(event(10, 7, at=20))
        desk.journal.beat(5_000)
        ledger = await desk.record()
        assert await calls(desk) == (0, 0)
        assert ledger.feedback == {("k", "joined"): 1}
        assert ledger.tallies == {}
        found = await desk.store.prediction(call(10).id)
        assert found is not None
        assert [(c["fault"], c["open"]) for c in found["calls"]] == [("incomplete", True)]
        desk.journal.closes(call(10, prediction=7))
        ledger = await desk.record()
        assert await calls(desk) == (0, 1)
        assert sums(ledger) == {"a": (1.0, 1.0)}

    at_desk(Desk(tmp_path, metric(), store=store), story)


@pytest.mark.parametrize("end", ["successor", "next run", "bye"])
def test_a_stream_whose_writer_died_is_an_incomplete_answer(tmp_path: Path, store: str, end: str) -> None:
    async def story(desk: Desk) -> None:
        desk.journal.opens(call(10, fault="incomplete"))
        await desk.record()
        assert await calls(desk) == (0, 0)
        if end == "bye":
            desk.journal.bye(500)
        else:
            desk.journal.calls(writer=SUCCESSOR if end == "successor" else f"{NEXT_RUN}-00-{NEXT_RUN}")
        if end == "next run":
            await desk.record()
            assert await calls(desk) == (0, 0), "one that takes over while the other's workers drain ends none of them"
            desk.restart(run=NEXT_RUN)
        ledger = await desk.record()
        assert await calls(desk) == (1, 1)
        assert ledger.faults == {("a@1", "primary", "incomplete"): 1}
        desk.restart()
        await desk.record()
        assert await calls(desk) == (1, 1)

    at_desk(Desk(tmp_path, store=store), story)


def test_segments_are_deleted_when_finished_and_drained_and_read_by_the_follower(tmp_path: Path, store: str) -> None:
    async def story(desk: Desk) -> None:
        slow = Slow()
        desk.recorder = Recorder(desk.store, desk.journal.path, run=RUN, follower=slow)
        desk.journal.calls(call(10))
        desk.journal.roll()
        desk.journal.calls(call(11))
        await desk.record()
        assert len(list((desk.journal.path / PREDICTIONS).iterdir())) == 2
        slow.there = True
        await desk.record()
        assert list((desk.journal.path / PREDICTIONS).iterdir()) == [desk.journal.file()]
        desk.journal.bye(500)
        await desk.record()
        assert list((desk.journal.path / PREDICTIONS).iterdir()) == []
        await desk.record()
        async with desk.store.begin() as connection:
            assert (await connection.execute(text("SELECT count(*) FROM offsets"))).scalar() == 0
        assert await calls(desk) == (0, 2)

    at_desk(Desk(tmp_path, store=store), story)


def test_segments_of_one_writer_are_read_in_their_order(tmp_path: Path, store: str) -> None:
    async def story(desk: Desk) -> None:
        desk.journal.opens(*(call(n, fault="incomplete") for n in range(10)))
        desk.journal.roll()
        desk.journal.closes(*(call(n) for n in range(10)))
        await desk.record()
        assert await calls(desk) == (0, 10)
        assert await met(desk) == {}

    at_desk(Desk(tmp_path, lines=3, store=store), story)


def test_a_line_that_the_store_refuses_is_skipped_alone(tmp_path: Path, store: str) -> None:
    refuse = "ALTER TABLE calls ADD CHECK (key IS DISTINCT FROM 'cursed')"
    if store == "sqlite":
        refuse = """
            CREATE TRIGGER refuse BEFORE INSERT ON calls WHEN NEW.key = 'cursed'
            BEGIN SELECT RAISE(ABORT, 'no'); END
        """

    async def story(desk: Desk) -> None:
        async with desk.store.begin() as connection:
            await connection.execute(text(refuse))
        desk.journal.calls(*(call(n, key="cursed" if n == 17 else None) for n in range(30)))
        desk.journal.calls(*(call(n) for n in range(100, 110)), writer=OTHER)
        for _ in range(40):
            await desk.recorder.step()
        await desk.record()
        assert await calls(desk) == (0, 39)
        assert await met(desk) == {"unrecordable_lines": 1}

    at_desk(Desk(tmp_path, store=store), story)


def test_while_the_store_is_in_trouble_the_journal_keeps(tmp_path: Path, store: str) -> None:
    async def story(desk: Desk) -> None:
        desk.journal.calls(call(10))
        await desk.record()
        await desk.read_only(True)
        desk.journal.calls(call(11))
        with pytest.raises(DBAPIError):
            await desk.recorder.step()
        assert desk.recorder.lag()[1] == len(sealed(call_line(call(11)), 2))
        assert not await desk.recorder.drain(1)
        await desk.read_only(False)
        await desk.record()
        assert await calls(desk) == (0, 2)
        assert desk.recorder.lag() == (0.0, 0)

    at_desk(Desk(tmp_path, store=store), story)


def test_what_was_read_ahead_of_a_commit_that_fails_is_read_again(tmp_path: Path, store: str) -> None:
    async def story(desk: Desk) -> None:
        desk.journal.calls(*(call(n) for n in range(9)))
        change = desk.store.change

        @asynccontextmanager
        async def full() -> AsyncIterator[AsyncConnection]:
            async with change() as connection:
                yield connection
                raise OSError("no space left")

        for _ in range(3):
            desk.store.change = full  # type: ignore[method-assign]
            with pytest.raises(OSError, match="no space left"):
                await desk.recorder.step()
            desk.store.change = change  # type: ignore[method-assign]
            assert await desk.recorder.step()
        ledger = await desk.record()
        assert ledger.pooled("a", "primary", CALLS, "live").d == 9
        assert desk.met == {}

    at_desk(Desk(tmp_path, lines=2, store=store), story)


def test_refused_events_are_counted_as_rejected(tmp_path: Path, store: str) -> None:
    async def story(desk: Desk) -> None:
        desk.journal.write(PREDICTIONS, [mark_line("rejected", T0, events=3)])
        await desk.record()
        async with desk.store.begin() as connection:
            assert await tallies.feedback_total(connection) == {(UNKNOWN, UNKNOWN, "rejected"): 3}

    at_desk(Desk(tmp_path, store=store), story)


def test_an_idle_recorder_writes_nothing(tmp_path: Path) -> None:
    async def story(desk: Desk) -> None:
        desk.journal.calls(call(10))
        desk.journal.beat(20)
        await desk.record()
        wal = tmp_path / "turnout.db-wal"
        before = wal.stat().st_size
        for _ in range(5):
            assert not await desk.recorder.step()
        assert wal.stat().st_size == before

    at_desk(Desk(tmp_path), story)


def test_a_busy_writer_starves_no_other(tmp_path: Path, store: str) -> None:
    async def story(desk: Desk) -> None:
        desk.journal.calls(*(call(n) for n in range(500)))
        desk.journal.calls(call(1_000, "b"), writer=OTHER)
        for _ in range(3):
            await desk.recorder.step()
        assert (await desk.ledger()).pooled("b", "primary", CALLS, "live").d == 1

    at_desk(Desk(tmp_path, lines=10, store=store), story)


def test_a_recorder_that_has_read_all_it_may_at_once_does_not_think_it_has_caught_up(
    tmp_path: Path, store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lines are long: the bound of bytes is reached long before that of lines."""
    monkeypatch.setattr(drain, "CHUNK_BYTES", 1_000)

    async def story(desk: Desk) -> None:
        desk.journal.calls(*(call(n) for n in range(30)))
        desk.journal.calls(*(call(n) for n in range(30, 40)), writer=OTHER)
        steps = 1
        while await desk.recorder.step():
            steps += 1
        assert steps > 5
        assert desk.recorder.lag() == (0.0, 0)
        assert await calls(desk) == (0, 40)

    at_desk(Desk(tmp_path, store=store), story)


async def record_for_ever(path: Path, where: str) -> None:
    """What the killed process does."""
    store = await Store.open(where, path)
    recorder = Recorder(store, path / "journal", run=RUN, lines=100)
    recorder.adopt(snapshot(metric()), T0)
    sys.stdout.write("recording\n")
    sys.stdout.flush()
    await recorder.run(asyncio.Event())


if __name__ == "__main__":
    asyncio.run(record_for_ever(Path(sys.argv[1]), sys.argv[2]))
