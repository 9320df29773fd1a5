"""``python -m loadtests.freeze``: from ``turnout freeze`` to the last request that another variant answered.

Rule: real processes, real requests on several connections, and the command as an operator runs it. The time is from the
start of the command until the last request was *sent* that the other variant answered, so the command's own start is
part of it. Three cases: one node whose controller was killed and whose store is gone; the same with a controller that
hangs; three nodes on one PostgreSQL, asked at a node that does not hold the lease.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import os
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from loadtests import postgresql
from tests.stories.backends import Backend, fixed
from tests.stories.harness import Turnout, eventually, turnout

CONFIG: Final = """
[backends.one]
url = "{one}"
version = "1"
[backends.two]
url = "{two}"
version = "1"

[routes.r]
path = "/r"
policy = {{ kind = "ab", shares = {{ one = 0.5, two = 0.5 }} }}
baseline = "one"
"""

#: Load before the command, and after it ended.
AROUND_SECONDS: Final = 1.0
AFTER_SECONDS: Final = 3.0
#: Pause between two requests of a connection: about two hundred a second at each node.
PAUSE_SECONDS: Final = 0.01
CONNECTIONS: Final = 2

#: What the project promises, in seconds: on one node, and at every node of three.
TARGETS: Final = {"killed": 1.0, "hanging": 2.0, "fleet": 2.0}


class Sent(NamedTuple):
    """A request: when it was sent, on the monotonic clock, and which variant answered."""

    at: float
    variant: str


class Load:
    """Sends requests to each port until it is stopped."""

    def __init__(self, ports: Sequence[int]) -> None:
        self.sent: list[Sent] = []
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._send, args=(port,), daemon=True) for port in ports for _ in range(CONNECTIONS)
        ]

    def _send(self, port: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        while not self._stop.wait(PAUSE_SECONDS):
            at = time.monotonic()
            try:
                connection.request("POST", "/r", b"{}", {"content-type": "application/json"})
                answer = connection.getresponse()
                self.sent.append(Sent(at, answer.read().decode()))
            except (OSError, http.client.HTTPException):
                connection.close()

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(15)


class Measured(NamedTuple):
    """Seconds until the last request of the other variant was sent, and until the command ended."""

    last: float
    command: float
    requests: int


def measured(program: Turnout, ports: Sequence[int]) -> Measured:
    """Freeze route r to variant one under load. Raises AssertionError if the command fails, or nothing was sent."""
    with Load(ports) as load:
        time.sleep(AROUND_SECONDS)
        began = time.monotonic()
        done = turnout("freeze", "r", "--to", "one", "--why", "measured", "-c", str(program.file))
        ended = time.monotonic()
        assert done.returncode == 0, done.stderr
        time.sleep(AFTER_SECONDS)
    others = [one.at for one in load.sent if "two" in one.variant]
    after = sum(one.at > ended for one in load.sent)
    assert others, "variant two never answered"
    assert min(others) < began, "variant two did not answer before"
    assert after > 50, "too few requests after the command"
    return Measured(max(max(others) - began, 0.0), ended - began, len(load.sent))


def port_of(program: Turnout) -> int:
    port = program.traffic.base_url.port
    assert port is not None
    return port


@contextlib.contextmanager
def backends() -> Iterator[str]:
    """Yield a config whose two variants answer with their names."""
    with Backend(fixed("one")) as one, Backend(fixed("two")) as two:
        yield CONFIG.format(one=one.url, two=two.url)


def killed(path: Path) -> Measured:
    """One node: its supervisor is stopped, so that the controller that is killed stays dead, and its store is gone."""

    def break_it(program: Turnout) -> None:
        assert program.process is not None
        os.kill(program.process.pid, signal.SIGSTOP)
        for pid in program.controllers:
            os.kill(pid, signal.SIGKILL)
        for file in program.data_dir.glob("turnout.db*"):
            file.unlink()

    return _one(path, break_it)


def hanging(path: Path) -> Measured:
    """One node, whose controller takes connections and answers nothing."""

    def break_it(program: Turnout) -> None:
        for pid in program.controllers:
            os.kill(pid, signal.SIGSTOP)

    return _one(path, break_it)


def _one(path: Path, break_it: Callable[[Turnout], None]) -> Measured:
    with backends() as config, Turnout(path, config) as program:
        pids = program.pids()
        break_it(program)
        try:
            return measured(program, [port_of(program)])
        finally:
            assert program.process is not None
            for pid in (program.process.pid, *pids):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)


def fleet(path: Path) -> Measured:
    """Three nodes on one PostgreSQL: asked at one that does not hold the lease, measured at all."""
    with postgresql.running() as server, backends() as config, contextlib.ExitStack() as held:
        url = server.url(server.new_schema())
        programs = []
        for name in "abc":
            (path / name).mkdir()
            programs.append(Turnout(path / name, config, gateway=f'store = "{url}"'))
            held.callback(programs[-1].close)
            programs[-1].start()
        for program in programs:
            program.wait_until_ready()

        def follower() -> Turnout | None:
            for program in programs:
                seen = program.admin.get("/api/v1/fleet").json()
                if seen["holder"] and seen["holder"] != seen["node"]:
                    return program
            return None

        asked = eventually(follower, "a node does not hold the lease")
        return measured(asked, [port_of(program) for program in programs])


CASES: Final[dict[str, Callable[[Path], Measured]]] = {"killed": killed, "hanging": hanging, "fleet": fleet}


def main() -> int:
    """Measure every case some times, print a table, and return 1 if a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=5, help="how often each case is measured (default 5)")
    parser.add_argument("--only", choices=CASES, action="append", help="measure this case; may be repeated")
    options = parser.parse_args()
    missed = False
    print("| case | target s | median s | largest s | the command itself, median s | requests |")
    print("|---|---|---|---|---|---|")
    for name in options.only or CASES:
        found = []
        for _ in range(options.times):
            with tempfile.TemporaryDirectory(prefix="turnout-freeze-") as folder:
                found.append(CASES[name](Path(folder)))
        last = [one.last for one in found]
        missed |= statistics.median(last) > TARGETS[name]
        command = statistics.median(one.command for one in found)
        requests = sum(one.requests for one in found)
        numbers = f"{statistics.median(last):.2f} | {max(last):.2f} | {command:.2f} | {requests:,}"
        print(f"| {name} | {TARGETS[name]:.0f} | {numbers} |", flush=True)
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
