"""The data directory may contain anything: an odd entry is reported and left alone, and no process hangs or dies."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from typer.testing import CliRunner

from gateway.bulk.event_columns import Columns
from gateway.bulk.formats import Source
from gateway.bulk.position import PositionFile
from gateway.cli.commands import app
from gateway.control.control import Control
from gateway.control.datagrams import listen
from gateway.control.membership import name_of
from gateway.control.record.drain import Segments
from gateway.control.record.tail import Tail
from gateway.control.record.verify import verify
from gateway.files.published import SnapshotFile
from gateway.journal.quarantine import Quarantine, UnreadableLine
from gateway.journal.reserve import RESERVE, Reserve, is_spent
from gateway.journal.rolling import Rolling, ask
from gateway.journal.segments import FEEDBACK, PREDICTIONS, next_run, next_writer, read_lines, segments, size_bytes
from gateway.process.premises import Unavailable, sole_processes, sole_supervisor
from gateway.store import Store, StoreError
from tests.gateway.control.builders import OTHER, RUN, WRITER, Desk, at_desk, call, event, metric, statuses
from tests.gateway.control.test_control import Watcher


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))


def _unreadable(path: Path) -> None:
    path.write_bytes(b"secret")
    path.chmod(0)


KINDS: Final[dict[str, Callable[[Path], Any]]] = {
    "directory": lambda path: path.mkdir(),
    "fifo": os.mkfifo,
    "loop": lambda path: path.symlink_to(path.name),
    "dangling": lambda path: path.symlink_to("nowhere"),
    "socket": _socket,
    "unreadable": _unreadable,
    "empty": lambda path: path.touch(),
    "garbage": lambda path: path.write_bytes(os.urandom(5_000)),
}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data directory with a short name, as sockets need."""
    monkeypatch.chdir(tmp_path)
    Path("d").mkdir()
    return Path("d")


@contextlib.contextmanager
def no_hanging(seconds: int = 20) -> Iterator[None]:
    def late(*_: object) -> None:
        raise AssertionError("it hangs")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _supervisor(data: Path) -> None:
    with sole_supervisor(data), sole_processes(data):
        pass


def _store(data: Path) -> None:
    async def run() -> None:
        await (await Store.open("sqlite", data)).close()

    asyncio.run(run())


def _listen(data: Path) -> None:
    async def run() -> None:
        (await listen(data / "metrics.sock", lambda _: None)).close()

    asyncio.run(run())


def _journal(data: Path) -> None:
    journal = data / "journal"
    next_run(journal, 1), next_writer(journal, RUN, 0, 1), size_bytes(journal), list(verify(journal))
    Tail(journal, lambda _: None)
    Segments(journal, {}).look(())


def _reserve(data: Path) -> None:
    reserve = Reserve(data / "journal")
    reserve.tend(4096, drained=True), reserve.spent, is_spent(data / "journal"), reserve.release(OSError(28, "full"))


def _import(data: Path) -> None:
    Path("labels.csv").write_text("prediction_id,metric,value\n")
    file = PositionFile(data, Source(Path("labels.csv"), "csv", Columns()))
    if (data / "imports").is_dir() and os.path.lexists(data / "imports" / "position.json"):
        os.replace(data / "imports" / "position.json", file._path)
    with file.held():
        file.read()


def _roll(data: Path) -> None:
    (data / "journal").mkdir(exist_ok=True)
    Rolling(data / "journal").wanted()
    ask(data / "journal")


