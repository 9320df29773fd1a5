"""Run the command line in this process or as a process of its own; and serve an admin port for it to ask."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn

from gateway.admin.app import create
from tests.gateway.admin.fake import Control

CONFIG = """
schema_version = 1

[gateway]
admin = "{admin}"
data_dir = "{data_dir}"
{more}

[backends.old]
url = "http://127.0.0.1:9001"
version = "1.3.0"

[backends.new]
url = "http://127.0.0.1:9002"
version = "2.0.0"

[metrics.correct]
kind = "label"

[metrics.click]
kind = "event"
missing = 0

[routes.digits]
path = "/v2/models/digits/infer"
unit = "header:x-user-id"
prediction = "/outputs/0/data/0"
metrics = ["correct"]
[routes.digits.policy]
kind = "canary"
stable = "old"
candidate = "new"
share = 0.25

[routes.bandit]
path = "/bandit"
metrics = ["click"]
[routes.bandit.policy]
kind = "thompson"
variants = ["old", "new"]
reward = "click"

[routes.shadowed]
path = "/shadowed"
unit = "header:x-user-id"
mirrors = [{{ variant = "new", share = 1.0 }}]
[routes.shadowed.policy]
kind = "single"
variant = "old"

[routes.search]
path = "/search"
unit = "header:x-user-id"
metrics = ["click"]
[routes.search.policy]
kind = "interleave"
rankers = ["old", "new"]
items = "/items"
length = 10
"""


def write_config(folder: Path, *, admin: str = "127.0.0.1:9090", more: str = "") -> Path:
    path = folder / "turnout.toml"
    path.write_text(CONFIG.format(admin=admin, data_dir=folder / "data", more=more))
    return path


def turnout(
    *arguments: str, cwd: Path, environ: dict[str, str] | None = None, **options: Any
) -> subprocess.CompletedProcess[str]:
    """Run the command as a process of its own, without a terminal."""
    given = {name: value for name, value in os.environ.items() if name not in {"NO_COLOR", "FORCE_COLOR"}}
    command = [sys.executable, "-c", "from gateway.cli import main; main()", *arguments]
    options = {"capture_output": True} | options
    return subprocess.run(command, cwd=cwd, env=given | (environ or {}), text=True, timeout=60, **options)


@contextmanager
def admin_port(fake: Control) -> Iterator[str]:
    """Serve the admin app over a real socket; yield host:port."""
    config = uvicorn.Config(create(fake.parts), host="127.0.0.1", port=0, log_level="critical", lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        for _ in range(500):
            if server.started:
                break
            time.sleep(0.01)
        yield f"127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(20)
