"""The vocabulary: occasion, decision, plan, policy, evidence, tally.

Rule: values only, immutable and short. The meaning of each word is defined here once; the code that acts on it lives
elsewhere.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from hashlib import blake2b
from operator import attrgetter
from typing import Any, ClassVar, Final, Protocol

from policies.decision import Decision as Decision
from policies.decision import Occasion as Occasion
from policies.rollouts import holds
from policies.rollouts.holds import Subject
from policies.rollouts.standing import START, Command, Findings, Moved, Refused, Standing
from policies.rollouts.waits import Wait

Path = tuple[str | int, ...]


class Plan(Protocol):
    """An immutable rule for decisions. ``decide`` hashes: no clock, no random module, no I/O."""

    @property
    def shares(self) -> Mapping[str, float]:
        """Probability that each variant answers: sums to 1 when one answers, each 1.0 when all are merged."""
        ...

    def decide(self, occasion: Occasion) -> Decision: ...


@dataclass(frozen=True, slots=True)
class Tally:
    """Sums over units of what happened, where M is a unit's sum of values and D its count of values.

    Tallies add and subtract exactly as their units do, so a tally is updated by differences and merged across periods.
    ``positive`` and ``negative`` count the units with M > 0 and M < 0 (wins and losses, when M is a preference).
    ``d_max`` is the largest D of any unit so far. It never decreases, so intervals computed from it stay conservative.

    ``m3``, ``m2d``, ``md2`` and ``d3`` are the sums of M³, M²D, MD² and D³: how skewed units are. They are kept of
    mature values alone; a tally whose ``d3`` is 0 has none. ``n`` counts a unit in each period in which it has values;
    ``distinct`` added up over the periods of one variant counts it once.
    """

    n: int = 0
    m: float = 0.0
    m2: float = 0.0
    d: float = 0.0
    d2: float = 0.0
    md: float = 0.0
    positive: int = 0
    negative: int = 0
    d_max: float = 0.0
    m3: float = 0.0
    m2d: float = 0.0
    md2: float = 0.0
    d3: float = 0.0
    distinct: int = 0

    @classmethod
    def of_unit(cls, m: float, d: float) -> Tally:
        """Return the tally of one unit with sum ``m`` over ``d`` values; a unit with d = 0 counts for nothing."""
        if d == 0:
            return EMPTY
        mm, dd = m * m, d * d
        return cls(1, m, mm, d, dd, m * d, int(m > 0), int(m < 0), d, mm * m, mm * d, m * dd, dd * d, 1)

    @classmethod
    def of_units(cls, units: Iterable[tuple[float, float]]) -> Tally:
        """Return the tally of several units, each given as (m, d)."""
        # Plain sums: adding up one tally per unit would make two objects per unit, and the controller reads all units.
        n = positive = negative = 0
        sum_m = m2 = sum_d = d2 = md = d_max = m3 = m2d = md2 = d3 = 0.0
        for m, d in units:
            if d != 0:
                n += 1
                mm, dd = m * m, d * d
                sum_m += m
                m2 += mm
                sum_d += d
                d2 += dd
                md += m * d
                m3 += mm * m
                m2d += mm * d
                md2 += m * dd
                d3 += dd * d
                positive += m > 0
                negative += m < 0
                d_max = max(d_max, d)
        return cls(n, sum_m, m2, sum_d, d2, md, positive, negative, d_max, m3, m2d, md2, d3, n)

    def __add__(self, other: Tally) -> Tally:
        return Tally(
            self.n + other.n,
            self.m + other.m,
            self.m2 + other.m2,
            self.d + other.d,
            self.d2 + other.d2,
            self.md + other.md,
            self.positive + other.positive,
            self.negative + other.negative,
            max(self.d_max, other.d_max),
            self.m3 + other.m3,
            self.m2d + other.m2d,
            self.md2 + other.md2,
            self.d3 + other.d3,
            self.distinct + other.distinct,
        )

    def __sub__(self, other: Tally) -> Tally:
        return Tally(
            self.n - other.n,
            self.m - other.m,
            self.m2 - other.m2,
            self.d - other.d,
            self.d2 - other.d2,
            self.md - other.md,
            self.positive - other.positive,
            self.negative - other.negative,
            max(self.d_max, other.d_max),
            self.m3 - other.m3,
            self.m2d - other.m2d,
            self.md2 - other.md2,
            self.d3 - other.d3,
            self.distinct - other.distinct,
        )

    @classmethod
    def total(cls, tallies: Sequence[Tally]) -> Tally:
        """Return the sum of many tallies, column by column: a third of the time of adding one after the other."""
        if len(tallies) < 2:
            return tallies[0] if tallies else EMPTY
        columns = zip(*map(_FIELDS, tallies), strict=True)
        return cls(*(max(column) if at == _D_MAX else sum(column) for at, column in enumerate(columns)))

    @property
    def mean(self) -> float | None:
        """ΣM / ΣD: the mean value; None with no values."""
        return self.m / self.d if self.d else None

    def squares(self, mean: float) -> float:
        """Return Σ(M − mean·D)² over units: how far they are from a mean."""
        return self.m2 - 2 * mean * self.md + mean * mean * self.d2

    def cubes(self, mean: float) -> float:
        """Return Σ(M − mean·D)³ over units; it says nothing where there are no third moments."""
        return self.m3 - 3 * mean * self.m2d + 3 * mean * mean * self.md2 - mean * mean * mean * self.d3


def distinct_share(tally: Tally) -> float:
    """Return how many different units there are for each that ``n`` counts, in (0, 1]; 1 where that is not known.

    What one unit does in several periods goes together: of counts over periods so much is independent.
    """
    return min(tally.distinct / tally.n, 1.0) if tally.n > 0 and tally.distinct > 0 else 1.0


EMPTY = Tally()
_NAMES: Final = tuple(one.name for one in fields(Tally))
_FIELDS: Final = attrgetter(*_NAMES)
_D_MAX: Final = _NAMES.index("d_max")


@dataclass(frozen=True, slots=True)
class StretchTallies:
    """What matured of the requests that one plan revision gave out within one period: their shares were constant.

    ``shares`` are the plan's, by variant; empty where they are not known (what was counted before revisions were).
    ``tallies`` are by (variant, metric). A variant or version that did not take part has none.
    """

    shares: Mapping[str, float]
    tallies: Mapping[tuple[str, str], Tally]

    def tally(self, variant: str, metric: str) -> Tally:
        return self.tallies.get((variant, metric), EMPTY)


#: How many buckets units are put into.
BUCKETS: Final = 64


@dataclass(frozen=True, slots=True)
class Buckets:
    """ΣM and ΣD of a tally by bucket of units; a unit is in the same bucket of every tally.

    Buckets add and subtract as their tallies do. For errors of what is no plain sum, and of sums over periods, in which
    the same units come again. Sums are within 1e-9.
    """

    m: tuple[float, ...] = (0.0,) * BUCKETS
    d: tuple[float, ...] = (0.0,) * BUCKETS

    def __add__(self, other: Buckets) -> Buckets:
        return Buckets(
            tuple([one + two for one, two in zip(self.m, other.m, strict=True)]),
            tuple([one + two for one, two in zip(self.d, other.d, strict=True)]),
        )


@dataclass(frozen=True, slots=True)
class Evidence:
    """The mature tallies of one route and epoch by (variant, metric): sums, never conclusions.

    ``tallies`` pool all periods. ``stretches`` are the same by stretch, in the order of their revisions; empty where
    units keep their variants, whose tallies are not kept by revision.
    """

    tallies: Mapping[tuple[str, str], Tally] = field(default_factory=dict)
    stretches: tuple[StretchTallies, ...] = ()

    def tally(self, variant: str, metric: str) -> Tally:
        return self.tallies.get((variant, metric), EMPTY)


@dataclass(frozen=True, slots=True)
class SettingProblem:
    """Something wrong with a setting: its path below the policy's table; what was given, and what is valid."""

    path: Path
    message: str