#: Every name in the data directory, with the function that reads it.
READERS: Final[dict[str, Callable[[Path], Any]]] = {
    "snapshot.json": lambda data: SnapshotFile(data / "snapshot.json").read(),
    "turnout.db": _store,
    "turnout.db-wal": _store,
    "turnout.db-shm": _store,
    "turnout.db.lock": _store,
    "node": name_of,
    "supervisor.pid": _supervisor,
    "processes.lock": _supervisor,
    "metrics.sock": _listen,
    "imports": _import,
    "imports/position.json": _import,
    "journal": _journal,
    "journal/predictions": _journal,
    "journal/feedback": _journal,
    "journal/roll": _roll,
    f"journal/{RESERVE}": _reserve,
    "quarantine.jsonl": lambda data: Quarantine(data / "quarantine.jsonl").keep([UnreadableLine("s", 0, b"x")]),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", READERS)
def test_whatever_lies_where_a_file_should_is_named(here: Path, name: str, kind: str) -> None:
    (here / name).parent.mkdir(exist_ok=True)
    KINDS[kind](here / name)
    with no_hanging():
        try:
            READERS[name](here)
        except (OSError, ValueError, StoreError, Unavailable) as error:
            said = f"{error} {getattr(error, 'filename', '')}"
            # The reader says what is wrong with the content of a file, and its caller names the file.
            assert Path(name).name.split(".")[0] in said or kind in {"empty", "garbage", "unreadable"}


def test_whatever_is_named_like_a_segment_stops_no_recording(tmp_path: Path) -> None:
    async def story(desk: Desk) -> None:
        names = set()
        for folder in (PREDICTIONS, FEEDBACK):
            (desk.journal.path / folder).mkdir(parents=True)
            for number, kind in enumerate(KINDS):
                name = f"{RUN}-05-{number:012x}-000000.jsonl"
                with contextlib.chdir(desk.journal.path / folder):  # a socket's name is short
                    KINDS[kind](Path(name))
                names |= {f"{folder}/{name}"} if kind in {"directory", "fifo", "loop", "socket"} else set()
        desk.journal.calls(call(1))
        desk.journal.calls(call(2), writer=OTHER)
        desk.journal.events(event(1, 1, 5))
        assert statuses(await desk.record()) == {"joined": 1}
        assert desk.recorder.refused >= len(names)
        assert desk.recorder.lag() is not None
        told: list[str] = []
        tail = Tail(desk.journal.path, lambda calls: told.extend(one.id for one in calls))
        tail._offsets.clear()
        await tail.step(at_once=True)
        assert {call(1).id, call(2).id} <= set(told)
        assert names <= {one.segment for one in verify(desk.journal.path) if one.refused}
        for name in names:
            assert os.path.lexists(desk.journal.path / name), "left alone"

    with no_hanging(60):
        at_desk(Desk(tmp_path, metric(window_ms=50)), story)


def test_a_segment_that_turns_into_a_fifo_hangs_nobody(tmp_path: Path) -> None:
    async def story(desk: Desk) -> None:
        desk.journal.calls(call(1))
        await desk.record()
        found = segments(desk.journal.path / PREDICTIONS)
        path = found[0].path
        desk.journal.calls(call(2))
        path.unlink()
        os.mkfifo(path)
        desk.journal.calls(call(3), writer=OTHER)
        await desk.record()
        assert await desk.store.prediction(call(3).id) is not None
        assert WRITER in path.name

    with no_hanging():
        at_desk(Desk(tmp_path), story)


def test_a_segment_that_cannot_be_read_is_read_once_it_can(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(desk: Desk) -> None:
        desk.journal.calls(call(1))
        desk.journal.calls(call(2), writer=OTHER)
        real = read_lines

        def failing(path: Path, *more: Any) -> Any:
            if WRITER in path.name:
                raise PermissionError(13, "Permission denied", str(path))
            return real(path, *more)

        monkeypatch.setattr("gateway.control.record.drain.read_lines", failing)
        await desk.record()
        assert (desk.recorder.refused, await desk.store.prediction(call(1).id)) == (1, None)
        assert await desk.store.prediction(call(2).id) is not None
        monkeypatch.setattr("gateway.control.record.drain.read_lines", real)
        await desk.record()
        assert (desk.recorder.refused, bool(await desk.store.prediction(call(1).id))) == (0, True)

    at_desk(Desk(tmp_path), story)


CONFIG = """
[gateway]
data_dir = "{data}"
[backends.a]
version = "1"
url = "http://127.0.0.1:9"
[routes.r]
path = "/r"
policy = {{ kind = "single", variant = "a" }}
"""


@pytest.mark.parametrize("kind", ["directory", "fifo", "loop", "garbage"])
def test_a_snapshot_that_turns_into_something_else_ends_no_controller(tmp_path: Path, kind: str) -> None:
    (tmp_path / "turnout.toml").write_text(CONFIG.format(data=tmp_path))
    control = Control(tmp_path / "turnout.toml", tmp_path, Watcher())
    (tmp_path / "snapshot.json").unlink()
    KINDS[kind](tmp_path / "snapshot.json")

    async def run() -> None:
        planning = asyncio.create_task(control.in_force.keep_deciding())
        await asyncio.sleep(1.2)
        assert not planning.done()
        planning.cancel()

    with no_hanging():
        asyncio.run(run())
        with contextlib.suppress(ValueError):
            SnapshotFile(tmp_path / "snapshot.json").read()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["snapshot.json", "supervisor.pid", "assignment.key"])
def test_no_command_hangs_or_breaks_on_what_lies_there(here: Path, name: str, kind: str) -> None:
    KINDS[kind](here / name)
    file = Path("turnout.toml")
    file.write_text(f"""
schema_version = 1
[gateway]
data_dir = "{here}"
[backends.a]
url = "http://127.0.0.1:9"
version = "1"
[routes.r]
path = "/r"
unit = "header:x-u"
policy = {{ kind = "single", variant = "a" }}
""")
    for command in (["explain", "r", "--unit", "u"], ["assignment", "status"], ["assignment", "rotate"]):
        with no_hanging():
            said = CliRunner().invoke(app, [*command, "-c", str(file)])
        assert said.exit_code in (0, 1)
        assert said.exception is None or isinstance(said.exception, SystemExit)
