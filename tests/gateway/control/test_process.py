"""The controller as its own process: signals, the admin port, and the end of its supervisor."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from gateway.control.datagrams import METRICS
from gateway.process.lifeline import VARIABLE
from tests.gateway.control.builders import RUN, T0, call
from tests.gateway.control.plan.test_planner import CONFIG
from tests.gateway.control.test_control import House
from tests.ports import free_port


class Process:
    """A running controller, how to ask it, and the supervisor's end of its lifeline."""

    def __init__(self, house: House, port: int) -> None:
        self.house, self.port = house, port
        command = [sys.executable, "-W", "error", "-P", "-m", "gateway.control"]
        command += ["--config", str(house.config), "--data-dir", str(house.data), "--run", RUN]
        reading, self._lifeline = os.pipe()
        environ = {**os.environ, VARIABLE: str(reading)}
        self.child = subprocess.Popen(command, pass_fds=[reading], env=environ)
        os.close(reading)

    def ask(self, path: str, method: str = "GET") -> tuple[int, str]:
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", method=method)
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()
        except OSError as error:
            return 0, str(error)

    def until(self, what: Callable[[], object]) -> None:
        deadline = time.monotonic() + 20
        while not what():
            assert time.monotonic() < deadline, "it did not happen within 20 s"
            assert self.child.poll() is None, "the controller ended"
            time.sleep(0.05)

    def events(self) -> str:
        return self.ask("/api/v1/events")[1]

    def cut(self) -> None:
        if self._lifeline >= 0:
            os.close(self._lifeline)
        self._lifeline = -1

    def end(self) -> None:
        self.cut()
        if self.child.poll() is None:
            self.child.kill()
        self.child.wait()


@contextmanager
def controller(path: Path) -> Iterator[Process]:
    port = free_port()
    gateway = f'schema_version = 1\n[gateway]\nadmin = "127.0.0.1:{port}"'
    process = Process(House(path, CONFIG.replace("schema_version = 1", gateway)), port)
    try:
        process.until(lambda: process.ask("/readyz")[0] == 200)
        yield process
    finally:
        process.end()


def test_it_records_reloads_listens_and_drains_at_the_end(tmp_path: Path) -> None:
    with controller(tmp_path) as process:
        journal, made = process.house.journal, call(10, epoch="e")
        journal.calls(made)
        process.until(lambda: process.ask(f"/api/v1/predictions/{made.id}")[0] == 200)
        process.house.edit('path = "/s"', 'path = "/t"')  # the file is watched
        process.until(lambda: process.house.published() == 2)
        process.house.edit('path = "/t"', 'path = "t"')
        process.until(lambda: "config_refused" in process.events())
        process.house.edit('path = "t"', 'path = "/u"')
        process.child.send_signal(signal.SIGHUP)
        process.until(lambda: process.house.published() == 3)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as worker:
            for datagram in (b"not json", json.dumps({"writer": f"{RUN}-00-{T0:012x}", "slot": 0, "pid": 4}).encode()):
                worker.sendto(datagram, str(process.house.data / METRICS))
        process.until(lambda: "worker_started" in process.events())
        assert 'turnout_requests_total{role="primary",route="r"' in process.ask("/metrics")[1]
        late = call(20, epoch="e")
        journal.calls(late)
        journal.bye(30)
        process.child.send_signal(signal.SIGTERM)
        assert process.child.wait(20) == 0
        assert [path for path in journal.path.rglob("*") if path.is_file()] == []
        restarted = Process(process.house, process.port)
        try:
            restarted.until(lambda: restarted.ask(f"/api/v1/predictions/{late.id}")[0] == 200)
        finally:
            restarted.end()


def test_it_leaves_when_its_supervisor_is_gone(tmp_path: Path) -> None:
    with controller(tmp_path) as process:
        process.cut()
        assert process.child.wait(20) == 0


def test_it_says_what_is_wrong_with_a_config_it_cannot_begin_with(tmp_path: Path) -> None:
    house = House(tmp_path, "schema_version = 2\n")
    command = [sys.executable, "-P", "-m", "gateway.control", "--config", str(house.config)]
    done = subprocess.run([*command, "--data-dir", str(house.data)], capture_output=True, text=True, timeout=30)
    assert done.returncode == 78
    assert "turnout.toml:1:18: error" in done.stderr
    assert "Traceback" not in done.stderr
