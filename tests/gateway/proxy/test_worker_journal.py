"""A worker that cannot log predictions sheds or refuses, as the operator configured, and counts."""

from __future__ import annotations

import asyncio
import errno
import os
from pathlib import Path

import pytest

from gateway.journal.reserve import RESERVE
from gateway.journal.segments import PREDICTIONS, segments
from gateway.proxy.log.predictions import Pending
from router.snapshot import Gateway, Snapshot
from tests.gateway.proxy.builders import backend, only, route, snapshot
from tests.gateway.proxy.stage import Asked, Model, play, staged

#: Room for more than one row and less than three.
SMALL = 600


async def seven(asked: Asked) -> None:
    await asked.answer({"p": 7})


def cast(model: Model, policy: str, size: int = SMALL) -> Snapshot:
    gateway = Gateway(max_journal_bytes=size, journal_full=policy)  # type: ignore[arg-type]
    return snapshot(gateway, backend("a", model.url), route("r", only("a")))


def test_a_full_journal_sheds(tmp_path: Path) -> None:
    """Every request is answered; what is not logged is counted."""

    async def main() -> None:
        async with Model(seven) as model, staged(tmp_path, cast(model, "shed")) as stage:
            got = [await stage.ask("/r") for _ in range(10)]
        assert {answer.status for answer in got} == {200}
        assert all(answer.id for answer in got)
        assert 1 <= len(stage.rows()) < 4
        assert stage.counters == {("journal_shed",): 10 - len(stage.rows())}

    play(main())


def test_a_full_journal_refuses_before_anything_is_called(tmp_path: Path) -> None:
    async def main() -> None:
        async with Model(seven) as model, staged(tmp_path, cast(model, "refuse")) as stage:
            got = [await stage.ask("/r") for _ in range(10)]
        answered = [answer for answer in got if answer.status == 200]
        refused = [answer for answer in got if answer.status == 503]
        assert len(answered) + len(refused) == 10
        assert len(answered) == len(model.asked) == len(stage.rows()) < 4
        assert all("retry-after" in answer.headers for answer in refused)
        assert not any("turnout-prediction-id" in answer.headers for answer in refused)
        assert stage.counters == {("journal_refused",): len(refused)}

    play(main())


def test_requests_under_way_when_the_journal_fills_up_are_logged_where_unlogged_ones_are_refused(
    tmp_path: Path,
) -> None:
    async def slow(asked: Asked) -> None:
        await asyncio.sleep(0.1)
        await asked.answer()

    async def main() -> None:
        async with Model(slow) as model, staged(tmp_path, cast(model, "refuse")) as stage:
            got = await asyncio.gather(*(stage.ask("/r") for _ in range(10)))
        assert {answer.status for answer in got} == {200}
        assert {answer.id for answer in got} == {row["id"] for row in stage.rows()}

    play(main())


@pytest.mark.parametrize("policy", ["shed", "refuse"])
def test_a_journal_that_is_drained_takes_rows_again(tmp_path: Path, policy: str) -> None:
    """When full, the present segment is finished, so that the controller may delete it."""

    async def main() -> None:
        async with Model(seven) as model, staged(tmp_path, cast(model, policy)) as stage:
            for _ in range(10):
                await stage.ask("/r")
            directory = tmp_path / "journal" / PREDICTIONS
            await stage.eventually(lambda: segments(directory)[-1].size == 0)
            for segment in segments(directory)[:-1]:
                segment.path.unlink()
            await stage.eventually(stage.beats)
            got = await stage.ask("/r")
            assert (got.status, stage.rows()[-1]["id"]) == (200, got.id)

    play(main())


@pytest.mark.parametrize("policy", ["shed", "refuse"])
def test_a_broken_disk_is_like_a_full_journal_and_heals_by_itself(tmp_path: Path, policy: str) -> None:
    """A file is in the place of the journal's directory, until it is removed."""
    (tmp_path / "journal").write_bytes(b"")

    async def main() -> None:
        async with Model(seven) as model, staged(tmp_path, cast(model, policy, 2**20)) as stage:
            got = await stage.ask("/r")
            assert got.status == (200 if policy == "shed" else 503)
            assert len(model.asked) == (policy == "shed")
            (tmp_path / "journal").unlink()
            for kind in ("predictions", "feedback"):
                (tmp_path / "journal" / kind).mkdir(parents=True)
            await stage.eventually(stage.beats)
            got = await stage.ask("/r")
            assert (got.status, [row["id"] for row in stage.rows()]) == (200, [got.id])
        assert stage.counters == {("journal_shed",) if policy == "shed" else ("journal_refused",): 1}

    play(main())


