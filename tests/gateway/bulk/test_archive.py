"""A restored backup reports the same, has what was acknowledged before its moment, and replaces nothing."""

from __future__ import annotations

import asyncio
import io
import os
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.bulk.archive import BackupError, back_up, restore
from gateway.files import assignment_key
from gateway.journal.segments import JOURNAL
from gateway.store.counts.ledger import Ledger
from tests.gateway.cli.running import turnout
from tests.gateway.control.builders import Desk, at_desk, call, comparable, event, metric, statuses

K = metric(window_ms=50)


def content(ledger: Ledger) -> object:
    return comparable(ledger.tallies), statuses(ledger), ledger.stretches


def busy(desk: Desk, numbers: range) -> None:
    for number in numbers:
        desk.journal.calls(call(number, "ab"[number % 2], unit=f"u{number % 7}", prediction={"a": "\t\\N\n"}))
        desk.journal.events(event(number, 1, number + 1))


def test_a_restored_copy_reports_the_same(tmp_path: Path, new_store: Callable[[], str]) -> None:
    here, there = new_store(), new_store()
    first, second = tmp_path / "first", tmp_path / "second"
    file = tmp_path / "backup.tar"

    async def story(desk: Desk) -> Ledger:
        assignment_key.keep(first, "k" * 40)
        busy(desk, range(60))
        desk.journal.beat(30)
        before = await desk.record()
        busy(desk, range(60, 70))  # which is in the journal alone
        held = await asyncio.to_thread(back_up, here, None, first, file)
        assert (held.keys, held.segments) == (("assignment.key",), 2)
        assert content(await desk.ledger()) == content(before), "making it changed nothing"
        return before

    before = at_desk(Desk(first, K, store=here), story)
    assert file.stat().st_mode & 0o777 == 0o600
    assert not [path for path in (*first.iterdir(), *tmp_path.iterdir()) if path.name.startswith(".backup")]
    asyncio.run(restore(there, None, second, file))
    assert assignment_key.kept_in(second) == "k" * 40

    async def again(desk: Desk) -> None:
        assert content(await desk.ledger()) == content(before)
        await desk.record()
        assert await desk.store.prediction(call(65).id) is not None, "what the journal held is recorded"
        assert statuses(await desk.ledger()) == {"joined": 70}
        busy(desk, range(70, 75))  # and numbers of rows go on
        await desk.record()
        assert statuses(await desk.ledger()) == {"joined": 75}

    at_desk(Desk(second, K, store=there), again)


def test_what_is_journaled_while_a_backup_is_made_is_in_it_once(tmp_path: Path) -> None:
    """Segments are begun, drained and deleted meanwhile: no line is missing from both store and journal."""

    async def story(desk: Desk) -> list[tuple[int, Path]]:
        made: list[tuple[int, Path]] = []
        written = 0
        for number in range(6):
            file = tmp_path / f"{number}.tar"
            known = written
            backing_up = asyncio.create_task(asyncio.to_thread(back_up, "sqlite", None, tmp_path / "d", file))
            while not backing_up.done():
                busy(desk, range(written, written + 5))
                written += 5
                desk.journal.roll()
                await desk.recorder.step()
                await asyncio.sleep(0)
            await backing_up
            made.append((known, file))
        return made

    for number, (known, file) in enumerate(at_desk(Desk(tmp_path / "d", K), story)):
        copy = tmp_path / f"copy{number}"
        asyncio.run(restore("sqlite", None, copy, file))

        async def whole(desk: Desk, known: int = known) -> None:
            await desk.record()
            for one in range(known):
                assert await desk.store.prediction(call(one).id) is not None
            counts = statuses(await desk.ledger())
            assert set(counts) <= {"joined"}
            assert counts.get("joined", 0) >= known

        at_desk(Desk(copy, K), whole)


def a_backup(tmp_path: Path) -> Path:
    async def story(desk: Desk) -> None:
        busy(desk, range(3))
        await desk.record()

    at_desk(Desk(tmp_path / "d", K), story)
    back_up("sqlite", None, tmp_path / "d", tmp_path / "b.tar")
    return tmp_path / "b.tar"


def test_nothing_is_restored_over_anything(tmp_path: Path) -> None:
    file = a_backup(tmp_path)
    with pytest.raises(BackupError, match="exists: restore into a data directory that is empty"):
        asyncio.run(restore("sqlite", None, tmp_path / "d", file))
    asyncio.run(restore("sqlite", None, tmp_path / "e", file))
    with pytest.raises(BackupError, match="exists: restore"):
        asyncio.run(restore("sqlite", None, tmp_path / "e", file))


def test_a_store_that_holds_rows_is_not_filled(tmp_path: Path, postgresql_url: str) -> None:
    async def story(desk: Desk) -> None:
        busy(desk, range(3))
        await desk.record()

    at_desk(Desk(tmp_path / "d", K, store=postgresql_url), story)
    back_up(postgresql_url, None, tmp_path / "d", tmp_path / "b.tar")
    with pytest.raises(BackupError, match="holds rows"):
        asyncio.run(restore(postgresql_url, None, tmp_path / "e", tmp_path / "b.tar"))
    with pytest.raises(BackupError, match="a backup of a store in postgresql"):
        asyncio.run(restore("sqlite", None, tmp_path / "e", tmp_path / "b.tar"))