class Policy(ABC):
    """Immutable settings that make plans. Subclasses are frozen dataclasses; their fields are their keys in the TOML.

    A subclass states ``kind``, ``references`` and ``plan``; the rest has defaults. No code outside a policy's own file
    asks for its kind: what other code needs to know, these members say. A setting named like a member
    (``variants``, ``reward``) is declared with ``= field()``, or the dataclass would take the member for its default.
    """

    __slots__ = ()

    kind: ClassVar[str]
    #: The metric the policy learns from, which must be scored 0/1; None when it does not learn.
    reward: str | None = None
    #: True when the shares move with the evidence: then a new plan does not begin a period.
    adaptive: ClassVar[bool] = False
    #: True when the answering variant is drawn at random, so that a sample-ratio check makes sense.
    randomised: ClassVar[bool] = False
    #: True when the route must name the baseline because no variant is the natural one.
    needs_baseline: ClassVar[bool] = False
    #: True when it moves in steps by itself: then its plan follows from the standing.
    stepped: ClassVar[bool] = False
    #: What a variant gets at most that is held at its "floor".
    floor: float = 0.01

    @abstractmethod
    def references(self) -> tuple[tuple[Path, str], ...]:
        """Every backend this policy names, each with the path of the setting that names it, the baseline first."""

    @abstractmethod
    def plan(self, evidence: Evidence, standing: Standing = START) -> Plan:
        """Make the plan for this evidence. May be slow and may import numpy; never runs on the request path.

        Only a policy that has steps reads ``standing``: what is held out of a plan is taken out afterwards
        (``policies.plans.held``).
        """

    def reconciled(self, standing: Standing, versions: Mapping[str, str], baseline: str, now_ms: int) -> Moved | None:
        """Return what an edit of the file changes by itself, given the versions that variants have now; None: nothing.

        ``advance`` and ``act`` begin with it. A plan that is made together with an edit follows from what it returns.
        """
        findings = Findings(versions=versions, baseline=baseline)
        return holds.reconciled(self._subject(baseline), standing, findings, now_ms)

    def advance(self, standing: Standing, findings: Findings, now_ms: int) -> Moved | None:
        """Return where the route stands now that this is known, and what happened; None if it stays."""
        return holds.advance(self._subject(findings.baseline), standing, findings, now_ms)

    def act(self, standing: Standing, command: Command, findings: Findings, now_ms: int) -> Moved | Refused:
        """Return where the route stands after an act, or why that does not apply."""
        return holds.act(self._subject(findings.baseline), standing, command, findings, now_ms)

    def waits_for(self, standing: Standing, findings: Findings, now_ms: int) -> tuple[Wait, ...]:
        """Return what a route that moves by itself waits for, and until when."""
        return holds.waits_for(standing)

    def problems(self) -> tuple[SettingProblem, ...]:
        """Everything wrong with these settings on their own; names of backends and metrics are checked elsewhere."""
        return ()

    def unreachable(self, units: float, requests: float) -> tuple[SettingProblem, ...]:
        """What it waits for that does not come in time where the route has so many units and requests a day."""
        return ()

    def probability_best(self, evidence: Evidence) -> Mapping[str, float]:
        """The probability that each variant is the best at ``reward``, if the policy uses that; else empty."""
        return {}

    @property
    def stages(self) -> tuple[Mapping[str, Any], ...]:
        """Its steps as plain JSON values: ``share`` or ``shadow``, and ``conditions`` in words."""
        return ()

    @property
    def gates(self) -> tuple[tuple[Path, str], ...]:
        """Every guardrail that it waits for, by its metric, each with the path of the setting that names it."""
        return ()

    @property
    def compared(self) -> tuple[Path, ...]:
        """The paths of settings that need to know where a prediction stands in an answer."""
        return ()

    def _subject(self, baseline: str) -> Subject:
        given: object = self.variants  # what the file says of each: where shares are learned, that it is there
        if not self.adaptive:
            plan = self.plan(Evidence())
            given = dict(plan.shares), getattr(plan, "mirrors", ())
        named = baseline or self.baseline or self.variants[0]
        settings = blake2b(repr(given).encode(), digest_size=8).hexdigest()
        return Subject(
            kind=self.kind, variants=self.variants, baseline=named, adaptive=self.adaptive, settings=settings
        )

    @property
    def variants(self) -> tuple[str, ...]:
        """The variants, each once, in the order the file names them."""
        return tuple(dict.fromkeys(name for _, name in self.references()))

    @property
    def baseline(self) -> str | None:
        """The variant the others are compared with, unless the route names one."""
        return None if self.needs_baseline else self.variants[0]

    @property
    def by_unit(self) -> bool:
        """True when a unit gets the same variant each time (or votes once): then units are counted, not requests."""
        return True
