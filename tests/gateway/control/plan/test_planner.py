"""Evidence becomes plans; a plan that cannot be made leaves the last one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

from gateway.control.plan.planner import plan
from gateway.store.counts.ledger import Ledger, TallyKey
from policies.rollouts.standing import START, Standing
from policies.types import Evidence, Path, Plan, Policy, Tally
from router.compile import compile_snapshot
from router.config.config import Config, parse
from router.snapshot import Snapshot

CONFIG = """
schema_version = 1
[backends.a]
url = "http://127.0.0.1:1"
version = "1"
[backends.b]
url = "http://127.0.0.1:1"
version = "1"
[metrics.click]
kind = "event"
missing = 0
[routes.r]
path = "/r"
metrics = ["click"]
policy = { kind = "thompson", variants = ["a", "b"], reward = "click" }
[routes.s]
path = "/s"
policy = { kind = "single", variant = "a" }
"""


Ledgers = Callable[[Collection[tuple[str, str]]], Awaitable[Mapping[tuple[str, str], Ledger]]]


@dataclass(frozen=True, slots=True)
class Broken(Policy):
    kind: ClassVar[str] = "broken"

    def references(self) -> tuple[tuple[Path, str], ...]:
        return ((("variant",), "a"),)

    def plan(self, evidence: Evidence, standing: Standing = START) -> Plan:
        raise ZeroDivisionError("no evidence")


def begun() -> tuple[Snapshot, Config]:
    config = parse(CONFIG, "turnout.toml")
    nothing = Evidence()
    return compile_snapshot(config, previous=None, evidence=lambda *_: nothing, now_ms=1, revision=1), config


def counted(definition: str, a: float, b: float) -> Ledgers:
    """100 mature predictions of each variant, of which so many clicked."""

    async def ledgers(places: Collection[tuple[str, str]]) -> Mapping[tuple[str, str], Ledger]:
        tallies = {
            TallyKey(1, variant, "1", "primary", "", "click", definition, "mature"): Tally.of_units(
                [(1.0, 1.0)] * int(clicks) + [(0.0, 1.0)] * int(100 - clicks)
            )
            for variant, clicks in (("a", a), ("b", b))
        }
        return {place: Ledger(*place, tallies) for place in places}

    return ledgers


def test_evidence_moves_the_plan_and_the_revision_of_its_route() -> None:
    snapshot, config = begun()
    ledger = counted(config.metrics["click"].definition, 10, 60)
    planned = asyncio.run(plan(snapshot, config, ["r", "s", "gone"], ledger, 7))
    assert planned.failures == {}
    assert planned.snapshot.revision == planned.snapshot.routes["r"].revision == 7
    assert planned.snapshot.routes["r"].plan.shares["b"] > 0.9
    assert planned.snapshot.routes["s"] == snapshot.routes["s"]


def test_the_same_evidence_is_the_same_snapshot() -> None:
    snapshot, config = begun()
    planned = asyncio.run(plan(snapshot, config, ["r", "s"], counted("another definition", 10, 60), 7))
    assert planned.snapshot is snapshot


def test_a_plan_that_cannot_be_made_leaves_the_last_one_and_the_others_go_on() -> None:
    snapshot, config = begun()
    broken = replace(config, routes={**config.routes, "s": replace(config.routes["s"], policy=Broken())})
    ledger = counted(config.metrics["click"].definition, 10, 60)
    planned = asyncio.run(plan(snapshot, broken, ["r", "s"], ledger, 7))
    assert planned.failures == {"s": "ZeroDivisionError: no evidence"}
    assert planned.snapshot.routes["s"] is snapshot.routes["s"]
    assert planned.snapshot.routes["r"].plan.shares["b"] > 0.9