@pytest.mark.parametrize("damage", ["cut", "flipped", "foreign", "nothing"])
def test_what_is_not_all_of_a_backup_is_refused(tmp_path: Path, damage: str) -> None:
    file = a_backup(tmp_path)
    content = bytearray(file.read_bytes())
    if damage == "cut":
        content = content[: len(content) * 3 // 4]
    elif damage == "flipped":
        content[len(content) // 2] ^= 1
    elif damage == "foreign":
        (tmp_path / "x").write_text("x")
        with tarfile.open(file, "w") as archive:
            archive.add(tmp_path / "x", "data/../../x.key")
        content = bytearray(file.read_bytes())
    else:
        content = bytearray(b"a shopping list\n" * 100)
    file.write_bytes(content)
    with pytest.raises(BackupError, match=r"b\.tar"):
        asyncio.run(restore("sqlite", None, tmp_path / "e", file))
    assert not (tmp_path / "e" / "turnout.db").exists()
    assert not (tmp_path / "e" / JOURNAL).exists()


@pytest.mark.parametrize(
    "manifest",
    [
        b"{}",
        b"[" * 100_000,
        b"\xff",
        b'{"digests": {}, "format": 1}',
        b'{"digests": {}, "format": 1, "schema": "x"}',
        b'{"digests": {}, "format": 1, "schema": 1, "store": "sqlite", "program": "1", "made_ms": 3}',
    ],
)
def test_what_is_no_backup_is_refused_before_anything_is_written(tmp_path: Path, manifest: bytes) -> None:
    made, data_dir = tmp_path / "made.tar", tmp_path / "data"
    with tarfile.open(made, "w:") as archive:
        member = tarfile.TarInfo("manifest.json")
        member.size = len(manifest)
        archive.addfile(member, io.BytesIO(manifest))
    with pytest.raises(BackupError):
        asyncio.run(restore("sqlite", None, data_dir, made))
    assert [path.name for path in data_dir.iterdir()] == ["supervisor.pid"]


def test_a_backup_that_fails_leaves_nothing(tmp_path: Path) -> None:
    a_backup(tmp_path)
    (tmp_path / "b.tar").unlink()
    (tmp_path / "d" / "turnout.db").write_bytes(b"no database" * 1_000)
    with pytest.raises(Exception, match="not a database"):
        back_up("sqlite", None, tmp_path / "d", tmp_path / "b.tar")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["d"]
    assert not [path for path in (tmp_path / "d").iterdir() if path.name.startswith(".backup")]


def test_a_backup_started_in_another_directory_says_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(BackupError, match=r"no data directory .*starts where turnout is started"):
        back_up("sqlite", None, tmp_path / "nowhere", tmp_path / "b.tar")
    with pytest.raises(BackupError, match=r"there is no directory .*nowhere"):
        back_up("sqlite", None, tmp_path, tmp_path / "nowhere" / "b.tar")


def test_what_a_killed_backup_left_goes_with_the_next_one_a_day_later(tmp_path: Path) -> None:
    """Its links keep the disk space of segments that were drained long ago."""
    a_backup(tmp_path)
    for name, seconds_ago in ((".backup-old", 90_000), (".backup-young", 60)):
        (tmp_path / "d" / name).mkdir()
        os.utime(tmp_path / "d" / name, (time.time() - seconds_ago,) * 2)
    back_up("sqlite", None, tmp_path / "d", tmp_path / "c.tar")
    assert [path.name for path in (tmp_path / "d").glob(".backup-*")] == [".backup-young"]


def test_the_commands_say_what_they_did(tmp_path: Path) -> None:
    file = a_backup(tmp_path)
    os.unlink(file)
    config = 'schema_version = 1\n[gateway]\ndata_dir = "{}"\n[backends.a]\nversion = "1"\nurl = "http://127.0.0.1:9"\n'
    config += '[routes.r]\npath = "/r"\npolicy = {{ kind = "single", variant = "a" }}\n'
    (tmp_path / "one.toml").write_text(config.format(tmp_path / "d"))
    (tmp_path / "two.toml").write_text(config.format(tmp_path / "e"))
    made = turnout("backup", "b.tar", "-c", "one.toml", cwd=tmp_path)
    assert (made.returncode, "journal segments" in made.stdout) == (0, True), made.stderr
    put = turnout("restore", "b.tar", "-c", "two.toml", cwd=tmp_path)
    assert (put.returncode, "restored" in put.stdout) == (0, True), put.stderr
    again = turnout("restore", "b.tar", "-c", "two.toml", cwd=tmp_path)
    assert again.returncode == 1
    assert "nothing was restored" in again.stderr
