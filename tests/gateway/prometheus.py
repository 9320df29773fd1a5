"""A real Prometheus for tests: starts it on a target, asks it queries, stops it.

Rule: it uses the loopback only and a folder of its own, and ends with the test.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from shutil import which
from typing import Any
from urllib.error import URLError
from urllib.parse import urlencode
from urllib.request import urlopen

import pytest

from tests.ports import free_port

needs_prometheus = pytest.mark.skipif(
    which("prometheus") is None, reason="prometheus (the Debian package of that name) is not installed"
)


@dataclass(frozen=True, slots=True)
class Prometheus:
    url: str

    def ask(self, expr: str) -> list[Any]:
        """Return the samples that the query has right now. Raises AssertionError if Prometheus refuses it."""
        with urlopen(f"{self.url}/api/v1/query?{urlencode({'query': expr})}", timeout=10) as response:
            answer = json.load(response)
        assert answer["status"] == "success", answer
        return list(answer["data"]["result"])

    def empty(self, queries: dict[str, str], *, within_seconds: float) -> list[str]:
        """Ask until every query (by name) has an answer or the time is up; return the names of those without."""
        deadline = time.monotonic() + within_seconds
        left = list(queries)
        while left and time.monotonic() < deadline:
            left = [name for name in left if not self.ask(queries[name])]
            if left:
                time.sleep(0.5)
        return left


@contextmanager
def prometheus(target: str, folder: Path) -> Iterator[Prometheus]:
    """Run a Prometheus that scrapes ``target`` (host:port) once a second as job "turnout"."""
    config = {
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s"},
        "scrape_configs": [{"job_name": "turnout", "static_configs": [{"targets": [target]}]}],
    }
    (folder / "prometheus.json").write_text(json.dumps(config))  # JSON is YAML
    address = f"127.0.0.1:{free_port()}"
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(
            [
                "prometheus",
                f"--config.file={folder / 'prometheus.json'}",
                f"--storage.tsdb.path={folder / 'tsdb'}",
                f"--web.listen-address={address}",
            ],
            stdout=log,
            stderr=log,
        )
        try:
            _wait(f"http://{address}/-/ready", process, folder / "prometheus.log")
            yield Prometheus(f"http://{address}")
        finally:
            process.terminate()
            process.wait(20)


def _wait(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(200):
        assert process.poll() is None, f"prometheus ended: {log.read_text()[-2000:]}"
        try:
            with urlopen(url, timeout=2) as response:
                if response.status == 200:
                    return
        except (URLError, OSError):
            time.sleep(0.1)
    raise AssertionError(f"prometheus is not ready: {log.read_text()[-2000:]}")
