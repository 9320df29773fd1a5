"""What one transaction will add to the counts, summed up in memory before anything is written.

Rule: only sums and differences, so that any two may be added in either order; what is written is what was put in.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache, partial
from operator import itemgetter
from typing import Any, Final, NamedTuple, Protocol

from gateway.ledger import AGREEMENT, CALLS, Phase, Status
from gateway.store.calls import Call, Row, by_kin
from gateway.store.kin import Kin
from gateway.store.news import Changed, News
from policies.statistics.latency import bucket
from policies.types import EMPTY, Tally
from router.outcomes import Value
from router.records import Outcome, Role
from router.snapshot import Metric

#: Microseconds are what is measured, and most calls take few milliseconds: the same ones come again and again.
_bucket: Final = lru_cache(maxsize=2**15)(bucket)


_AT_MS: Final[Callable[[Row], int]] = itemgetter(Row._fields.index("at_ms"))


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
    """A change of one feedback counter; ``delay_seconds`` since the prediction, for an event that joined.

    ``variant`` is then whose prediction it was; of a merged answer, the ranker whose item the event names.
    """

    route: str
    metric: str
    status: Status
    n: int
    delay_seconds: float | None
    variant: str | None = None


#: As Place(…) and Told(…), of all their fields, at half of the time.
_new_place: Final[Callable[[tuple[Any, ...]], Place]] = partial(tuple.__new__, Place)
new_told: Final[Callable[[tuple[Any, ...]], Told]] = partial(tuple.__new__, Told)


class Moves:
    """Collects outcomes and counts. ``matured`` are the routes where a mature tally moved.

    ``news`` is told what the counts are made of, where somebody wants to know.
    """

    def __init__(self, news: News | None = None) -> None:
        self.news = news
        #: Place → unit → what its sum and its count change by.
        self.units: defaultdict[Place, dict[str, tuple[float, float]]] = defaultdict(dict)
        #: The same where each prediction is a unit of its own: (place, before, after) → how often.
        self.alone: Counter[tuple[Place, float | None, float | None]] = Counter()
        self.arrivals: defaultdict[Stint, dict[str, Arrival]] = defaultdict(dict)
        self.stretches: Counter[tuple[Stint, int, str]] = Counter()
        self.latency: Counter[tuple[str, str, str, Role, int]] = Counter()
        self.faults: Counter[tuple[str, str, str, Role, str]] = Counter()
        self.forced: Counter[tuple[str, str]] = Counter()
        #: (route, epoch) → when its newest call was made.
        self.newest: dict[tuple[str, str], int] = {}
        self.counts: Counter[str] = Counter()
        self.told: list[Told] = []
        self.matured: set[str] = set()

    def calls(self, finished: Iterable[Call]) -> None:
        """Count calls: themselves, their faults, their times, and the arrivals of their units."""
        for kin, rows in by_kin(finished).items():
            self._kin(kin, rows)

    def _kin(self, kin: Kin, rows: Sequence[Row]) -> None:
        """Count calls that differ in nothing but what is their own."""
        newest = max(map(_AT_MS, rows))
        if newest > self.newest.get((kin.route, kin.epoch), -1):
            self.newest[kin.route, kin.epoch] = newest
        if kin.forced:
            if kin.role == "primary":
                self.forced[kin.route, kin.epoch] += len(rows)
            return
        if kin.role == "primary":
            self._arrivals(kin, rows)
        if kin.fault is not None:
            self.faults[kin.route, kin.epoch, kin.variant, kin.role, kin.fault] += len(rows)
            if kin.fault == "dropped":
                return
        buckets = Counter([_bucket(row.latency_ms) for row in rows if row.latency_ms is not None])
        for index, n in buckets.items():
            self.latency[kin.route, kin.epoch, kin.variant, kin.role, index] += n
        place, value = _place(kin, "", CALLS, "", "live"), float(kin.failed)
        for unit, n in Counter([row.unit for row in rows] if kin.by_unit else {None: len(rows)}).items():
            if unit is None:
                self.alone[place, None, value] += n
            else:
                self._add(place, unit, value * n, n)

    def agreement(self, shadow: Call, agrees: bool) -> None:
        """Count whether a shadow predicted what the primary did."""
        self._outcome(_place(shadow, "", AGREEMENT, "", "live"), shadow.counted_unit, None, float(agrees))

    def closed(self, call: Origin, metric: Metric, n: int = 1, *, exposed: bool = True) -> None:
        """Count calls whose window has closed, those that count apart from those that nobody met."""
        phase: Phase = "closed" if exposed else "unexposed"
        self.alone[_place(call, "", metric.name, metric.definition, phase), None, 0.0] += n

    def outcome(self, call: Call, metric: Metric, value: Value, live: Outcome, mature: Outcome) -> None:
        """Move the live and the mature tally of one value; ``call`` is any call of the request."""
        if self.news is not None and (live.before != live.after or mature.before != mature.after):
            self.news.outcomes.append(Changed(call, metric, value, live, mature))
        kin, unit = call.kin, call.counted_unit
        variant, version, role, against, _, _ = value
        whose = (kin.route, kin.epoch, kin.period, variant, version, role, against, metric.name, metric.definition)
        before, after = live
        if before != after:
            self._outcome(_new_place((*whose, "live")), unit, before, after)
        before, after = mature
        if before != after:
            self._outcome(_new_place((*whose, "mature")), unit, before, after)
            self.matured.add(kin.route)

    def tell(self, route: str, metric: str, status: Status, n: int = 1, delay_seconds: float | None = None) -> None:
        """Add to a feedback counter."""
        self.told.append(Told(route, metric, status, n, delay_seconds))

    def feedback(self) -> Mapping[tuple[str, str, Status], int]:
        """Return what each feedback counter changes by."""
        total: defaultdict[tuple[str, str, Status], int] = defaultdict(int)
        for route, metric, status, n, _, _ in self.told:
            total[route, metric, status] += n
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
        self._add(place, unit, (after or 0.0) - (before or 0.0), (after is not None) - (before is not None))

    def _add(self, place: Place, unit: str, more_m: float, more_d: float) -> None:
        units = self.units[place]
        known = units.get(unit)
        units[unit] = (more_m, more_d) if known is None else (known[0] + more_m, known[1] + more_d)

    def _arrivals(self, kin: Kin, rows: Sequence[Row]) -> None:
        stint = Stint(kin.route, kin.epoch, kin.period)
        named = [row for row in rows if row.unit is not None] if kin.by_unit else []
        if len(named) < len(rows):
            self.stretches[stint, kin.revision, kin.variant] += len(rows) - len(named)
        arrivals = self.arrivals[stint]
        for row in named:
            unit, at_ms = row.unit, row.at_ms
            assert unit is not None
            known = arrivals.get(unit)
            if known is None or at_ms < known.at_ms or (at_ms == known.at_ms and row.id < known.id):
                arrivals[unit] = Arrival(at_ms, row.id, kin.revision, kin.variant)


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


def _place(call: Origin, against: str, metric: str, definition: str, phase: Phase) -> Place:
    return Place(
        call.route, call.epoch, call.period, call.variant, call.version, call.role, against, metric, definition, phase
    )