@pytest.mark.parametrize("policy", ["shed", "refuse"])
@pytest.mark.parametrize("reason", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
def test_a_disk_that_takes_nothing_costs_exactly_what_is_counted_and_heals_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, policy: str, reason: int
) -> None:
    """The disk is full, or mounted read-only, for a while."""
    write = os.write

    def refused(fd: int, data: bytes) -> int:
        raise OSError(reason, os.strerror(reason))

    async def main() -> None:
        async with Model(seven) as model, staged(tmp_path, cast(model, policy, 2**30)) as stage:
            got = [await stage.ask("/r") for _ in range(3)]
            monkeypatch.setattr(os, "write", refused)
            got += [await stage.ask("/r") for _ in range(5)]
            monkeypatch.setattr(os, "write", write)
            beats = len(stage.beats())
            await stage.eventually(lambda: len(stage.beats()) > beats)
            got += [await stage.ask("/r") for _ in range(3)]
            statuses = [answer.status for answer in got]
            assert statuses == [200] * 3 + [200 if policy == "shed" else 503] * 5 + [200] * 3
            assert [row["id"] for row in stage.rows()] == [got[n].id for n in (0, 1, 2, 8, 9, 10)]
            # One backend was called before it turned out that the row could not be written.
            assert len(model.asked) == (11 if policy == "shed" else 7)
        assert stage.counters == {("journal_shed",) if policy == "shed" else ("journal_refused",): 5}

    play(main())


@pytest.mark.parametrize("policy", ["shed", "refuse"])
def test_what_is_left_on_a_full_disk_is_the_controllers_until_it_has_drained_the_journal(
    tmp_path: Path, policy: str
) -> None:
    async def main() -> None:
        async with Model(seven) as model, staged(tmp_path, cast(model, policy, 2**30)) as stage:
            first = await stage.ask("/r")
            reserve = tmp_path / "journal" / RESERVE
            reserve.touch()
            directory = tmp_path / "journal" / PREDICTIONS
            await stage.eventually(lambda: segments(directory)[-1].size == 0)
            second = await stage.ask("/r")
            assert second.status == (200 if policy == "shed" else 503)
            reserve.write_bytes(b"room")
            await stage.eventually(lambda: segments(directory)[-1].size)
            third = await stage.ask("/r")
            assert [row["id"] for row in stage.rows()] == [first.id, third.id]
        assert stage.counters[("journal_shed",) if policy == "shed" else ("journal_refused",)] >= 1

    play(main())


def test_where_unlogged_answers_are_refused_a_disk_that_breaks_meanwhile_costs_the_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The call was made, but the client gets nothing of it: neither the answer nor an id without a row."""

    def write(fd: int, data: bytes) -> int:
        raise OSError(errno.EIO, "Input/output error")

    async def breaking(asked: Asked) -> None:
        monkeypatch.setattr(os, "write", write)
        await asked.answer({"p": 7})

    async def main() -> None:
        async with Model(breaking) as model, staged(tmp_path, cast(model, "refuse", 2**20)) as stage:
            got = await stage.ask("/r")
            monkeypatch.undo()
            assert (got.status, "turnout-prediction-id" in got.headers) == (503, False)
            assert (len(model.asked), stage.rows()) == (1, [])
        assert stage.counters == {("journal_refused",): 1}

    play(main())


def test_predictions_that_could_not_be_synced_are_counted_and_their_segment_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A later sync that succeeds would not report what the failed one lost."""

    def failing(fd: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    async def main() -> None:
        async with Model(seven) as model:
            given = snapshot(Gateway(journal_fsync_ms=10), backend("a", model.url), route("r", only("a")))
            async with staged(tmp_path, given) as stage:
                await stage.ask("/r")
                with monkeypatch.context() as broken:
                    broken.setattr(os, "fdatasync", failing)
                    await stage.eventually(lambda: stage.counted().get(("journal_fsync_failures",)))
                await stage.ask("/r")
            assert len(segments(tmp_path / "journal" / PREDICTIONS)) >= 2
            assert len(stage.rows()) == 2

    play(main())


def test_the_watermark_is_the_oldest_arrival_that_is_not_in_the_journal() -> None:
    pending = Pending()
    assert pending.watermark_ms(100) == 100
    first, second = pending.begin(50), pending.begin(40)  # the clock stepped back in between
    assert pending.watermark_ms(100) == 40
    pending.end(second)
    assert pending.watermark_ms(100) == 50
    pending.end(first)
    pending.end(first)
    assert pending.watermark_ms(100) == 100
    assert len(pending) == 0


def test_a_stream_that_was_opened_is_closed_though_the_journal_is_full_by_then(tmp_path: Path) -> None:
    """Without its close row, a variant that answered well would count as incomplete."""

    async def stepwise(asked: Asked) -> None:
        await asked.start()
        await asked.chunk(b"some")
        await asyncio.sleep(0.1)
        asked.writer.write(b"0\r\n\r\n")

    async def main() -> None:
        async with Model(stepwise) as model, staged(tmp_path, cast(model, "shed")) as stage:
            await asyncio.gather(*(stage.ask("/r") for _ in range(10)))
        opened, closed = stage.rows("open"), stage.rows("close")
        assert 1 <= len(opened) < 4
        assert {row["id"] for row in opened} == {row["id"] for row in closed}
        assert stage.counters == {("journal_shed",): 10 - len(opened)}

    play(main())
