"""Move an alias on a real MLflow server, and see the version in a backend's slot: ``python -m loadtests.mlflow_alias``.

MLflow is not among the dependencies: name its command with ``--mlflow`` if it is in an environment of its own. Without
one this says so and exits with 0.
"""

from __future__ import annotations

import argparse
import base64
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx

CONFIG = """
schema_version = 1
[gateway]
listen = "127.0.0.1:{listen}"
admin = "127.0.0.1:{admin}"
data_dir = "{folder}/data"
registry_secret_file = "{folder}/secret"
[backends.stable]
url = "http://127.0.0.1:9/credit/0"
version = "0"
[backends.next]
url = "http://127.0.0.1:9/credit/0"
version = "0"
slot = {slot}
[routes.credit]
path = "/credit"
unit = "header:x-user-id"
[routes.credit.policy]
kind = "rollout"
stable = "stable"
candidate = "next"
steps = [{{ shadow = 1.0, hold = "1h" }}, {{ share = 1.0, hold = "24h" }}]
"""
#: One line: TOML has no others inside braces.
SLOT = (
    '{ registry = "mlflow", model = "credit", alias = "challenger", '
    'url = "http://127.0.0.1:9/{name}/{version}", hosts = ["127.0.0.1"] }'
)
SECRET = "not a secret, but for this run"
START_SECONDS = 180.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mlflow", default=shutil.which("mlflow"), help="the mlflow command")
    given = parser.parse_args()
    if given.mlflow is None or not Path(given.mlflow).exists():
        print("skipped: there is no mlflow command; pip install mlflow cryptography, and name it with --mlflow")
        return 0
    with tempfile.TemporaryDirectory(prefix="turnout-mlflow-") as name:
        return run(Path(name), str(Path(given.mlflow).absolute()))


def run(folder: Path, mlflow: str) -> int:
    registry, admin, listen = free_port(), free_port(), free_port()
    (folder / "secret").write_text(SECRET + "\n")
    (folder / "turnout.toml").write_text(CONFIG.format(folder=folder, admin=admin, listen=listen, slot=SLOT))
    environ = os.environ | {
        "MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY": base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
        "MLFLOW_WEBHOOK_ALLOWED_SCHEMES": "http,https",
        "MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS": "true",
    }
    store = f"sqlite:///{folder}/mlflow.db"
    server = [mlflow, "server", "--host", "127.0.0.1", "--port", str(registry), "--backend-store-uri", store]
    serve = [sys.executable, "-c", "from gateway.cli import main; main()", "serve", "-c", str(folder / "turnout.toml")]
    with started([*server, "--workers", "1"], folder / "mlflow.log", environ), started(serve, folder / "turnout.log"):
        api = httpx.Client(base_url=f"http://127.0.0.1:{registry}/api/2.0/mlflow", timeout=60, trust_env=False)
        turnout = httpx.Client(base_url=f"http://127.0.0.1:{admin}/api/v1", timeout=10, trust_env=False)
        until(lambda: turnout.get("/config").status_code == 200, "turnout answers", folder)
        until(lambda: httpx.get(f"http://127.0.0.1:{registry}/health").status_code == 200, "mlflow answers", folder)
        ask(api, "/registered-models/create", {"name": "credit"})
        for _ in range(2):
            ask(api, "/model-versions/create", {"name": "credit", "source": "s3://models/credit"})
        events = [{"entity": "MODEL_VERSION_ALIAS", "action": "CREATED"}]
        url = f"http://127.0.0.1:{admin}/api/v1/registry/mlflow"
        ask(api, "/webhooks", {"name": "turnout", "url": url, "events": events, "secret": SECRET})
        for version in ("1", "2"):
            began = time.monotonic()
            ask(api, "/registered-models/alias", {"name": "credit", "alias": "challenger", "version": version})
            until(lambda v=version: served(turnout) == v, f"version {version} is in the slot", folder)  # type: ignore[misc]
            print(f"alias at version {version}: in force {time.monotonic() - began:.2f} s later")
        entries = turnout.get("/audit", params={"act": "slot_filled"}).json()["entries"]
        print(*(f"{one['who']}: {one['changed']} ({one['why']})" for one in entries), sep="\n")
        return 0 if len(entries) == 2 else 1


def served(turnout: httpx.Client) -> str:
    return str(turnout.get("/config").json()["backends"]["next"]["version"])


def ask(api: httpx.Client, path: str, body: dict[str, Any]) -> dict[str, Any]:
    answer = api.post(path, json=body)
    if answer.status_code != 200:
        raise SystemExit(f"mlflow: {path}: {answer.status_code}: {answer.text[:300]}")
    found: dict[str, Any] = answer.json()
    return found


@contextmanager
def started(command: list[str], log: Path, environ: dict[str, str] | None = None) -> Iterator[None]:
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, env=environ, start_new_session=True)
        try:
            yield
        finally:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(30)
            with suppress(ProcessLookupError):  # what it started and left
                os.killpg(process.pid, signal.SIGKILL)


def until(what: Callable[[], bool], said: str, folder: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        try:
            if what():
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.05)
    logs = "\n".join(log.read_text(errors="replace")[-1500:] for log in folder.glob("*.log"))
    raise SystemExit(f"it did not happen within {START_SECONDS:.0f} s that {said}\n{logs}")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


if __name__ == "__main__":
    sys.exit(main())
