"""Adding a key is one field of one class: file, schema, snapshot and the API's configuration follow."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import cache
from typing import Any

import pytest

#: A program in which each table has one more key, declared as any other, before anything else is imported.
PROGRAM = """
import json, sys
from dataclasses import dataclass
from typing import Annotated
from router.settings import backend, gateway, route, sink
from router.settings.keys import Bounds, setting

for module, name in ((gateway, "Gateway"), (backend, "Backend"), (route, "RouteSettings"), (sink, "Sink")):
    @dataclass(frozen=True, slots=True, kw_only=True)
    class Longer(getattr(module, name)):
        nap_ms: Annotated[int, Bounds(1)] = setting(7, "How long it naps.")
    setattr(module, name, Longer)

from gateway.process.effective import effective
from policies.types import Evidence
from router.compile import compile_snapshot, identity_of
from router.config.config import ConfigError, parse
from router.config.schema import json_schema
from router.snapshot import decode, encode

FILE = '''
[gateway]
{0}
[backends.v1]
url = "http://127.0.0.1:9001"
version = "1"
{0}
[sinks.s]
kind = "stdout"
{0}
[routes.digits]
path = "/digits"
policy = {{ kind = "single", variant = "v1" }}
{0}
'''

def snapshot_of(config):
    return compile_snapshot(config, previous=None, evidence=lambda *_: Evidence(), now_ms=1, revision=1)

def naps(values):
    return [values.gateway.nap_ms, *(t[n].nap_ms for t, n in tables(values))]

def tables(values):
    return (values.backends, "v1"), (values.sinks, "s"), (values.routes, "digits")

def shown(snapshot):
    api = json.loads(json.dumps(effective(snapshot)))
    return [api["gateway"], api["backends"]["v1"], api["sinks"]["s"], api["routes"]["digits"]]

def refusal(text):
    try:
        parse(text, "turnout.toml")
    except ConfigError as error:
        return [diagnostic.message for diagnostic in error.diagnostics]

config, silent = (parse(FILE.format(line), "turnout.toml") for line in ("nap_ms = 5", ""))
made, older = snapshot_of(config), snapshot_of(silent)
said = json.loads(encode(older))
for table in (said["gateway"], *said["backends"], *said["sinks"], *said["routes"]):
    del table["nap_ms"]
print(json.dumps({
    "file": naps(config),
    "snapshot": naps(made),
    "json": naps(decode(encode(made))),
    "api": [table["nap_ms"] for table in shown(made)],
    "left out": naps(silent),
    "in an older snapshot": naps(decode(json.dumps(said).encode())),
    "refused": refusal(FILE.format("nap_ms = 0")),
    "schema": [json_schema()["$defs"][t]["properties"]["nap_ms"] for t in ("gateway", "backend", "sink", "route")],
    "told apart": identity_of(made) != identity_of(older),
}))
"""


@cache
def ran() -> dict[str, Any]:
    result = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    found: dict[str, Any] = json.loads(result.stdout)
    return found


@pytest.mark.parametrize("place", ["file", "snapshot", "json", "api"])
def test_a_key_is_in_force_at_every_stage(place: str) -> None:
    assert ran()[place] == [5, 5, 5, 5]


@pytest.mark.parametrize("place", ["left out", "in an older snapshot"])
def test_a_key_that_is_not_there_has_its_default(place: str) -> None:
    """A worker may meet the snapshot of a controller that did not know the key yet."""
    assert ran()[place] == [7, 7, 7, 7]


def test_a_key_is_refused_like_any_other() -> None:
    tables = ["gateway", "backends.v1", "sinks.s", "routes.digits"]
    assert ran()["refused"] == [f"{table}.nap_ms must be at least 1, got 0" for table in tables]


def test_a_key_is_described_to_editors() -> None:
    entry = {"description": "How long it naps.", "type": "integer", "minimum": 1, "default": 7}
    assert ran()["schema"] == [entry] * 4


def test_nodes_that_differ_in_a_key_do_not_serve_the_same() -> None:
    assert ran()["told apart"]
