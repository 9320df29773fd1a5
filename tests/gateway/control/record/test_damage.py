"""A damaged journal: whole lines are read, damaged ones counted and put into quarantine, and nothing is fatal."""

from __future__ import annotations

from pathlib import Path

import orjson

from gateway.control.record.drain import Read, Segments
from gateway.control.record.lines import Batch
from gateway.journal.quarantine import QUARANTINE, Quarantine, UnreadableLine
from gateway.journal.seal import header, sealed
from gateway.journal.segments import PREDICTIONS, read_lines, segments
from gateway.store.counts import tallies
from gateway.store.counts.ledger import CALLS
from tests.gateway.control.builders import OTHER, RUN, T0, WRITER, Desk, Journal, at_desk, call
from tests.router.journal_lines import call_line

SUCCESSOR = f"{RUN}-00-{T0 + 1_000:012x}"


def numbers(batch: Batch) -> list[int]:
    """Which calls were read, each of them exactly as it was written."""
    found = [int(one.row.id[-4:], 16) for one in batch.calls]
    assert [one.row.at_ms for one in batch.calls] == [T0 + number for number in found]
    return found


def read(journal: Path) -> Read:
    """Everything in a journal whose writers are dead."""
    found = Segments(journal, {})
    found.look({WRITER})
    found.look({WRITER})
    read = found.read(10_000)
    found.recorded(read.offsets, read.numbers)
    end = found.read(10_000)  # a torn end is seen when nothing follows any more
    read.batch.torn += end.batch.torn
    read.offsets |= end.offsets
    return read


def changed(content: bytes, bit: int) -> bytes:
    at, mask = bit // 8, 1 << bit % 8
    return content[:at] + bytes([content[at] ^ mask]) + content[at + 1 :]


async def calls(desk: Desk) -> float:
    return (await desk.ledger()).pooled("a", "primary", CALLS, "live").d


async def met(desk: Desk) -> dict[str, int]:
    async with desk.store.begin() as connection:
        return dict(await tallies.counted(connection))


