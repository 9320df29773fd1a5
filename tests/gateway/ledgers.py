"""Hand-made snapshots and ledgers: short descriptions of what a store would hold.

Rule: builders only; every number in a ledger is one that a test wrote.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from gateway.store.counts.ledger import CALLS, Ledger, Phase, Stretch, TallyKey
from policies.plans import Mirror, TeamDraft, Weighted
from policies.statistics.latency import bucket
from policies.types import EMPTY, Plan, Tally
from router.records import Role
from router.snapshot import Backend, Gateway, Metric, Route, Snapshot

VERSIONS = {"old": "1.3.0", "new": "2.0.0", "third": "3.0.0"}

CORRECT = Metric(
    name="correct",
    kind="label",
    score="match",
    better="higher",
    window_ms=86_400_000,
    mature="window",
    missing=None,
    fold="last",
    range=None,
    definition="d-correct",
)
CLICK = replace(CORRECT, name="click", kind="event", score=None, fold="any", definition="d-click")
COMPLAINT = replace(CLICK, name="complaint", better="lower", definition="d-complaint")
ERROR = replace(CORRECT, name="error", score="absolute_error", better="lower", definition="d-error")
REVENUE = replace(CLICK, name="revenue", kind="value", fold="last", definition="d-revenue")
METRICS = {metric.name: metric for metric in (CORRECT, CLICK, COMPLAINT, ERROR, REVENUE)}


def route(policy: str = "ab", plan: Plan | None = None, **changes: object) -> Route:
    """A route with "old" as its baseline; an A/B test of "old" and "new" by user unless said otherwise."""
    plan = plan or Weighted((("old", 0.5), ("new", 0.5)))
    made = Route(
        name="digits",
        path="/v2/models/digits/infer",
        policy=policy,
        salt="digits",
        epoch="e1",
        period=1_000,
        revision=7,
        plan=plan,
        variants=("old", "new"),
        baseline="old",
        by_unit=True,
        unit="header:x-user-id",
        prediction="/outputs/0/data/0",
        metrics=("correct",),
        primary_metric="correct",
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def shadow_route(**changes: object) -> Route:
    return route("shadow", Weighted((("old", 1.0),), mirrors=(Mirror("new", 1.0),)), **changes)


def draft_route(**changes: object) -> Route:
    values: dict[str, object] = {"metrics": ("click",), "primary_metric": "click", "prediction": None, "name": "search"}
    return route("interleave", TeamDraft(("old", "new"), "/items", "", 10), **(values | changes))


def snapshot(*routes: Route, gateway: Gateway | None = None) -> Snapshot:
    backends = {
        name: Backend(name=name, urls=(f"http://127.0.0.1:9{index}00",), version=version, model="digits")
        for index, (name, version) in enumerate(VERSIONS.items())
    }
    return Snapshot(
        revision=7,
        config="c1",
        gateway=gateway or Gateway(),
        backends=backends,
        metrics=METRICS,
        routes={one.name: one for one in routes},
    )


@dataclass
class Book:
    """A ledger being written. Values are given per unit as (sum, count)."""

    route: str = "digits"
    tallies: dict[TallyKey, Tally] = field(default_factory=dict)
    stretches: tuple[Stretch, ...] = ()
    feedback: dict[tuple[str, str], int] = field(default_factory=dict)
    faults: dict[tuple[str, Role, str], int] = field(default_factory=dict)
    latency: dict[tuple[str, Role], Mapping[int, int]] = field(default_factory=dict)
    forced: int = 0
    #: Where every request is drawn anew: the shares of the one plan that drew.
    shares: Mapping[str, float] = field(default_factory=dict)

    def put(
        self,
        variant: str,
        metric: str,
        tally: Tally,
        *,
        phase: Phase = "mature",
        role: Role = "primary",
        against: str = "",
        period: int = 1_000,
    ) -> Book:
        definition = METRICS[metric].definition if metric in METRICS else ""
        revision = 7 if self.shares and (phase, against, role) == ("mature", "", "primary") else 0
        key = TallyKey(period, variant, VERSIONS[variant], role, against, metric, definition, phase, revision)
        self.tallies[key] = self.tallies.get(key, EMPTY) + tally
        return self

    def rate(self, variant: str, metric: str, right: int, units: int, *, each: int = 1, **where: object) -> Book:
        """``right`` of ``units`` units score 1 with each of their ``each`` values, the others 0; all windows closed."""
        whole = Tally.of_units([(each, each)] * right + [(0, each)] * (units - right))
        for phase in ("live", "mature"):
            self.put(variant, metric, whole, phase=phase, **where)  # type: ignore[arg-type]
        return self.calls(variant, units, each, closed=metric, **where)  # type: ignore[arg-type]

    def calls(
        self, variant: str, units: int, each: int = 1, *, failed: int = 0, closed: str | None = None, **where: object
    ) -> Book:
        """``units`` units make ``each`` calls, one of ``failed`` units' fails; ``closed``: its windows close."""
        made = Tally.of_units([(1, each)] * failed + [(0, each)] * (units - failed))
        self.put(variant, CALLS, made, phase="live", **where)  # type: ignore[arg-type]
        if closed is not None:
            self.put(variant, closed, Tally(d=units * each), phase="closed", **where)  # type: ignore[arg-type]
        return self

    def votes(self, variant: str, metric: str, wins: int, losses: int, ties: int = 0, *, against: str = "old") -> Book:
        units = [(1, 1)] * wins + [(-1, 1)] * losses + [(0, 1)] * ties
        return self.put(variant, metric, Tally.of_units(units), role="draft", against=against)

    def pairs(self, variant: str, metric: str, differences: Iterable[float], *, against: str = "old") -> Book:
        tally = Tally.of_units([(difference, 1) for difference in differences])
        return self.put(variant, metric, tally, role="shadow", against=against)

    def stretch(self, counts: Mapping[str, int], shares: Mapping[str, float]) -> Book:
        self.stretches = (*self.stretches, Stretch(1_000, 7, shares, counts))
        return self

    def latencies(self, variant: str, milliseconds: Iterable[float], role: Role = "primary") -> Book:
        counts: dict[int, int] = {}
        for one in milliseconds:
            counts[bucket(one)] = counts.get(bucket(one), 0) + 1
        self.latency[variant, role] = counts
        return self

    def ledger(self) -> Ledger:
        return Ledger(
            self.route,
            "e1",
            dict(self.tallies),
            self.stretches,
            self.latency,
            self.faults,
            self.feedback,
            self.forced,
            watermark_ms=1_700_000_000_000,
            shares={7: self.shares} if self.shares else {},
        )
