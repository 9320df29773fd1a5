"""The ledger: what is counted of one route and epoch, and the one thing that plans and reports are made from.

Rule: values only. The joiner moves them, ``read_ledgers`` reads them from the store, planner and report use them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal, NamedTuple

from policies.statistics.sample_ratio import START, SampleRatioState
from policies.types import EMPTY, Buckets, Evidence, Plan, StretchTallies, Tally
from router.records import Role
from router.scores import PAIR_MEASURES
from router.snapshot import Metric

Phase = Literal["live", "mature", "closed", "unexposed"]

#: A built-in metric: M = the variant's failures, D = calls; live only. The others are the pair measures of
#: ``router.scores``: D = 1 where a shadow and the primary both predicted what the measure compares; live only. A user's
#: metric cannot begin with "@". How merged lists treated two rankers (``router.merge.Placement``) is kept so, too: D =
#: 1 for each list, and ``against`` the other ranker, of which the name comes later.
CALLS = "@calls"
COMPARED: Final = frozenset(measure.name for measure in PAIR_MEASURES)

#: The sign of every call that was looked at for signs: what an earlier version recorded was not.
CHECKED = "checked"


#: Between a variant's name, which has none, and its version.
_AT: Final = "@"


def versioned(variant: str, version: str) -> str:
    """Return the name under which the calls of one version of a variant are counted."""
    return f"{variant}{_AT}{version}"


def is_versioned(name: str) -> bool:
    """Return whether a name has a version: a program that had no versions within an epoch counted without."""
    return _AT in name


class TallyKey(NamedTuple):
    """Which tally. ``definition`` is the metric's definition hash, "" for a built-in.

    ``against`` is "" for a variant's own values; else the variant it is paired with on the same predictions, and M is
    a difference: of two scores of one label (shadow less primary), or +1, 0, −1 for an interleaved answer whose
    credit went to this ranker, to both alike, or to the other (only answers with a credited event have D = 1).
    ``phase``: "live" moves at once, "mature" when the window has closed, "closed" counts (in D, not by unit) the
    predictions whose window has closed, with or without a value: the denominator of coverage. "unexposed" counts those
    whose window has closed and that do not count at all: they were not exposed and the route asks for that, or a
    fallback's answer was sent.

    ``revision`` is the plan that chose, where every request is drawn anew: mature values of a variant's own are kept by
    stretch, within which the shares are constant. Elsewhere, and for calls from before stretches were kept, it is 0.
    """

    period: int
    variant: str
    version: str
    role: Role
    against: str
    metric: str
    definition: str
    phase: Phase
    revision: int = 0


class UnitsOf(NamedTuple):
    """Whose units, of which mature values: as in ``TallyKey``, in any period."""

    variant: str
    version: str
    role: Role
    against: str
    metric: str
    definition: str


@dataclass(frozen=True, slots=True)
class Stretch:
    """How many units (requests, where nothing is sticky) each variant was first given under one plan revision."""

    period: int
    revision: int
    shares: Mapping[str, float]
    counts: Mapping[str, int]


class Epoch(NamedTuple):
    """What a route was in an epoch, as far as that was stored.

    ``plan`` is its last, of ``revision``; ``metrics`` are those that its last predictions were judged by. Its last call
    was made within an hour after ``last_ms``; None: it has none.
    """

    route: str
    epoch: str
    began_ms: int
    last_ms: int | None
    policy: str
    variants: tuple[str, ...]
    unit: str | None
    by_unit: bool
    prediction: str | None
    revision: int
    plan: Plan
    metrics: tuple[Metric, ...]


class Seen(NamedTuple):
    """How often a sign of something wrong was seen, and when first and last; ``detail`` is what it was last seen with.

    Any two may be added in either order, but for the detail. What was taken back leaves its times.
    """

    n: int
    first_ms: int
    last_ms: int
    detail: str = ""

    def __add__(self, other: Seen) -> Seen:  # type: ignore[override]
        return Seen(
            self.n + other.n,
            min(self.first_ms, other.first_ms),
            max(self.last_ms, other.last_ms),
            other.detail or self.detail,
        )


class Look(NamedTuple):
    """One look of a test with a declared maximum: at which share of that, what was found, and the boundary.

    ``z`` is the standardised difference, positive where the variant is higher; ``decided`` whether it crossed.
    ``information`` is the variance of the score (``group_sequential.boundary``), and ``beside`` the baseline's version;
    0 and "" in a look from before they were kept.
    """

    at_ms: int
    fraction: float
    z: float
    boundary: float
    decided: bool
    information: float = 0.0
    beside: str = ""


@dataclass(frozen=True, slots=True)
class Ledger:
    """Everything counted for one route and epoch.

    ``sample_ratio`` is what stretches have shown that are too old to be listed; ``stretches`` come after them.
    ``latency`` holds, by (variant, role), counts per logarithmic bucket of milliseconds, as
    ``policies.statistics.latency`` numbers them. ``faults`` counts calls without a complete answer by (variant, role,
    fault). ``feedback`` counts events of the route, over all epochs, by (metric, status). ``forced`` counts requests
    whose client chose the variant, kept out of everything else here. ``watermark_ms`` is the event time up to which all
    is recorded, None before any heartbeat. ``oldest_ms`` is when, by (variant, metric), the oldest prediction was made
    whose window is open; planners do not ask for it.

    ``latency``, ``faults`` and ``signs`` name each variant with its version (``versioned``). Plans and verdicts are
    made of what ``of_versions`` leaves: there they have the plain name.

    ``test_changed_ms`` is when the route's declared test was last changed although mature values were known; None if
    never.

    ``signs`` are what may be wrong, by (variant, role, word). Of calls: the words of ``records.WRONG``, "failed",
    "client_error" (a 4xx of the backend), "dropped", and "uncounted", of which nothing else here knows. Of feedback,
    under variant and role "" and over all epochs: the statuses that should be rare, and why an event could not count
    (``outcomes.Inapplicable``).

    ``looks`` are those of tests with a declared maximum, by (metric, definition, variant, version), in order.

    ``shares`` are those of each plan revision that a tally names, as far as its plan is stored.

    ``buckets`` are those of tallies whose units are counted: mature ones, own and paired, and "closed". What an earlier
    version began has none. ``few_units`` has (M, D) of every unit of mature values, periods pooled, in an order that
    says nothing, where there are fewer than ``units.few_units.FEW`` of them. Planners ask for neither.
    """

    route: str
    epoch: str
    tallies: Mapping[TallyKey, Tally] = field(default_factory=dict)
    stretches: tuple[Stretch, ...] = ()
    latency: Mapping[tuple[str, Role], Mapping[int, int]] = field(default_factory=dict)
    faults: Mapping[tuple[str, Role, str], int] = field(default_factory=dict)
    feedback: Mapping[tuple[str, str], int] = field(default_factory=dict)
    forced: int = 0
    watermark_ms: int | None = None
    oldest_ms: Mapping[tuple[str, str], int] = field(default_factory=dict)
    signs: Mapping[tuple[str, str, str], Seen] = field(default_factory=dict)
    sample_ratio: SampleRatioState = START
    test_changed_ms: int | None = None
    looks: Mapping[tuple[str, str, str, str], tuple[Look, ...]] = field(default_factory=dict)
    shares: Mapping[int, Mapping[str, float]] = field(default_factory=dict)
    buckets: Mapping[TallyKey, Buckets] = field(default_factory=dict)
    few_units: Mapping[UnitsOf, tuple[tuple[float, float], ...]] = field(default_factory=dict)

    def of_versions(self, versions: Mapping[str, str]) -> Ledger:
        """Return what is counted of these versions alone, by variant: all that plans, comparisons and verdicts see.

        What pairs two variants on the same requests is of the periods in which both had these versions.
        """
        tallies, earlier, mixed = {}, set[tuple[int, str]](), set[int]()
        for key, tally in self.tallies.items():
            if versions.get(key.variant) == key.version:
                tallies[key] = tally
            elif key.role != "shadow":
                earlier.add((key.period, key.variant))
                mixed.add(key.period)  # a copy agrees with whichever variant answered
        names = {versioned(name, version): name for name, version in versions.items()} | {"": ""}

        def plain(counted: Mapping[Any, Any]) -> dict[Any, Any]:
            return {
                (names.get(key[0], key[0]), *key[1:]): n
                for key, n in counted.items()
                if key[0] in names or not is_versioned(key[0])
            }

        if earlier:
            tallies = {
                key: tally
                for key, tally in tallies.items()
                if (key.period, key.against) not in earlier and not (key.metric in COMPARED and key.period in mixed)
            }
        changed = {variant for _, variant in earlier}
        return replace(
            self,
            tallies=tallies,
            buckets={key: found for key, found in self.buckets.items() if key in tallies},
            few_units={
                of: each
                for of, each in self.few_units.items()
                if versions.get(of.variant) == of.version and of.against not in changed
            },
            latency=plain(self.latency),
            faults=plain(self.faults),
            signs=plain(self.signs),
        )

    def since(self, period: int) -> Ledger:
        """Return what is counted of the periods from this one on: a verdict sets aside what was before.

        Of how many units are different only a lower bound is known then.
        """
        kept = {key: tally for key, tally in self.tallies.items() if key.period >= period}
        first: dict[TallyKey, int] = {}
        for key in kept:
            place = key._replace(period=0)
            first[place] = min(first.get(place, key.period), key.period)
        return replace(
            self,
            tallies={
                key: replace(tally, distinct=tally.n) if first[key._replace(period=0)] == key.period else tally
                for key, tally in kept.items()
            },
            buckets={key: buckets for key, buckets in self.buckets.items() if key.period >= period},
            few_units={},  # of all periods together
            looks={of: tuple(one for one in looks if one.at_ms >= period) for of, looks in self.looks.items()},
        )

    def pooled(
        self, variant: str, role: Role, metric: str, phase: Phase, *, against: str = "", definition: str = ""
    ) -> Tally:
        """Return one tally with periods and declared versions pooled."""
        total = EMPTY
        for key, tally in self.tallies.items():
            if (key.variant, key.role, key.metric, key.phase, key.against, key.definition) == (
                variant,
                role,
                metric,
                phase,
                against,
                definition,
            ):
                total += tally
        return total

    def by_period(self, variant: str, role: Role, metric: str, *, definition: str) -> Mapping[int, Tally]:
        """Return a variant's own mature tallies, period by period: what a comparison is stratified by."""
        found: dict[int, Tally] = {}
        for key, tally in self.tallies.items():
            if (key.variant, key.role, key.metric, key.phase, key.against, key.definition) == (
                variant,
                role,
                metric,
                "mature",
                "",
                definition,
            ):
                found[key.period] = found.get(key.period, EMPTY) + tally
        return found

    def evidence(self, definitions: Mapping[str, str]) -> Evidence:
        """Return what plans may learn from: mature tallies of answers, for the metrics as now defined (name → hash)."""
        parts: dict[tuple[str, str], list[Tally]] = {}
        split: dict[tuple[int, int], dict[tuple[str, str], Tally]] = {}
        served: dict[int, set[str]] = {}
        for key, tally in self.tallies.items():
            if key.against or key.role in ("shadow", "holdout"):
                continue
            served.setdefault(key.period, set()).add(key.variant)
            if key.phase == "mature" and definitions.get(key.metric) == key.definition:
                name = key.variant, key.metric
                parts.setdefault(name, []).append(tally)
                stretch = split.setdefault((key.period, key.revision), {})
                known = stretch.get(name)
                stretch[name] = tally if known is None else known + tally
        pooled = {name: Tally.total(each) for name, each in parts.items()}
        if not any(revision for _, revision in split):
            return Evidence(pooled)
        return Evidence(
            pooled,
            tuple(
                # A share of a variant that served in another version, of which nothing is counted here, is left out.
                StretchTallies({v: s for v, s in self._shares(*place).items() if v in served[place[0]]}, split[place])
                for place in sorted(split)
            ),
        )

    def _shares(self, period: int, revision: int) -> Mapping[str, float]:
        """Return the shares in force, where they are known.

        What was counted before revisions were is of a whole period: its shares are known if they never moved.
        """
        if revision:
            return self.shares.get(revision, {})
        given = [stretch.shares for stretch in self.stretches if stretch.period == period]
        return given[0] if given and all(shares == given[0] for shares in given) else {}
