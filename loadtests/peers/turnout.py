"""Turnout, with everything on: split by user, mirror, prediction read from the answer, journal, controller, store.

Rule: a black box: started by its command, asked through its ports, and what it recorded is read in its data directory.
The worker has the gateway's core to itself; the controller may run anywhere, because that is how it is deployed: it
takes what the worker leaves, also of the load's core.
"""

from __future__ import annotations

import contextlib
import sqlite3
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import httpx

from gateway.demo.processes import free_ports
from gateway.store.store import FILE
from loadtests.machine import GATEWAY_CORE, LOAD_CORE, children, pin
from loadtests.peers.peer import Gateway, Job, Peer, scratch
from loadtests.processes import listening, running, until
from loadtests.request import PATH

SOURCES: Final = Path(__file__).parents[2]

#: The interpreter with the Turnout that ``pip install .`` compiled; if that could not be built, this interpreter is
#: used.
FAST: Final = SOURCES / ".venv-fast" / "bin" / "python"
PYTHON: Final = FAST if FAST.with_name("turnout").exists() else Path(sys.executable)

#: How long the controller may need to record the rows that a round left in the journal.
_SETTLE_SECONDS: Final = 600.0

CONFIG: Final = """
schema_version = 1
[gateway]
listen = "127.0.0.1:{listen}"
admin = "127.0.0.1:{admin}"
data_dir = "{data_dir}"
workers = {workers}

{rest}
"""

_ROUTE: Final = """
[metrics]
correct = {{ kind = "label" }}
click = {{ kind = "event" }}

[routes.infer]
path = "{path}"
unit = "header:x-user-id"
metrics = [{metrics}]
{policy}
"""

_AB: Final = 'baseline = "one"\npolicy = { kind = "ab", shares = { one = 0.5, two = 0.5 } }'
_SINGLE: Final = 'policy = { kind = "single", variant = "one" }'


def config(job: Job) -> str:
    """Return the part of the configuration that says what to do, without where to listen."""
    names = dict(zip(("one", "two"), job.variants, strict=False))
    if job.mirror is not None:
        names["copy"] = job.mirror
    mirrors = f'mirrors = [{{ variant = "copy", share = {job.mirror_share} }}]\n' if job.mirror is not None else ""
    policy = _AB if len(job.variants) == 2 else _SINGLE
    return backends(names) + route(f'prediction = "/outputs/0/data/0"\n{mirrors}{policy}')


def route(policy: str, *, metrics: str = '"correct"') -> str:
    """Return the tables of the one route and of its metrics."""
    return _ROUTE.format(path=PATH, metrics=metrics, policy=policy)


def backends(ports: Mapping[str, int], *, max_concurrency: int = 4096) -> str:
    """Return the table of backends; by default their concurrency is no limit."""
    lines = [
        f'{name} = {{ url = "http://127.0.0.1:{port}", version = "1", max_concurrency = {max_concurrency} }}'
        for name, port in ports.items()
    ]
    return "\n".join(["[backends]", *lines, ""])


@contextmanager
def serving(
    rest: str, directory: Path, *, workers: int = 1, python: Path = PYTHON, interpreted: bool = False
) -> Iterator[Gateway]:
    """Start the Turnout that is installed for an interpreter, with a configuration.

    With ``interpreted``, the same interpreter runs the source tree instead.
    """
    listen, admin = free_ports(2)
    file, log, data_dir = directory / "turnout.toml", directory / "turnout.log", directory / "data"
    values = {"listen": listen, "admin": admin, "data_dir": data_dir, "workers": workers, "rest": rest}
    file.write_text(CONFIG.format(**values))
    # -P: import the installed Turnout, and not the one in the current directory.
    sources = ("env", f"PYTHONPATH={SOURCES}") if interpreted else ()
    with running((*sources, python, "-P", "-m", "gateway.cli", "serve", "-c", file), log) as process:
        listening(listen, process, log)
        until(lambda: _ready(listen), "a worker is ready", log=log)
        until(lambda: len(_carriers(process.pid)) == workers, f"{workers} workers run", log=log)
        until(
            lambda: (data_dir / "journal").exists() and bool(_controllers(process.pid)), "the controller runs", log=log
        )
        until(lambda: _open_offsets(data_dir), "the controller has a store", log=log)
        carriers = _carriers(process.pid)
        for number, pid in enumerate(carriers):
            pin(pid, (GATEWAY_CORE, LOAD_CORE)[number % 2])
        yield Gateway(
            port=listen,
            carriers=carriers,
            others=_controllers(process.pid),
            settle=lambda: settle(data_dir),
            data_dir=data_dir,
            admin=admin,
        )


