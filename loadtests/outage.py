"""``python -m loadtests.outage``: PostgreSQL is stopped, or killed, under load: is every answer and label stored?

Rule: a whole `turnout serve` on a PostgreSQL that waits for the disk, clients on real sockets, and afterwards one
check of the database: every prediction id that a client received has its one primary row, and every acknowledged
feedback event is there once.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final

import psycopg

from gateway.demo.processes import free_ports
from loadtests import postgresql
from loadtests.processes import listening, running, until

CONFIG: Final = """
schema_version = 1
[gateway]
listen = "127.0.0.1:{listen}"
admin = "127.0.0.1:{admin}"
data_dir = "{data_dir}"
store = "{store}"

[backends]
one = {{ url = "http://127.0.0.1:{model}", version = "1" }}
two = {{ url = "http://127.0.0.1:{model}", version = "2" }}

[metrics]
click = {{ kind = "event" }}

[routes.infer]
path = "/v2/models/m/infer"
unit = "header:x-user-id"
prediction = "/outputs/0/data/0"
metrics = ["click"]
baseline = "one"
mirrors = [{{ variant = "two", share = 0.2 }}]
policy = {{ kind = "ab", shares = {{ one = 0.5, two = 0.5 }} }}
"""

#: How long the last rows may take after everything is back.
SETTLE_SECONDS: Final = 120.0
#: Load before and after the accident.
AROUND_SECONDS: Final = 2.0
THREADS: Final = 4
#: One in this many answers gets feedback.
FEEDBACK_EVERY: Final = 5


@dataclass
class Held:
    """What a client received: the ids of its answers, the acknowledged events, and all errors."""

    ids: list[str] = field(default_factory=list)
    events: list[str] = field(default_factory=list)
    wrong: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class Outage:
    """What clients received for ``sent`` requests, and what the database has. ``settled_seconds``: after the load."""

    sent: int
    answered: int
    wrong: dict[str, int]
    rows: int
    lost: int
    doubled: int
    events: int
    events_lost: int
    events_doubled: int
    behind_bytes: int
    recovered_seconds: float
    settled_seconds: float

    @property
    def whole(self) -> bool:
        return not (self.wrong or self.lost or self.doubled or self.events_lost or self.events_doubled)

    def __str__(self) -> str:
        return (
            f"sent {self.sent:,}, answered {self.answered:,}, traffic errors {sum(self.wrong.values())} {self.wrong}\n"
            f"rows {self.rows:,}, lost {self.lost}, doubled {self.doubled}\n"
            f"feedback acknowledged {self.events:,}, lost {self.events_lost}, doubled {self.events_doubled}\n"
            f"journal behind at its worst {self.behind_bytes / 2**20:.1f} MiB; recording again after "
            f"{self.recovered_seconds:.1f} s, all recorded {self.settled_seconds:.1f} s after the load's end"
        )


class Clients:
    """Threads that send requests at their share of the rate, each on a connection of its own."""

    def __init__(self, port: int, rate: float) -> None:
        self._port, self._pause = port, THREADS / rate
        self._over = threading.Event()
        self.held = [Held() for _ in range(THREADS)]
        self._threads = [threading.Thread(target=self._ask, args=(held,)) for held in self.held]

    def __enter__(self) -> Clients:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, held: Held) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=10)
        number, due = 0, time.monotonic()
        while not self._over.wait(max(0.0, due - time.monotonic())):
            number, due = number + 1, due + self._pause
            try:
                self._once(connection, held, number)
            except (OSError, http.client.HTTPException) as error:
                held.wrong[type(error).__name__] += 1
                connection.close()
        connection.close()

    def _once(self, connection: http.client.HTTPConnection, held: Held, number: int) -> None:
        connection.request("POST", "/v2/models/m/infer", b"{}", {"x-user-id": f"u{number % 1_000}"})
        answer = connection.getresponse()
        answer.read()
        prediction_id = answer.headers.get("turnout-prediction-id")
        if answer.status != 200 or prediction_id is None:
            held.wrong[f"status {answer.status}"] += 1
            return
        held.ids.append(prediction_id)
        if number % FEEDBACK_EVERY == 0:
            event = {"prediction_id": prediction_id, "metric": "click", "value": 1}
            connection.request("POST", "/-/feedback", json.dumps([event]), {"content-type": "application/json"})
            told = connection.getresponse()
            told.read()
            if told.status == 202:
                held.events.append(prediction_id)
            else:
                held.wrong[f"feedback status {told.status}"] += 1


def measure(accident: str, seconds: float, rate: float, *, durable: bool = True) -> Outage:
    """Take the database away for ``seconds`` by "stop" or "kill", under ``rate`` requests a second."""
    with tempfile.TemporaryDirectory(prefix="turnout-outage-") as name, postgresql.running(durable=durable) as server:
        directory, store = Path(name), server.url(server.new_schema())
        (listen, admin), config = free_ports(2), directory / "turnout.toml"
        data, log = directory / "data", directory / "log"
        with running((sys.executable, "-m", "loadtests.backend"), log, says=True) as model:
            port = _told_port(model.stdout)
            config.write_text(CONFIG.format(listen=listen, admin=admin, data_dir=data, store=store, model=port))
            with running((sys.executable, "-m", "gateway.cli", "serve", "-c", config), log) as process:
                listening(listen, process, log)
                until(lambda: _says(admin, "/readyz"), "the store is open", log=log)
                with Clients(listen, rate) as clients:
                    time.sleep(AROUND_SECONDS)
                    server.stop() if accident == "stop" else server.kill()
                    time.sleep(seconds)
                    behind, before = _journal_bytes(data), sum(len(held.ids) for held in clients.held)
                    server.start()
                    began = time.monotonic()
                    until(
                        lambda: _stored(store) >= before, "the backlog is recorded", seconds=SETTLE_SECONDS, pause=0.5
                    )
                    recovered = time.monotonic() - began
                    time.sleep(AROUND_SECONDS)
                ended = time.monotonic()
                held = clients.held
                ids, events = [i for one in held for i in one.ids], [i for one in held for i in one.events]
                with contextlib.suppress(TimeoutError):  # the result below shows what is lost
                    until(lambda: _recorded(store, ids, events), "all is recorded", seconds=SETTLE_SECONDS, pause=0.2)
                settled = time.monotonic() - ended
        wrong = Counter[str]()
        for one in held:
            wrong += one.wrong
        return _compare(store, ids, events, wrong, behind, recovered, settled)


def _compare(
    store: str, ids: list[str], events: list[str], wrong: dict[str, int], behind: int, recovered: float, settled: float
) -> Outage:
    rows, told = _rows(store), _events(store)
    return Outage(
        sent=len(ids) + sum(wrong.values()),
        answered=len(ids),
        wrong=dict(wrong),
        rows=rows.total(),
        lost=sum(one not in rows for one in ids),
        doubled=sum(n > 1 for n in rows.values()),
        events=len(events),
        events_lost=sum(one not in told for one in events),
        events_doubled=sum(n > 1 for n in told.values()),
        behind_bytes=behind,
        recovered_seconds=recovered,
        settled_seconds=settled,
    )


def _recorded(store: str, ids: list[str], events: list[str]) -> bool:
    return _rows(store).keys() >= set(ids) and _events(store).keys() >= set(events)


def _rows(store: str) -> Counter[str]:
    """The number of primary rows of each prediction."""
    query = "SELECT c.id FROM calls c JOIN kin k ON k.id = c.kin WHERE k.role = 'primary'"
    with psycopg.connect(store) as connection:
        return Counter(row[0] for row in connection.execute(query))


def _events(store: str) -> Counter[str]:
    """The number of stored events of each prediction."""
    with psycopg.connect(store) as connection:
        return Counter(row[0] for row in connection.execute("SELECT prediction_id FROM feedback"))


def _stored(store: str) -> int:
    """The number of calls; read while they are being recorded, so it must cost little."""
    with contextlib.suppress(psycopg.Error), psycopg.connect(store) as connection:
        row = connection.execute("SELECT count(*) FROM calls").fetchone()
        return int(row[0]) if row else 0
    return 0


def _journal_bytes(data: Path) -> int:
    return sum(path.stat().st_size for path in (data / "journal").rglob("*.jsonl"))


def _says(port: int, path: str) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def _told_port(output: IO[str] | None) -> int:
    assert output is not None
    return int(output.readline())


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m loadtests.outage", description="PostgreSQL goes away under load.")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long it is away (60)")
    parser.add_argument("--rate", type=float, default=300.0, help="requests a second (300)")
    parser.add_argument("--accident", choices=("stop", "kill", "both"), default="both", help="(both)")
    options = parser.parse_args()
    if not (0 < options.seconds <= 600 and 0 < options.rate <= 5_000):
        parser.error("seconds must lie in (0, 600], the rate in (0, 5000]")
    whole = True
    for accident in ("stop", "kill") if options.accident == "both" else (options.accident,):
        found = measure(accident, options.seconds, options.rate)
        whole &= found.whole
        print(f"PostgreSQL: {accident}, away for {options.seconds:g} s, {options.rate:g} requests/s\n{found}\n")
    sys.exit(0 if whole else 1)


if __name__ == "__main__":
    main()
