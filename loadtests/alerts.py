"""``python -m loadtests.alerts``: a real rule of a real Prometheus fires, and Alertmanager has Turnout roll back.

Rule: the programs of the distribution, as they come (Debian: ``prometheus``, ``prometheus-alertmanager``); where they
are missing it says so and leaves with 0. Prometheus scrapes the gateway's own /metrics; the rule is about its counts.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from tests.ports import free_ports
from tests.stories.backends import Asked, Backend, Reply, fixed
from tests.stories.harness import Turnout, eventually

CONFIG: Final = """
[backends.one]
url = "{one}"
version = "1"
[backends.two]
url = "{two}"
version = "1"

[routes.r]
path = "/r"
policy = {{ kind = "canary", stable = "one", candidate = "two", share = 0.5, sticky = false }}

[alerts.errors]
labels = {{ alertname = "CandidateFails" }}
do = "rollback"
"""

PROMETHEUS: Final = """
global: {{ scrape_interval: 1s, evaluation_interval: 1s }}
rule_files: ["{rules}"]
alerting: {{ alertmanagers: [{{ static_configs: [{{ targets: ["127.0.0.1:{manager}"] }}] }}] }}
scrape_configs: [{{ job_name: turnout, static_configs: [{{ targets: ["127.0.0.1:{admin}"] }}] }}]
"""

RULES: Final = """
groups:
- name: turnout
  rules:
  - alert: CandidateFails
    expr: >-
      sum by (route, variant) (rate(turnout_requests_total{status_class="5xx"}[5s]))
      / sum by (route, variant) (rate(turnout_requests_total[5s])) > 0.2
    labels: { severity: page }
    annotations: { summary: "{{ $labels.variant }} fails {{ $value | humanizePercentage }}" }
"""

MANAGER: Final = """
route: {{ receiver: turnout, group_wait: 0s, group_interval: 1s, repeat_interval: 1h, group_by: [alertname, route] }}
receivers:
- name: turnout
  webhook_configs: [{{ url: "http://127.0.0.1:{admin}/api/v1/alerts", send_resolved: true }}]
"""

FIRES_WITHIN_SECONDS: Final = 60.0


async def _failing(asked: Asked) -> Reply:
    return Reply({"error": "broken"}, status=500)


@contextlib.contextmanager
def running(command: Sequence[str], log: Path) -> Iterator[None]:
    """Run a program until the end of the block."""
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out)
        try:
            yield
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def main() -> int:
    """Play it once; print what happened, and return 1 if the route was not rolled back."""
    programs = [shutil.which(name) for name in ("prometheus", "prometheus-alertmanager")]
    if None in programs:
        print("skipped: prometheus or prometheus-alertmanager is not installed")
        return 0
    prometheus, manager = map(str, programs)
    with (
        tempfile.TemporaryDirectory(prefix="turnout-alerts-") as folder,
        Backend(fixed("one")) as one,
        Backend(_failing) as two,
    ):
        path = Path(folder)
        with Turnout(path, CONFIG.format(one=one.url, two=two.url)) as program:
            return _play(path, program, prometheus, manager)


def _play(path: Path, program: Turnout, prometheus: str, manager: str) -> int:
    listen, listens = free_ports(2)
    admin = program.admin.base_url.port
    (path / "rules.yml").write_text(RULES)
    (path / "prometheus.yml").write_text(PROMETHEUS.format(rules=path / "rules.yml", manager=listens, admin=admin))
    (path / "alertmanager.yml").write_text(MANAGER.format(admin=admin))
    asked = [
        prometheus,
        f"--config.file={path / 'prometheus.yml'}",
        f"--storage.tsdb.path={path / 'tsdb'}",
        f"--web.listen-address=127.0.0.1:{listen}",
    ]
    managing = [
        manager,
        f"--config.file={path / 'alertmanager.yml'}",
        f"--storage.path={path / 'alerts'}",
        f"--web.listen-address=127.0.0.1:{listens}",
        "--cluster.listen-address=",
    ]
    began = time.monotonic()
    with running(asked, path / "prometheus.log"), running(managing, path / "alertmanager.log"):

        def rolled_back() -> bool:
            for _ in range(10):
                program.ask("/r")
            state: str = program.admin.get("/api/v1/config").json()["routes"]["r"]["standing"].get("state", "running")
            return state == "rolled_back"

        try:
            eventually(rolled_back, "the alert rolled the route back", seconds=FIRES_WITHIN_SECONDS)
        except AssertionError as error:
            print(error)
            for name in ("prometheus.log", "alertmanager.log"):
                print((path / name).read_text()[-2_000:])
            return 1
        took = time.monotonic() - began
    acts = [one for one in program.admin.get("/api/v1/events").json()["events"] if one["kind"] == "act"]
    print(f"after {took:.1f} s, the start of Prometheus and Alertmanager included:")
    for one in acts:
        print(f"  {one['kind']} route={one['route']} {one['detail']}; {one['move']['reason']} (via {one['via']})")
    answers = {program.ask("/r").status_code for _ in range(20)}
    print(f"  answers of the route afterwards: {sorted(answers)}")
    return int(answers != {200} or not acts)


if __name__ == "__main__":
    sys.exit(main())
