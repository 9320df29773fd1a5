"""A new policy is one class and one name in ``POLICIES``: everything else works with it unchanged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest

import policies
from gateway import cli
from gateway.admin.metrics.metrics import Metrics
from gateway.files.assignment_key import keep
from gateway.report import report
from gateway.store.counts.ledger import CALLS, Ledger, TallyKey
from policies import Tally, Weighted
from policies.rollouts.standing import START, Standing
from policies.types import Evidence, Plan, Policy, SettingProblem
from policies.types import Path as SettingPath
from router.compile import compile_snapshot
from router.config.config import ConfigError, parse
from router.router import Router
from router.snapshot import Snapshot, decode, encode
from tests.policies import test_contract
from tests.router.builders import RequestFacts

pytestmark = pytest.mark.story


@dataclass(frozen=True, slots=True, kw_only=True)
class Coin(Policy):
    """Tosses a coin per unit: ``heads`` with chance ``bias``, else ``tails``."""

    kind: ClassVar[str] = "coin"
    randomised: ClassVar[bool] = True

    heads: str
    tails: str
    bias: float = 0.5

    def references(self) -> tuple[tuple[SettingPath, str], ...]:
        return ((("tails",), self.tails), (("heads",), self.heads))

    def problems(self) -> tuple[SettingProblem, ...]:
        return () if 0 <= self.bias <= 1 else (SettingProblem(("bias",), f"must lie in [0, 1], got {self.bias}"),)

    def plan(self, evidence: Evidence, standing: Standing = START) -> Plan:
        return Weighted(((self.tails, 1 - self.bias), (self.heads, self.bias)))


CONFIG = """
schema_version = 1
[backends]
old = { url = "http://127.0.0.1:1", version = "1" }
new = { url = "http://127.0.0.1:2", version = "2" }
[metrics]
click = { kind = "event" }
[routes.r]
path = "/r"
unit = "header:x-user-id"
metrics = ["click"]
policy = { kind = "coin", heads = "new", tails = "old", bias = 0.25 }
"""


@pytest.fixture(autouse=True)
def _added(monkeypatch: pytest.MonkeyPatch) -> None:
    """Add the one name."""
    added = (*policies.POLICIES, Coin)
    monkeypatch.setattr(policies, "POLICIES", added)
    monkeypatch.setattr(test_contract, "POLICIES", added)


@pytest.fixture
def snapshot() -> Snapshot:
    compiled = compile_snapshot(
        parse(CONFIG, "turnout.toml"), previous=None, evidence=lambda *_: Evidence(), now_ms=1_000, revision=1
    )
    return decode(encode(compiled))


@pytest.mark.parametrize(
    "law", [law for name, law in vars(test_contract).items() if name.startswith("test_")], ids=lambda law: law.__name__
)
def test_it_obeys_the_laws_of_every_policy(law: Callable[[type[Policy]], None]) -> None:
    law(Coin)


def test_its_settings_are_decoded_and_its_mistakes_are_found_like_anyones() -> None:
    assert parse(CONFIG, "turnout.toml").routes["r"].policy == Coin(heads="new", tails="old", bias=0.25)
    with pytest.raises(ConfigError) as refused:
        parse(CONFIG.replace("bias = 0.25", "bais = 0.25").replace('"new", tails', '"nwe", tails'), "turnout.toml")
    said = str(refused.value)
    assert '"bias"' in said
    assert '"new"' in said
    with pytest.raises(ConfigError, match=r"bias must lie in \[0, 1\], got 2"):
        parse(CONFIG.replace("0.25", "2.0"), "turnout.toml")


def test_requests_are_routed_by_it(snapshot: Snapshot) -> None:
    router = Router(snapshot)
    met = []
    for number in range(2000):
        facts = RequestFacts("POST", "/r", "", (("x-user-id", f"u{number}"),))
        route = router.match(facts)
        assert route is not None
        met.append(router.route(route, facts, f"id-{number}").decision.answering[0])
    assert 400 < met.count("new") < 600


def test_explain_tells_what_it_does(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "turnout.toml"
    file.write_text(CONFIG)
    (tmp_path / "data").mkdir()
    keep(tmp_path / "data", "0123456789abcdef" * 2)
    monkeypatch.chdir(tmp_path)
    assert cli.run(["check", "-c", str(file)]) == 0
    assert cli.run(["explain", "-c", str(file), "--route", "r", "--unit", "u7"]) == 0
    said = capsys.readouterr().out
    assert "coin" in said
    assert "0.25" in said or "0.75" in said


def test_the_report_and_the_metrics_take_it(snapshot: Snapshot) -> None:
    route, click = snapshot.routes["r"], snapshot.metrics["click"]

    def key(variant: str, metric: str, definition: str, phase: str) -> TallyKey:
        version = snapshot.backends[variant].version
        return TallyKey(1_000, variant, version, "primary", "", metric, definition, phase)  # type: ignore[arg-type]

    units = {"old": Tally.of_units([(0, 1)] * 90 + [(1, 1)] * 10), "new": Tally.of_units([(1, 1)] * 80 + [(0, 1)] * 20)}
    tallies = {key(name, "click", click.definition, "mature"): tally for name, tally in units.items()}
    tallies |= {key(name, CALLS, "", "live"): Tally.of_units([(0, 1)] * 100) for name in units}
    found = report(snapshot, Ledger("r", route.epoch, tallies), Coin(heads="new", tails="old", bias=0.25))
    assert found["policy"] == "coin"
    assert (found["verdict"]["baseline"], found["verdict"]["status"]) == ("old", "better")
    assert [variant["share"] for variant in found["variants"]] == [0.75, 0.25]
    assert found["checks"]["sample_ratio"]["applies"]

    metrics = Metrics(lambda: snapshot, started_ms=1_000, clock=lambda: 0.0)
    metrics.refresh_plans()
    metrics.refresh_quality([found])
    text = metrics.exposition("")[0].decode()
    assert 'turnout_share{route="r",variant="new"} 0.25' in text
