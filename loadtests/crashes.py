"""``python -m loadtests.crashes``: is all that clients were promised stored, if processes die or disks are full?

Rule: the check is about what clients received: each prediction id, and each acknowledgement of a feedback event. All of
it is looked up in the store when the program has ended. Processes are killed by their id, and only
those that this program started; traffic stays on the loopback.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

import httpx

from gateway.demo.processes import free_ports
from gateway.journal.segments import FEEDBACK, JOURNAL, PREDICTIONS, segments
from gateway.store.store import FILE
from loadtests.disk import NoSmallDisk, fill, small_disk
from loadtests.machine import children
from loadtests.origin import backends
from loadtests.table import count, grid

Victim = Literal["worker", "controller", "supervisor"]
VICTIMS: Final[tuple[Victim, ...]] = ("worker", "controller", "supervisor")
_HOW_MANY: Final = {"worker": 2, "controller": 1, "supervisor": 1}
_MODULES: Final = {"worker": "gateway.proxy", "controller": "gateway.control"}

#: How long a process may take to start again, or to end.
_PATIENCE_SECONDS: Final = 60.0
_DISK_BYTES: Final = 48 * 2**20

#: Role and number of the rows that one answer of each path leaves.
PATHS: Final = {"/answer": ("primary", 1), "/search": ("draft", 2)}

CONFIG: Final = """
schema_version = 1
[gateway]
listen = "127.0.0.1:{listen}"
admin = "127.0.0.1:{admin}"
data_dir = "{data_dir}"
workers = {workers}
{gateway}

[backends]
one = {{ url = "http://127.0.0.1:{model}", version = "1" }}
two = {{ url = "http://127.0.0.1:{model}", version = "2" }}

[metrics]
click = {{ kind = "event" }}

[routes.answer]
path = "/answer"
unit = "header:x-user-id"
prediction = "/items/0/id"
metrics = ["click"]
policy = {{ kind = "canary", stable = "one", candidate = "two", share = 0.3 }}

[routes.search]
path = "/search"
unit = "header:x-user-id"
metrics = ["click"]
policy = {{ kind = "interleave", rankers = ["one", "two"], items = "/items", item_id = "/id", length = 4 }}
"""


@dataclass
class Held:
    """What clients received: prediction ids with the path of the request, and acknowledged feedback events."""

    ids: dict[str, str] = field(default_factory=dict)
    events: set[str] = field(default_factory=set)
    statuses: Counter[int] = field(default_factory=Counter)
    feedback_statuses: Counter[int] = field(default_factory=Counter)
    broken: int = 0

    @property
    def unavailable(self) -> int:
        return self.statuses[503] + self.feedback_statuses[503]


@dataclass(frozen=True, slots=True)
class Account:
    """How much of that is in the store. Rows are of requests whose prediction id a client received."""

    held: Held
    rows_missing: int
    rows_twice: int
    events_missing: int
    events_twice: int
    undrained_bytes: int
    met: dict[str, int]
    shed: float = 0.0
    refused: float = 0.0

    @property
    def exact(self) -> bool:
        """Whether nothing is stored twice, and nothing remains to be recorded."""
        return not (self.rows_twice or self.events_twice or self.undrained_bytes or self.met.get("duplicate_rows"))

    @property
    def whole(self) -> bool:
        """Whether, in addition, everything is there."""
        return self.exact and not (self.rows_missing or self.events_missing)


class Program:
    """One ``turnout serve`` that can be killed and started again."""

    def __init__(self, directory: Path, model: int, *, data_dir: Path | None = None, gateway: str = "") -> None:
        self.data_dir = data_dir or directory / "data"
        listen, admin = free_ports(2)
        self.port, self.admin = listen, f"http://127.0.0.1:{admin}"
        self._file, self._log = directory / "turnout.toml", directory / "turnout.log"
        text = CONFIG.format(
            listen=listen,
            admin=admin,
            data_dir=self.data_dir,
            workers=_HOW_MANY["worker"],
            gateway=gateway,
            model=model,
        )
        self._file.write_text(text)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it without waiting for anything."""
        with self._log.open("ab") as log:
            command = [sys.executable, "-P", "-m", "gateway.cli", "serve", "-c", str(self._file)]
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def pids(self, victim: Victim) -> list[int]:
        """The living processes of a kind."""
        assert self._process is not None
        if victim == "supervisor":
            return [self._process.pid]
        return [pid for pid, command in children(self._process.pid) if _MODULES[victim] in command]

    async def ready(self) -> None:
        """Wait until it accepts traffic and has its store open."""
        async with httpx.AsyncClient(timeout=5) as client:
            for url in (f"http://127.0.0.1:{self.port}/-/readyz", f"{self.admin}/readyz"):
                await _until(lambda url=url: _says(client, url), f"{url} is ready")  # type: ignore[misc]

    async def kill(self, victim: Victim, chance: random.Random) -> None:
        """Kill one process of a kind, once all of them run, and wait until a new one has replaced it."""
        await _until(lambda: self._all_run(victim), f"every {victim} runs")
        pid = chance.choice(self.pids(victim))
        os.kill(pid, signal.SIGKILL)
        if victim == "supervisor":
            assert self._process is not None
            await asyncio.to_thread(self._process.wait)
            self.start()
            await _until(lambda: self._all_run("worker"), "the workers of another supervisor run")
        await _until(lambda: self._all_run(victim, without=pid), f"another {victim} runs")

    async def _all_run(self, victim: Victim, without: int = 0) -> bool:
        # On a thread: reading all processes of the machine takes a while, and the load must go on.
        found = await asyncio.to_thread(self.pids, victim)
        return len(found) == _HOW_MANY[victim] and without not in found

    async def counter(self, name: str) -> float:
        """The sum of a counter's series."""
        async with httpx.AsyncClient(timeout=10) as client:
            lines = (await client.get(f"{self.admin}/metrics")).raise_for_status().text.splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(f"{name} "))

    async def stop(self) -> int:
        """Ask it to drain and end, and return its exit code."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        return await asyncio.wait_for(asyncio.to_thread(self._process.wait), _PATIENCE_SECONDS)

    def log_tail(self) -> str:
        """The end of its log."""
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-30:])

    def close(self) -> None:
        """End the process if it still runs; children of a supervisor that has died end without being asked."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(_PATIENCE_SECONDS)
            self._process.kill()
            self._process.wait()


