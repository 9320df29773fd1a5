"""Load in a closed loop, by wrk: each connection asks again as soon as it is answered.

Rule: it measures what can be carried and what that costs. Its latencies are those under full load, not those of users
who arrive at their own pace: ``openloop`` measures these.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from loadtests.machine import LOAD_CORE, pinned
from loadtests.request import BODY, PATH, USERS

#: How long the last answers may take before wrk counts them as timed out.
_TIMEOUT_SECONDS: Final = 10

# The requests are made once: making each as it is sent would cost the generator more than sending it.
_SCRIPT: Final = """
local requests, at = {{}}, 0
local file = io.open("{body}", "rb")
local body = file:read("*a")
file:close()
wrk.headers["content-type"] = "application/json"
function init(args)
  for user = 1, {users} do
    wrk.headers["x-user-id"] = "user-" .. user
    requests[user] = wrk.format("{method}", "{path}", nil, body)
  end
end
function request()
  at = at % {users} + 1
  return requests[at]
end
{delay}
function done(summary, latency, each)
  local e = summary.errors
  io.stderr:write(string.format('{{"answers":%d,"seconds":%.6f,"status":%d,"broken":%d,"timeout":%d,"p50":%d,"p99":%d}}',
    summary.requests, summary.duration / 1e6, e.status, e.connect + e.read + e.write, e.timeout,
    latency:percentile(50), latency:percentile(99)))
end
"""


# Connections that all start at once stay in step, and a slow backend keeps them in step.
_SPREAD: Final = """
local begun = 0
function delay()
  begun = begun + 1
  if begun > {connections} then return 0 end
  return {spread_ms} * (begun * 0.618 % 1)
end
"""


@dataclass(frozen=True, slots=True)
class Load:
    """What wrk is asked to do; ``spread_ms`` is over how long its connections begin."""

    seconds: float
    connections: int = 32
    path: str = PATH
    body: bytes = BODY
    users: int = USERS
    method: str = "POST"
    spread_ms: int = 0


@dataclass(frozen=True, slots=True)
class Answers:
    """What came back. ``refused``: answered with 400 or more; ``broken``: a connection failed."""

    count: int
    seconds: float
    refused: int
    broken: int
    timeouts: int
    p50_ms: float
    p99_ms: float

    @property
    def per_second(self) -> float:
        """Answers a second."""
        return self.count / self.seconds

    @property
    def errors(self) -> int:
        """The number of answers that were refused or broken."""
        return self.refused + self.broken + self.timeouts


def absent() -> str | None:
    """Return why there is no wrk, or None."""
    return None if shutil.which("wrk") else "wrk is not installed (Debian: apt install wrk)"


def wrk(port: int, load: Load, directory: Path) -> Answers:
    """Load one server. The scratch ``directory`` takes wrk's script. Raises RuntimeError with what wrk said."""
    body, script = directory / "wrk.body", directory / "wrk.lua"
    body.write_bytes(load.body)
    script.write_text(_script(load, body))
    command = ["wrk", "-t1", f"-c{load.connections}", f"-d{load.seconds:g}s", f"--timeout={_TIMEOUT_SECONDS}s"]
    with pinned(LOAD_CORE):
        run = subprocess.run(
            [*command, f"-s{script}", f"http://127.0.0.1:{port}"],
            capture_output=True,
            text=True,
            timeout=load.seconds + 60,
        )
    found = run.stderr.rpartition("{")
    if run.returncode or not found[1]:
        raise RuntimeError(f"wrk ended with {run.returncode}: {run.stdout}{run.stderr}")
    return _answers(found[1] + found[2])


def _script(load: Load, body: Path) -> str:
    spread = _SPREAD.format(connections=load.connections, spread_ms=load.spread_ms) if load.spread_ms else ""
    return _SCRIPT.format(body=body, users=load.users, path=load.path, method=load.method, delay=spread)


def _answers(text: str) -> Answers:
    said = json.loads(text)
    return Answers(
        count=said["answers"],
        seconds=said["seconds"],
        refused=said["status"],
        broken=said["broken"],
        timeouts=said["timeout"],
        p50_ms=said["p50"] / 1000,
        p99_ms=said["p99"] / 1000,
    )