def test_cut_at_every_byte_of_its_last_kilobyte_it_gives_every_whole_record(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.calls(*(call(n) for n in range(10)))
    path = journal.file()
    whole = path.read_bytes()
    for size in range(len(whole), len(whole) - 1_024, -1):
        path.write_bytes(whole[:size])
        left = whole[:size].count(b"\n") - 1
        found = read(tmp_path)
        assert numbers(found.batch) == list(range(left))
        assert (found.batch.torn, found.batch.corrupt) == (int(whole[size - 1 : size] != b"\n"), 0)
        assert list(found.offsets.values()) == [size]


def test_no_changed_bit_loses_or_changes_another_record_than_its_own(tmp_path: Path) -> None:
    """Every bit of the segment in its turn, newlines, numbers and the header included."""
    journal = Journal(tmp_path)
    journal.calls(*(call(n) for n in range(4)))
    lines = journal.file().read_bytes().splitlines(keepends=True)
    first = 0
    for hit, line in enumerate(lines):
        for bit in range(8 * first, 8 * (first + len(line))):
            content = changed(b"".join(lines), bit)
            batch = Batch()
            batch.read(content.split(b"\n")[:-1], WRITER, 0)
            kept = numbers(batch)
            assert kept in (list(range(4)), [n for n in range(4) if n + 1 != hit]), f"bit {bit}"
            if 1 <= hit <= 3:  # the header is no record, and after the last line none is missed
                assert batch.lost == 4 - len(kept)
        first += len(line)


def test_a_short_write_in_the_middle_costs_the_line_that_was_cut(tmp_path: Path) -> None:
    async def story(desk: Desk) -> None:
        desk.journal.calls(call(1))
        torn = desk.journal.sealed(PREDICTIONS, [call_line(call(2))])[:100]
        desk.journal.put(PREDICTIONS, torn)
        desk.journal.calls(call(3))
        await desk.record()
        assert await calls(desk) == 2
        assert await met(desk) == {"torn_lines": 1, "lost_lines": 1}
        [kept] = (desk.path / QUARANTINE).read_text().splitlines()
        assert orjson.loads(kept)["text"].encode("latin-1") == torn

    at_desk(Desk(tmp_path), story)


def test_missing_lines_are_counted_also_over_segments_and_restarts(tmp_path: Path) -> None:
    async def story(desk: Desk) -> None:
        desk.journal.calls(call(1))
        desk.journal.sealed(PREDICTIONS, [call_line(call(n)) for n in range(2, 10)])
        desk.journal.calls(call(10))
        await desk.record()
        assert await met(desk) == {"lost_lines": 8}
        desk.restart()
        desk.journal.roll()
        desk.journal.sealed(PREDICTIONS, [call_line(call(11))])  # with the header
        desk.journal.calls(call(12))
        await desk.record()
        assert await calls(desk) == 3
        assert await met(desk) == {"lost_lines": 10}

    at_desk(Desk(tmp_path), story)


def test_a_number_that_is_used_again_is_no_loss(tmp_path: Path) -> None:
    """A segment whose last write could not be taken back is finished, and the lines are written again in the next."""
    journal = Journal(tmp_path)
    journal.calls(call(1), call(2))
    journal.number[PREDICTIONS, WRITER] -= 1
    journal.roll()
    journal.calls(call(3))
    found = read(tmp_path).batch
    assert (numbers(found), found.lost) == ([1, 2, 3], 0)


def test_an_unknown_format_is_left_alone_and_stops_no_other_segment(tmp_path: Path) -> None:
    async def story(desk: Desk) -> None:
        later = header(WRITER).replace(b'"format":1', b'"format":2')
        desk.journal.put(PREDICTIONS, sealed(later, 0) + sealed(call_line(call(1)), 1))
        strange = desk.journal.file()
        desk.journal.calls(call(2), writer=OTHER)
        desk.journal.calls(call(3), writer=SUCCESSOR)
        await desk.record()
        assert await calls(desk) == 2
        assert desk.recorder.refused == 1
        assert desk.recorder.lag() == (0.0, 0)
        assert strange.exists()
        assert await met(desk) == {}

    at_desk(Desk(tmp_path), story)


def test_what_was_wrong_is_reported_once_it_is_recorded(tmp_path: Path) -> None:
    async def story(desk: Desk) -> None:
        desk.journal.calls(call(1))
        desk.journal.put(PREDICTIONS, b"nonsense\n")
        desk.journal.write(PREDICTIONS, [b'{"line":"dance"}\n'])
        await desk.record()
        assert desk.met == {"corrupt_lines": 2}

    at_desk(Desk(tmp_path), story)


def test_what_is_read_again_is_kept_aside_once(tmp_path: Path) -> None:
    quarantine = Quarantine(tmp_path / QUARANTINE)
    found = [UnreadableLine("predictions/x", 5, b"\x00\xff"), UnreadableLine("predictions/x", 9, b"more")]
    quarantine.keep(found)
    quarantine.keep(found)
    assert [orjson.loads(line) for line in (tmp_path / QUARANTINE).read_bytes().splitlines()] == [
        {"segment": "predictions/x", "offset": 5, "text": "\x00\xff"},
        {"segment": "predictions/x", "offset": 9, "text": "more"},
    ]


def test_what_is_kept_aside_is_bounded_and_a_disk_that_refuses_it_is_not_fatal(tmp_path: Path) -> None:
    quarantine = Quarantine(tmp_path / QUARANTINE, 500)
    quarantine.keep(UnreadableLine("predictions/x", n, b"x" * 50) for n in range(100))
    assert 400 < (tmp_path / QUARANTINE).stat().st_size <= 500
    Quarantine(tmp_path / "nowhere" / QUARANTINE).keep([UnreadableLine("predictions/x", 1, b"x")])


def test_where_in_its_segment_an_unreadable_line_stands_is_kept(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.calls(call(1), call(2))
    journal.put(PREDICTIONS, b"nonsense\n")
    [segment] = segments(tmp_path / PREDICTIONS)
    _, end = read_lines(segment.path, 0, 2**20)
    assert read(tmp_path).unreadable == [UnreadableLine(f"predictions/{segment.path.name}", end - 9, b"nonsense")]