class Load:
    """Clients that send a request, then its feedback, again and again, and keep what they receive, while entered."""

    def __init__(self, port: int, held: Held, clients: int) -> None:
        self._port, self._held, self._clients = port, held, clients
        self._over = False
        self._number = 0

    async def __aenter__(self) -> Load:
        self._tasks = [asyncio.create_task(self._run()) for _ in range(self._clients)]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._over = True
        await asyncio.gather(*self._tasks)

    async def _run(self) -> None:
        """Run one client: a broken connection is counted, and the next request goes out on a new one."""
        while not self._over:
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
            except OSError:
                self._held.broken += 1
                await asyncio.sleep(0.1)
                continue
            try:
                async with asyncio.timeout(_PATIENCE_SECONDS):
                    while not self._over and await self._ask(reader, writer):
                        pass
            except (OSError, EOFError, TimeoutError):
                self._held.broken += 1
            finally:
                writer.close()

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Send a request and feedback about its answer; return whether the connection stays open."""
        number, self._number = self._number, self._number + 1
        path = tuple(PATHS)[number % len(PATHS)]
        writer.write(_request(path, b'{"n":%d}' % number, b"x-user-id: u%d\r\n" % (number % 200)))
        status, prediction_id, more = await _answer(reader)
        self._held.statuses[status] += 1
        if prediction_id is None:
            await asyncio.sleep(0.05)  # it was refused
            return more
        self._held.ids[prediction_id] = path
        return more and await self._click(reader, writer, prediction_id)

    async def _click(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, prediction_id: str) -> bool:
        # A client that gets no answer to its feedback sends it again; every tenth event is sent twice in any case.
        event_id = f"click-{prediction_id}"
        event = {"prediction_id": prediction_id, "metric": "click", "value": 1, "event_id": event_id}
        for _ in range(2 if self._number % 10 == 0 else 1):
            writer.write(_request("/-/feedback", json.dumps(event).encode()))
            status, _, more = await _answer(reader)
            self._held.feedback_statuses[status] += 1
            if status == 202:
                self._held.events.add(event_id)
            if not more:
                return False
        return True


def _request(path: str, body: bytes, fields: bytes = b"") -> bytes:
    head = b"POST %b HTTP/1.1\r\nhost: models.example\r\ncontent-type: application/json\r\n%b" % (path.encode(), fields)
    return b"%bcontent-length: %d\r\n\r\n%b" % (head, len(body), body)


async def _answer(reader: asyncio.StreamReader) -> tuple[int, str | None, bool]:
    """Read an answer to its end; return its status, its prediction id, and whether the connection stays open."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
    line, *rest = head.split("\r\n")
    fields = {name: value.strip() for name, _, value in (field.partition(":") for field in rest if field)}
    await reader.readexactly(int(fields["content-length"]))
    return int(line.split(" ")[1]), fields.get("turnout-prediction-id"), fields.get("connection") != "close"


