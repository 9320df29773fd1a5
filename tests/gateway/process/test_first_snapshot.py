"""The snapshot that a supervisor starts with: the last one if nothing changed, else one made without the store."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from gateway.files.published import publish
from gateway.process.first_snapshot import ensure_snapshot
from policies.plans import Weighted
from router.config.config import Config, parse
from router.snapshot import Snapshot, decode, encode

FILE = """
schema_version = 1
[backends.a]
url = "http://127.0.0.1:9001"
version = "1"
[backends.b]
url = "http://127.0.0.1:9002"
version = "1"
[metrics.click]
kind = "event"
[routes.r]
path = "/r"
metrics = ["click"]
[routes.r.policy]
kind = "thompson"
variants = ["a", "b"]
reward = "click"
"""


def config(**changes: str) -> Config:
    text = FILE
    for old, new in changes.items():
        text = text.replace(old, new)
    return parse(text, "turnout.toml")


def learned(snapshot: Snapshot) -> Snapshot:
    """Return the snapshot as the controller publishes it after some time: the bandit prefers b."""
    plan = Weighted((("a", 0.1), ("b", 0.9)), sticky=False)
    route = replace(snapshot.routes["r"], plan=plan, revision=9)
    return replace(snapshot, revision=9, routes={"r": route})


def test_without_one_it_is_made_of_the_config_alone(tmp_path: Path) -> None:
    path = tmp_path / "snapshot.json"
    snapshot = ensure_snapshot(path, config(), 1_000)
    assert decode(path.read_bytes()) == snapshot
    assert (snapshot.revision, snapshot.config) == (1, config().hash)
    assert snapshot.routes["r"].plan.shares == {"a": 0.5, "b": 0.5}


def test_a_node_of_several_begins_without_a_number_until_the_store_gives_one(tmp_path: Path) -> None:
    """The same number could belong to another plan on another node."""
    path = tmp_path / "snapshot.json"
    shared = {"schema_version = 1": 'schema_version = 1\n[gateway]\nstore = "postgresql://db/turnout"'}
    snapshot = ensure_snapshot(path, config(**shared), 1_000)
    assert (snapshot.revision, snapshot.routes["r"].revision) == (0, 0)
    publish(path, learned(snapshot))
    edited = ensure_snapshot(path, config(**shared, **{'path = "/r"': 'path = "/s"'}), 2_000)
    assert (edited.revision, edited.routes["r"].revision) == (0, 9)  # the plan is still the numbered one


def test_the_last_one_stays_when_the_config_is_the_same(tmp_path: Path) -> None:
    path = tmp_path / "snapshot.json"
    publish(path, learned(ensure_snapshot(path, config(), 1_000)))
    before = path.stat().st_ino
    snapshot = ensure_snapshot(path, config(), 2_000)
    assert snapshot.routes["r"].plan.shares == {"a": 0.1, "b": 0.9}
    assert path.stat().st_ino == before


def test_a_changed_config_is_a_new_revision_that_forgets_nothing_it_need_not(tmp_path: Path) -> None:
    """What the bandit learned is in the store, which may be unreachable; its last plan is in the last snapshot."""
    path = tmp_path / "snapshot.json"
    last = learned(ensure_snapshot(path, config(), 1_000))
    publish(path, last)
    snapshot = ensure_snapshot(path, config(**{'path = "/r"': 'path = "/other"'}), 2_000)
    assert snapshot.revision == 10
    assert decode(path.read_bytes()) == snapshot
    route = snapshot.routes["r"]
    assert (route.path, route.plan, route.period, route.revision) == ("/other", last.routes["r"].plan, 1_000, 9)


def test_a_changed_policy_or_variant_begins_anew(tmp_path: Path) -> None:
    path = tmp_path / "snapshot.json"
    publish(path, learned(ensure_snapshot(path, config(), 1_000)))
    snapshot = ensure_snapshot(path, config(**{'version = "1"': 'version = "2"'}), 2_000)
    route = snapshot.routes["r"]
    assert (route.plan.shares, route.period, route.revision) == ({"a": 0.5, "b": 0.5}, 2_000, 10)


def test_one_that_cannot_be_read_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "snapshot.json"
    path.write_bytes(b"{")
    snapshot = ensure_snapshot(path, config(), 1_000)
    assert path.read_bytes() == encode(snapshot)
    assert [entry.name for entry in tmp_path.iterdir()] == ["snapshot.json"]
