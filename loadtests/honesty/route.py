"""A route under experiment, as the report sees it: a snapshot, and a ledger of simulated sums.

Rule: values only; the baseline is called "old" and the variant "new".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final, Literal

from gateway.report.account import Account
from gateway.store.counts.ledger import Ledger, TallyKey, UnitsOf
from policies import Weighted
from policies.statistics.sequential import Bounds
from policies.types import Buckets, Tally
from router.settings.declared import DeclaredTest
from router.snapshot import Backend, Metric, Route, Snapshot

SIDES: Final = ("old", "new")
METRIC: Final = "measured"

Units = tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class Design:
    """How a route assigns, what its metric is and what was declared: what the product chooses a method by.

    ``bounds`` (0, 1): an event; else a value, with a range or without. ``part`` is the variant's share, which matters
    where every request is drawn anew.
    """

    bounds: Bounds | None = (0.0, 1.0)
    by_unit: bool = True
    adaptive: bool = False
    part: float = 0.5
    cap: float | None = None
    test: DeclaredTest | None = None

    @property
    def policy(self) -> Literal["ab", "thompson"]:
        return "thompson" if self.adaptive else "ab"


@dataclass(frozen=True, slots=True)
class Stretch:
    """What one period (or one plan, where every request is drawn anew) adds: (baseline, variant) each."""

    tallies: tuple[Tally, Tally]
    part: float = 0.5
    buckets: tuple[Buckets, Buckets] | None = None


def account_of(design: Design, stretches: Sequence[Stretch], few: Mapping[str, Units] | None = None) -> Account:
    """Return the account of a route with these mature values; ``few`` are the units of the sides that have few."""
    tallies: dict[TallyKey, Tally] = {}
    buckets: dict[TallyKey, Buckets] = {}
    shares: dict[int, Mapping[str, float]] = {}
    for number, stretch in enumerate(stretches, start=1):
        revision = 0 if design.by_unit else number
        for side, name in enumerate(SIDES):
            key = TallyKey(
                number if design.by_unit else 1, name, "1", "primary", "", METRIC, METRIC, "mature", revision
            )
            tallies[key] = stretch.tallies[side]
            if stretch.buckets is not None:
                buckets[key] = stretch.buckets[side]
        shares[revision] = dict(zip(SIDES, (1 - stretch.part, stretch.part), strict=True))
    few_units = {UnitsOf(name, "1", "primary", "", METRIC, METRIC): each for name, each in (few or {}).items() if each}
    ledger = Ledger(
        route="r", epoch="e", tallies=tallies, buckets=buckets, few_units=few_units, shares=shares, watermark_ms=1
    )
    return Account(snapshot_of(design), ledger)


@cache
def snapshot_of(design: Design) -> Snapshot:
    """Return the configuration of a route with this design."""
    metric = metric_of(design)
    route = Route(
        name="r",
        path="/r",
        baseline=SIDES[0],
        policy=design.policy,
        salt="r",
        epoch="e",
        period=1,
        revision=1,
        plan=Weighted(tuple(zip(SIDES, (1 - design.part, design.part), strict=True)), sticky=design.by_unit),
        variants=SIDES,
        by_unit=design.by_unit,
        unit="header:x-user-id" if design.by_unit else None,
        metrics=(METRIC,),
        primary_metric=METRIC,
        test=design.test,
    )
    backends = {name: Backend(name=name, urls=(), version="1", model=name) for name in SIDES}
    return Snapshot(revision=1, config="c", backends=backends, metrics={METRIC: metric}, routes={"r": route})


@cache
def metric_of(design: Design) -> Metric:
    """Return the metric of such a route."""
    event = design.bounds == (0.0, 1.0)
    return Metric(
        name=METRIC,
        kind="event" if event else "value",
        score=None,
        better="higher",
        window_ms=1_000,
        mature="window",
        missing=0.0,
        fold="any" if event else "sum",
        range=None if event else design.bounds,
        definition=METRIC,
        cap=design.cap,
    )