async def killed(directory: Path, model: int, kills: int, *, clients: int, seed: int) -> dict[str, Account]:
    """Kill one process after the other under load, at random moments; return an account per path."""
    chance, held, program = random.Random(seed), Held(), Program(directory, model)
    with _ended(program):
        await program.ready()
        async with Load(program.port, held, clients):
            for number in range(kills):
                victim = VICTIMS[number % len(VICTIMS)]
                await asyncio.sleep(chance.uniform(0.2, 1.5))
                began = time.monotonic()
                await program.kill(victim, chance)
                seconds = time.monotonic() - began
                _say(f"  {number + 1} of {kills}: kill -9 of a {victim}; another runs after {seconds:.1f} s")
            await program.ready()
            await asyncio.sleep(1)
        await program.stop()
    return {f"{kills} times kill -9": account(program.data_dir, held)}


async def disk_full(directory: Path, model: int, policy: Literal["refuse", "shed"], *, clients: int) -> Account:
    """Fill the disk under load, and free it again. Raises NoSmallDisk."""
    held = Held()
    with small_disk(directory / "disk", _DISK_BYTES) as disk:
        gateway = f'max_journal_bytes = {16 * 2**20}\njournal_full = "{policy}"'
        program = Program(directory, model, data_dir=disk / "data", gateway=gateway)
        counted = f"turnout_journal_{'refused' if policy == 'refuse' else 'shed'}_total"
        with _ended(program):
            await program.ready()
            async with Load(program.port, held, clients):
                await asyncio.sleep(3)
                _say(f"  {policy}: the disk is full")
                ballast = fill(disk)
                await _until(lambda: _exceeds(program, counted, 0), "something is counted")
                await asyncio.sleep(5)
                _say(f"  {policy}: it has room again")
                ballast.unlink()
                await asyncio.sleep(2)
                await _until(lambda: _steady(program, counted), "nothing is counted any more")
                await asyncio.sleep(2)
            await asyncio.sleep(2.5)  # workers report once a second
            shed, refused = [await program.counter(f"turnout_journal_{name}_total") for name in ("shed", "refused")]
            await program.stop()
        return account(program.data_dir, held, shed=shed, refused=refused)


def account(data_dir: Path, held: Held, *, shed: float = 0.0, refused: float = 0.0) -> Account:
    """Look up what clients received in the store of a program that has ended."""
    with closing(sqlite3.connect(f"file:{data_dir / FILE}?mode=ro", uri=True)) as store:
        rows: dict[str, Counter[str]] = {}
        for prediction_id, role in store.execute("SELECT id, role FROM predictions"):
            rows.setdefault(prediction_id, Counter())[role] += 1
        # An event sent twice is stored with the status "repeated" and does not count.
        said = store.execute("SELECT event_id FROM feedback WHERE status != 'repeated'")
        events = Counter(event_id for (event_id,) in said)
        met = dict(store.execute("SELECT name, n FROM counts"))
        drained = dict(store.execute("SELECT segment, offset FROM offsets"))
    missing = twice = 0
    for prediction_id, path in held.ids.items():
        role, number = PATHS[path]
        surplus = rows.get(prediction_id, Counter())[role] - number
        missing, twice = missing + max(0, -surplus), twice + max(0, surplus)
    undrained = sum(
        segment.size - drained.get(f"{folder}/{segment.path.name}", 0)
        for folder in (PREDICTIONS, FEEDBACK)
        for segment in segments(data_dir / JOURNAL / folder)
    )
    return Account(
        held=held,
        rows_missing=missing,
        rows_twice=twice,
        events_missing=sum(event not in events for event in held.events),
        events_twice=sum(events[event] > 1 for event in held.events),
        undrained_bytes=undrained,
        met=met,
        shed=shed,
        refused=refused,
    )


