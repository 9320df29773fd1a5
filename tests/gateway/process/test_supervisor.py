"""``serve`` with real processes: it starts and restarts them, passes signals on, and ends them in order."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import http.client
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from gateway.compiled import build
from gateway.process import handover, supervisor
from gateway.process.premises import Hold
from router.config.config import parse
from tests.ports import free_port

CONFIG = """
schema_version = 1
[gateway]
listen = "127.0.0.1:{port}"
admin = "127.0.0.1:{admin}"
data_dir = "{data_dir}"
workers = {workers}
[backends.a]
url = "{url}"
version = "1"
[routes.r]
path = "/r"
[routes.r.policy]
kind = "single"
variant = "a"
"""

SERVE = (
    "import sys; from pathlib import Path; from gateway.process.supervisor import serve; "
    "sys.exit(serve(Path(sys.argv[1])))"
)


class Slow(BaseHTTPRequestHandler):
    """A backend that takes its time."""

    def do_POST(self) -> None:
        time.sleep(0.5)
        self.send_response(200)
        self.send_header("content-length", "4")
        self.end_headers()
        self.wfile.write(b"done")

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def url() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Slow) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def eventually(ask: Callable[[], object], what: str, seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not ask():
        assert time.monotonic() < deadline, f"not in time: {what}"
        time.sleep(0.02)


class Served:
    """One supervisor as a process, with its files."""

    def __init__(self, directory: Path, *, workers: int = 2, url: str = "http://127.0.0.1:1") -> None:
        self.port = free_port()
        self.count = workers
        self.file = directory / "turnout.toml"
        self.data_dir = directory / "data"
        self.said = directory / "said"
        given = {"port": self.port, "admin": free_port(), "data_dir": self.data_dir, "workers": workers, "url": url}
        self.file.write_text(CONFIG.format(**given))
        self.process = self.start()

    def start(self) -> subprocess.Popen[bytes]:
        with self.said.open("ab") as said:
            self.process = subprocess.Popen([sys.executable, "-c", SERVE, str(self.file)], stdout=said, stderr=said)
        return self.process

    def __enter__(self) -> Served:
        eventually(lambda: self.ask("GET", "/-/readyz") == 200, "ready")
        eventually(lambda: len(self.segments()) == self.count, "every worker runs")
        return self

    def __exit__(self, *_: object) -> None:
        left = self.children("")
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        eventually(lambda: not any(alive(pid) for pid in left), "no child is left")

    def ask(self, method: str, path: str) -> int | None:
        """Send one request and return its status, None when there is no answer."""
        client = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            client.request(method, path, headers={"content-length": "0"})
            return client.getresponse().status
        except (OSError, http.client.HTTPException):
            return None
        finally:
            client.close()

    def children(self, module: str) -> list[int]:
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    parent = (entry / "stat").read_text().rpartition(")")[2].split()[1]
                    if int(parent) == self.process.pid and module in (entry / "cmdline").read_text():
                        found.append(int(entry.name))
        return sorted(found)

    def segments(self) -> list[str]:
        """Return the files of the journal: each worker process begins a new one."""
        return sorted(path.name for path in (self.data_dir / "journal" / "predictions").glob("*.jsonl"))

    def workers(self) -> list[int]:
        return self.children("gateway.proxy")

    def end(self, number: signal.Signals = signal.SIGTERM, seconds: float = 20) -> int:
        self.process.send_signal(number)
        return self.process.wait(seconds)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One supervisor, shared by the tests that do not change its state."""
    with Served(tmp_path_factory.mktemp("running")) as served:
        yield served