def settle(data_dir: Path) -> float:
    """Wait until the store holds what the journal held when this was called; return the seconds."""
    began = time.monotonic()
    # Sizes at this moment: heartbeats go on, so a journal in use is never empty.
    sizes = {f"{path.parent.name}/{path.name}": path.stat().st_size for path in _segments(data_dir)}
    until(lambda: undrained(data_dir, sizes) == 0, "the journal is drained", seconds=_SETTLE_SECONDS)
    return time.monotonic() - began


def undrained(data_dir: Path, sizes: Mapping[str, int]) -> int:
    """Return how many bytes of segments of these sizes are not in the store; a deleted segment is in it whole."""
    present = {f"{path.parent.name}/{path.name}" for path in _segments(data_dir)}
    with reading(data_dir) as store:
        offsets = dict(store.execute("SELECT segment, offset FROM offsets"))
    return sum(max(0, size - offsets.get(name, 0)) for name, size in sizes.items() if name in present)


@contextmanager
def reading(data_dir: Path) -> Iterator[sqlite3.Connection]:
    """Open the store read-only beside the controller: a connection that may write could run a checkpoint."""
    with contextlib.closing(sqlite3.connect(f"file:{data_dir / FILE}?mode=ro", uri=True, timeout=10)) as store:
        yield store


def _segments(data_dir: Path) -> list[Path]:
    return list((data_dir / "journal").glob("*/*.jsonl"))


def _ready(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/-/readyz").status_code == 200
    except httpx.TransportError:
        return False


def _open_offsets(data_dir: Path) -> bool:
    try:
        with reading(data_dir) as store:
            return store.execute("SELECT count(*) FROM offsets").fetchone() is not None
    except sqlite3.Error:
        return False


def _controllers(supervisor: int) -> tuple[int, ...]:
    return tuple(pid for pid, command in children(supervisor) if "gateway.control" in command)


def _carriers(supervisor: int) -> tuple[int, ...]:
    """The children of the supervisor other than the controller."""
    return tuple(pid for pid, command in children(supervisor) if "gateway.proxy" in command)


def peer(name: str, python: Path, *, interpreted: bool = False, absent: str | None = None) -> Peer:
    """Return what ``serving`` starts as a peer, unless there is a reason why it is absent."""

    @contextmanager
    def serve(job: Job, directory: Path) -> Iterator[Gateway]:
        here = scratch(directory, name.lower().replace(" ", "-"))
        with serving(config(job), here, workers=job.workers, python=python, interpreted=interpreted) as gateway:
            yield gateway

    return Peer(
        name=name,
        note=("as pip installs it, compiled; " if python == FAST and not interpreted else "the sources, interpreted; ")
        + "one line a call in the journal, recorded in SQLite by the controller beside it; reads the prediction",
        absent=lambda: absent,
        serve=serve,
    )


TURNOUT: Final = peer("Turnout", PYTHON)
#: The same, interpreted: shows what compiling gains.
INTERPRETED: Final = peer(
    "Turnout interpreted", PYTHON, interpreted=True, absent=None if PYTHON == FAST else "it is the one that is measured"
)