def report(accounts: dict[str, Account]) -> str:
    """Return the table."""
    columns = (
        *("what", "answers with an id", "broken", "503", "rows missing", "twice"),
        *("feedback acknowledged", "missing", "twice", "counted shed", "counted refused", "met"),
    )
    return grid(columns, [(name, *_cells(one)) for name, one in accounts.items()])


def _cells(one: Account) -> tuple[str, ...]:
    held = one.held
    numbers = (
        *(len(held.ids), held.broken, held.unavailable, one.rows_missing, one.rows_twice),
        *(len(held.events), one.events_missing, one.events_twice, one.shed, one.refused),
    )
    return *(count(number) for number in numbers), ", ".join(f"{n} {name}" for name, n in one.met.items()) or "–"


def kept(name: str, one: Account) -> bool:
    """Return whether everything that was promised is stored."""
    if name == "disk full, shed":
        no_errors = not one.held.broken and set(one.held.statuses) == {200}
        return one.exact and no_errors and one.shed > 0 and one.rows_missing == one.shed and not one.events_missing
    if name == "disk full, refuse":
        return one.whole and one.refused > 0 and one.held.unavailable == one.refused
    return one.whole


async def run(kills: int, *, clients: int, seed: int, disks: bool = True) -> dict[str, Account]:
    """Run all parts, one after the other; a part that this machine does not allow is reported and left out."""
    accounts: dict[str, Account] = {}
    with tempfile.TemporaryDirectory(prefix="turnout-crashes-") as name:
        directory = Path(name)
        with backends([("--ranking", "0", "--wait-ms", "20")], directory) as (model,):
            accounts |= await killed(directory, model, kills, clients=clients, seed=seed)
            for policy in ("refuse", "shed") if disks else ():
                here = directory / policy
                here.mkdir()
                try:
                    accounts[f"disk full, {policy}"] = await disk_full(here, model, policy, clients=clients)
                except NoSmallDisk as error:
                    _say(f"disk full, {policy}: not tried, {error}")
    return accounts


@contextmanager
def _ended(program: Program) -> Iterator[None]:
    program.start()
    try:
        yield
    except BaseException:
        _say(program.log_tail())
        raise
    finally:
        program.close()


async def _until(fact: Callable[[], object], what: str) -> None:
    """Wait until ``fact`` returns something true. Raises TimeoutError."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + _PATIENCE_SECONDS
    while True:
        found = fact()
        if await found if asyncio.iscoroutine(found) else found:
            return
        if loop.time() > deadline:
            raise TimeoutError(f"after {_PATIENCE_SECONDS:g} s still not so: {what}")
        await asyncio.sleep(0.05)


async def _says(client: httpx.AsyncClient, url: str) -> bool:
    with suppress(httpx.TransportError):
        return (await client.get(url)).status_code == 200
    return False


async def _exceeds(program: Program, name: str, number: float) -> bool:
    with suppress(httpx.HTTPError):
        return await program.counter(name) > number
    return False


async def _steady(program: Program, name: str) -> bool:
    before = await program.counter(name)
    await asyncio.sleep(2)
    return await program.counter(name) == before


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m loadtests.crashes", description="What is left after crashes.")
    parser.add_argument("--kills", type=int, default=20, help="how often a process is killed (20)")
    parser.add_argument("--clients", type=int, default=8, help="who ask at a time, each in turn with feedback (8)")
    parser.add_argument("--seed", type=int, default=1, help="of the moments and the victims (1)")
    parser.add_argument("--no-disks", action="store_true", help="leave out the full disks")
    given = parser.parse_args(arguments)
    accounts = asyncio.run(run(given.kills, clients=given.clients, seed=given.seed, disks=not given.no_disks))
    print(report(accounts))
    broken = [name for name, one in accounts.items() if not kept(name, one)]
    print("every promise was kept" if not broken else f"NOT KEPT: {', '.join(broken)}")
    return int(bool(broken))


if __name__ == "__main__":
    sys.exit(main())