def alive(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def test_it_says_in_one_line_where_it_serves_and_ends_cleanly(tmp_path: Path) -> None:
    with Served(tmp_path) as served:
        workers = served.workers()
        assert served.end() == 0
        assert not any(map(alive, workers))
        (line,) = [line for line in served.said.read_text().splitlines() if line.startswith("turnout serves")]
        assert f"http://127.0.0.1:{served.port} with 2 workers, operators http://127.0.0.1:" in line
        assert line.endswith(f", {build()}")
        assert "Traceback" not in served.said.read_text()
        assert (served.data_dir / "supervisor.pid").read_text() == ""


def test_a_request_under_way_is_finished_before_it_ends(tmp_path: Path, url: str) -> None:
    with Served(tmp_path, workers=1, url=url) as served:
        answers: list[int | None] = []
        asking = threading.Thread(target=lambda: answers.append(served.ask("POST", "/r")))
        asking.start()
        time.sleep(0.2)
        assert served.end(signal.SIGINT) == 0
        asking.join()
        assert answers == [200]


def test_a_worker_that_is_killed_is_replaced_and_the_other_goes_on(running: Served) -> None:
    workers, journals = running.workers(), running.segments()
    os.kill(workers[0], signal.SIGKILL)
    assert running.ask("GET", "/-/livez") == 200
    eventually(lambda: len(running.workers()) == 2 and running.workers() != workers, "another worker")
    eventually(lambda: set(running.segments()) - set(journals), "it writes a journal of its own")
    assert "killed by SIGKILL" in running.said.read_text()


def test_a_worker_that_dies_again_and_again_is_started_again_and_again(tmp_path: Path) -> None:
    with Served(tmp_path, workers=1) as served:
        seen = set(served.workers())
        for _ in range(4):
            os.kill(max(seen & set(served.workers())), signal.SIGKILL)
            eventually(lambda: set(served.workers()) - seen, "another worker")  # noqa: B023
            seen |= set(served.workers())
        eventually(lambda: served.ask("GET", "/-/readyz") == 200, "ready again")
        said = served.said.read_text()
        assert said.count("WARNING supervisor worker 0") == said.count("killed by SIGKILL") == 4


def test_sighup_is_for_the_controller_and_harms_nobody(running: Served) -> None:
    workers = running.workers()
    running.process.send_signal(signal.SIGHUP)
    time.sleep(0.2)
    assert running.ask("GET", "/-/readyz") == 200
    assert running.workers() == workers


def test_a_second_signal_ends_at_once(tmp_path: Path, url: str) -> None:
    with Served(tmp_path, workers=1, url=url) as served:
        asking = threading.Thread(target=served.ask, args=("POST", "/r"))
        asking.start()
        time.sleep(0.1)
        workers = served.workers()
        served.process.send_signal(signal.SIGTERM)
        time.sleep(0.05)
        began = time.monotonic()
        served.end(seconds=3)
        assert time.monotonic() - began < 2
        assert not any(map(alive, workers))
        asking.join()


def test_without_the_supervisor_its_children_leave_and_the_next_one_serves(tmp_path: Path) -> None:
    with Served(tmp_path) as served:
        orphans = served.workers()
        served.process.kill()
        served.process.wait()
        served.start()
        eventually(lambda: served.ask("GET", "/-/readyz") == 200, "ready again")
        assert not any(map(alive, orphans))
        assert not set(served.workers()) & set(orphans)


# What prevents serving.


def refused(file: Path) -> tuple[int, str]:
    """Start another supervisor; return its exit code and its output."""
    ran = subprocess.run([sys.executable, "-c", SERVE, str(file)], capture_output=True, text=True, timeout=20)
    return ran.returncode, ran.stderr


def test_a_second_supervisor_that_cannot_take_over_is_told_who_was_first(running: Served) -> None:
    offered = running.data_dir / "supervisor.sock"
    eventually(offered.exists, "it can be taken over from")
    offered.unlink()
    said = f"not serving: {running.data_dir} is in use by the supervisor with pid {running.process.pid}\n"
    assert refused(running.file) == (69, said)


def test_an_address_in_use_is_named(running: Served, tmp_path: Path) -> None:
    file = tmp_path / "turnout.toml"
    file.write_text(running.file.read_text().replace(str(running.data_dir), str(tmp_path / "data")))
    said = f"not serving: gateway.listen: 127.0.0.1:{running.port} is in use by another process\n"
    assert refused(file) == (69, said)


def test_a_bad_config_is_told_problem_by_problem_and_nothing_is_started(tmp_path: Path) -> None:
    file = tmp_path / "turnout.toml"
    given = {"port": 1, "admin": 2, "data_dir": tmp_path / "data", "workers": 0, "url": "nonsense"}
    file.write_text(CONFIG.format(**given))
    code, said = refused(file)
    assert code == 78
    assert said.count("error:") == 2
    assert f"{file}:7:" in said
    assert "Traceback" not in said
    assert not (tmp_path / "data").exists()


def test_a_handover_that_cannot_be_offered_is_offered_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise, after a moment without free descriptors, no later ``serve`` could take over."""
    offers = 0

    async def offer(*_: object) -> None:
        nonlocal offers
        offers += 1
        if offers < 3:
            raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(handover, "offer", offer)
    monkeypatch.setattr(supervisor, "_OFFER_SECONDS", 0.0)
    text = CONFIG.format(port=1, admin=2, data_dir=tmp_path, workers=1, url="http://127.0.0.1:9")
    config = parse(text, "turnout.toml")

    async def main(sock: socket.socket) -> None:
        one = supervisor.Supervisor(tmp_path / "turnout.toml", config, tmp_path, sock, sock.fileno(), Hold(-1))
        await asyncio.wait_for(one._offer(), 10)

    with socket.socket() as sock:
        asyncio.run(main(sock))
    assert offers == 3
