"""What one transaction will add to the counts, summed up in memory before anything is written.

Rule: only sums and differences, so that any two may be added in either order; what is written is what was put in.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import NamedTuple, Protocol

from gateway.ledger import AGREEMENT, CALLS, Phase, Status
from policies.statistics.latency import bucket
from policies.types import EMPTY, Tally
from router.outcomes import Value
from router.records import Outcome, Prediction, Role
from router.snapshot import Metric


class Place(NamedTuple):
    """Which tally of which route and epoch; as ``ledger.TallyKey``."""

    route: str
    epoch: str
    period: int
    variant: str
    version: str
    role: Role
    against: str
    metric: str
    definition: str
    phase: Phase


class Origin(Protocol):
    """Where a value comes from: a prediction, or what several have in common."""

    @property
    def route(self) -> str: ...
    @property
    def epoch(self) -> str: ...
    @property
    def period(self) -> int: ...
    @property
    def variant(self) -> str: ...
    @property
    def version(self) -> str: ...
    @property
    def role(self) -> Role: ...


class Stint(NamedTuple):
    """A route's period: within it a unit arrives once."""

    route: str
    epoch: str
    period: int


class Arrival(NamedTuple):
    """A unit's first request: the least of these is the first."""

    at_ms: int
    id: str
    revision: int
    variant: str


class Told(NamedTuple):
    """A change of one feedback counter; ``delay_seconds`` since the prediction, for an event that joined."""

    route: str
    metric: str
    status: Status
    n: int
    delay_seconds: float | None


class Moves:
    """Collects outcomes and counts. ``matured`` are the routes where a mature tally moved."""

    def __init__(self) -> None:
        #: Place → unit → what its sum and its count change by.
        self.units: defaultdict[Place, dict[str, tuple[float, float]]] = defaultdict(dict)
        #: The same where each prediction is a unit of its own: (place, before, after) → how often.
        self.alone: Counter[tuple[Place, float | None, float | None]] = Counter()
        self.arrivals: defaultdict[Stint, dict[str, Arrival]] = defaultdict(dict)
        self.stretches: Counter[tuple[Stint, int, str]] = Counter()
        self.latency: Counter[tuple[str, str, str, Role, int]] = Counter()
        self.faults: Counter[tuple[str, str, str, Role, str]] = Counter()
        self.forced: Counter[tuple[str, str]] = Counter()
        self.counts: Counter[str] = Counter()
        self.told: list[Told] = []
        self.matured: set[str] = set()

    def call(self, call: Prediction) -> None:
        """Count a finished call: itself, its fault, its time, and its unit's arrival."""
        if call.forced:
            if call.role == "primary":
                self.forced[call.route, call.epoch] += 1
            return
        if call.role == "primary":
            self._arrival(call)
        if call.fault is not None:
            self.faults[call.route, call.epoch, call.variant, call.role, call.fault] += 1
            if call.fault == "dropped":
                return
        if call.latency_ms is not None:
            self.latency[call.route, call.epoch, call.variant, call.role, bucket(call.latency_ms)] += 1
        self._outcome(_place(call, "", CALLS, "", "live"), _unit(call), None, float(call.failed))

    def agreement(self, shadow: Prediction, agrees: bool) -> None:
        """Count whether a shadow predicted what the primary did."""
        self._outcome(_place(shadow, "", AGREEMENT, "", "live"), _unit(shadow), None, float(agrees))

    def closed(self, call: Origin, metric: Metric, n: int = 1) -> None:
        """Count calls whose window has closed."""
        self.alone[_place(call, "", metric.name, metric.definition, "closed"), None, 0.0] += n

    def outcome(self, call: Prediction, metric: Metric, value: Value, live: Outcome, mature: Outcome) -> None:
        """Move the live and the mature tally of one value; ``call`` is any call of the request."""
        place = Place(
            call.route,
            call.epoch,
            call.period,
            value.variant,
            value.version,
            value.role,
            value.against,
            metric.name,
            metric.definition,
            "live",
        )
        unit = _unit(call)
        self._outcome(place, unit, live.before, live.after)
        if mature.before != mature.after:
            self._outcome(place._replace(phase="mature"), unit, mature.before, mature.after)
            self.matured.add(call.route)

    def tell(self, route: str, metric: str, status: Status, n: int = 1, delay_seconds: float | None = None) -> None:
        """Add to a feedback counter."""
        self.told.append(Told(route, metric, status, n, delay_seconds))

    def feedback(self) -> Counter[tuple[str, str, Status]]:
        """Return what each feedback counter changes by."""
        total: Counter[tuple[str, str, Status]] = Counter()
        for told in self.told:
            total[told.route, told.metric, told.status] += told.n
        return total

    def tallies(self) -> dict[Place, Tally]:
        """Return what tallies change by, for predictions that are units of their own."""
        total: dict[Place, Tally] = {}
        for (place, before, after), n in self.alone.items():
            total[place] = total.get(place, EMPTY) + times(_one(after) - _one(before), n)
        return total

    def _outcome(self, place: Place, unit: str | None, before: float | None, after: float | None) -> None:
        if before == after:
            return
        if unit is None:
            self.alone[place, before, after] += 1
            return
        units = self.units[place]
        m, d = units.get(unit, (0.0, 0.0))
        units[unit] = (m + (after or 0.0) - (before or 0.0), d + (after is not None) - (before is not None))

    def _arrival(self, call: Prediction) -> None:
        stint, unit = Stint(call.route, call.epoch, call.period), _unit(call)
        if unit is None:
            self.stretches[stint, call.revision, call.variant] += 1
            return
        arrival = Arrival(call.at_ms, call.id, call.revision, call.variant)
        arrivals = self.arrivals[stint]
        if unit not in arrivals or arrival < arrivals[unit]:
            arrivals[unit] = arrival


def times(tally: Tally, n: int) -> Tally:
    """Return the sum of ``n`` equal tallies."""
    if n == 1:
        return tally
    return Tally(
        tally.n * n,
        tally.m * n,
        tally.m2 * n,
        tally.d * n,
        tally.d2 * n,
        tally.md * n,
        tally.positive * n,
        tally.negative * n,
        tally.d_max,
    )


def _one(value: float | None) -> Tally:
    return EMPTY if value is None else Tally.of_unit(value, 1.0)


def _unit(call: Prediction) -> str | None:
    """Who is counted: None when the prediction is a unit of its own, as it is for a request that carries no unit."""
    return call.unit if call.by_unit else None


def _place(call: Origin, against: str, metric: str, definition: str, phase: Phase) -> Place:
    return Place(
        call.route, call.epoch, call.period, call.variant, call.version, call.role, against, metric, definition, phase
    )
