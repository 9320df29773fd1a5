"""Deltas: what one transaction will add to the counts, summed up in memory before anything is written.

Rule: only sums and differences, so that any two may be added in either order.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache, partial
from operator import itemgetter
from typing import Final, NamedTuple, Protocol

from gateway.store.counts.hours import HOUR_MS
from gateway.store.counts.ledger import CALLS, CHECKED, Phase, Seen, versioned
from gateway.store.counts.tally_delta import TallyAddress, TallyChanges, new_address
from gateway.store.rows.calls import CallRow, StoredCall, by_shared_fields, wrong_of
from gateway.store.rows.feedback_status import Status
from gateway.store.rows.recorded import ChangedValue, Recorded
from gateway.store.rows.shared_fields import SharedFields
from gateway.store.units.unit_buckets import BucketChanges, bucket_of, new_changes
from policies.statistics.latency import bucket
from router.merge import Placement
from router.outcomes import Countable, Value, answered
from router.records import FROZEN, UNCOUNTED, WRONG, Outcome, Role
from router.scores import PairMeasure
from router.snapshot import Metric

#: Cached, because latencies are whole microseconds and most calls take few milliseconds: the same ones come again.
_bucket: Final = lru_cache(maxsize=2**15)(bucket)


#: The name of a number in the store: calls made since then are counted by stretch too.
FINER_SINCE: Final = "finer_since_ms"

#: How many characters are kept of the detail that a sign was last seen with.
MOST_DETAIL: Final = 64

_AT_MS: Final[Callable[[CallRow], int]] = itemgetter(CallRow._fields.index("at_ms"))


_NEVER_MS: Final = 2**62


class Origin(Countable, Protocol):
    """What a value comes from: a prediction, or the fields that several share."""

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


class RoutePeriod(NamedTuple):
    """A route's period."""

    route: str
    epoch: str
    period: int


class Arrival(NamedTuple):
    """A unit's first request: the least of these is the first. It is counted under its period and revision."""

    at_ms: int
    id: str
    period: int
    revision: int
    variant: str


class Sign(NamedTuple):
    """Something that may be wrong, as ``Ledger.signs``: ``variant`` is a variant with its version.

    Of feedback there is no epoch, variant or role: they are "".
    """

    route: str
    epoch: str
    variant: str
    role: str
    word: str


class StatusDelta(NamedTuple):
    """A change of one feedback counter; ``delay_seconds`` since the prediction, for an event that joined.

    ``variant`` is then whose prediction it was; of a merged answer, the ranker whose item the event names.
    """

    route: str
    metric: str
    status: Status
    n: int
    delay_seconds: float | None
    variant: str | None = None


#: What each measure found of one pair of predictions.
Compared = tuple[tuple[PairMeasure, float], ...]

_Change = tuple[str, str, Status, int, float | None, str | None]
#: StatusDelta(*values), of all its fields, at half of the time.
new_status_delta: Final[Callable[[_Change], StatusDelta]] = partial(tuple.__new__, StatusDelta)


class Deltas:
    """Collects outcomes and counts. ``matured`` are the routes where a mature tally moved.

    ``recorded`` collects what the counts are made of, where there are sinks for it. Calls made since ``finer_since_ms``
    are counted by stretch (``FINER_SINCE``).
    """

    def __init__(self, recorded: Recorded | None = None, finer_since_ms: int = 0) -> None:
        self.recorded = recorded
        self._finer_since_ms = finer_since_ms
        #: TallyAddress → unit → what its count changes by, then terms that its sum changes by.
        self.units: defaultdict[TallyAddress, dict[str, list[float]]] = defaultdict(dict)
        #: The same where each prediction is a unit of its own: (address, before, after) → how often.
        self.alone: Counter[tuple[TallyAddress, float | None, float | None]] = Counter()
        #: Shared fields of shadows, by identity → them, and how often predictions were found to compare so.
        self._copies: dict[int, tuple[SharedFields, Counter[Compared]]] = {}
        #: What hours change by: (address, hour) → as in ``units``.
        self.hours: defaultdict[tuple[TallyAddress, int], list[float]] = defaultdict(lambda: [0.0])
        #: What the buckets of tallies change by, but for what ``units`` says.
        self.buckets: defaultdict[TallyAddress, BucketChanges] = defaultdict(new_changes)
        self.arrivals: defaultdict[RoutePeriod, dict[str, Arrival]] = defaultdict(dict)
        self.stretches: Counter[tuple[RoutePeriod, int, str]] = Counter()
        self.latency: Counter[tuple[str, str, str, Role, int]] = Counter()
        self.faults: Counter[tuple[str, str, str, Role, str]] = Counter()
        self.signs: dict[Sign, Seen] = {}
        self.forced: Counter[tuple[str, str]] = Counter()
        #: Route → when the oldest of its calls was made.
        self.oldest: dict[str, int] = {}
        #: (route, epoch) → when its newest call was made.
        self.newest: dict[tuple[str, str], int] = {}
        self.counts: Counter[str] = Counter()
        self.statuses: list[StatusDelta] = []
        #: Routes of which something is known now that nothing else here says.
        self.touched: set[str] = set()
        self.matured: set[str] = set()

    def calls(self, finished: Iterable[StoredCall]) -> None:
        """Count calls: themselves, their faults, their times, and the arrivals of their units."""
        for shared, rows in by_shared_fields(finished).items():
            self._count_alike(shared, rows)

    def _count_alike(self, shared: SharedFields, rows: Sequence[CallRow]) -> None:
        """Count calls that differ in nothing but what is their own."""
        of = versioned(shared.variant, shared.version)
        oldest, newest = min(map(_AT_MS, rows)), max(map(_AT_MS, rows))
        if oldest < self.oldest.get(shared.route, _NEVER_MS):
            self.oldest[shared.route] = oldest
        if newest > self.newest.get((shared.route, shared.epoch), -1):
            self.newest[shared.route, shared.epoch] = newest
        if shared.forced:
            if shared.role == "primary" and shared.reason == FROZEN:
                frozen = Sign(shared.route, shared.epoch, of, shared.role, FROZEN)
                self.sign(frozen, len(rows), oldest)
                self.sign(frozen, 0, newest)
            elif shared.role == "primary":
                self.forced[shared.route, shared.epoch] += len(rows)
            return
        if shared.uncounted:
            self._signs_of(shared, rows)
            return
        if shared.role == "primary":
            self._arrivals(shared, rows)
        if shared.failed or shared.client_error or shared.fault == "dropped":
            self._signs_of(shared, rows)
        for row in rows:
            for word in () if row.more is None else wrong_of(row):
                name, _, detail = word.partition(":")
                if name in WRONG:
                    self.sign(Sign(shared.route, shared.epoch, of, shared.role, name), 1, row.at_ms, detail)
        if shared.fault is not None:
            self.faults[shared.route, shared.epoch, of, shared.role, shared.fault] += len(rows)
            if shared.fault == "dropped":
                return
        checked = Sign(shared.route, shared.epoch, of, shared.role, CHECKED)
        self.sign(checked, len(rows), oldest)
        self.sign(checked, 0, newest)
        buckets = Counter([_bucket(row.latency_ms) for row in rows if row.latency_ms is not None])
        for index, n in buckets.items():
            self.latency[shared.route, shared.epoch, of, shared.role, index] += n
        address, value = _address(shared, "", CALLS, "", "live"), float(shared.failed)
        first = oldest // HOUR_MS
        alike = {first: len(rows)} if newest // HOUR_MS == first else Counter([row.at_ms // HOUR_MS for row in rows])
        for hour, n in alike.items():
            _count(self.hours[address, hour], n, value)
        for unit, n in Counter([row.unit for row in rows] if shared.by_unit else {None: len(rows)}).items():
            if unit is None:
                self.alone[address, None, value] += n
            else:
                _count(self._unit(address, unit), n, value)

    def sign(self, sign: Sign, n: int, at_ms: int, detail: str = "") -> None:
        """Count a sign of something wrong, seen ``n`` times at a time; negative where it was taken back."""
        known = self.signs.get(sign)
        seen = Seen(n, at_ms, at_ms, detail[:MOST_DETAIL])
        self.signs[sign] = seen if known is None else known + seen

    def trouble(self, route: str, status: Status, metric: str, at_ms: int, why: str | None) -> None:
        """Note when an event came to a status that should be rare, and why it cannot count."""
        for word in (status,) if why is None else (status, why):
            self.sign(Sign(route, "", "", "", word), 1, at_ms, metric)

    def _signs_of(self, shared: SharedFields, rows: Sequence[CallRow]) -> None:
        """Count what the status or the fault of these calls says."""
        first_ms, last_ms = min(map(_AT_MS, rows)), max(map(_AT_MS, rows))
        what = shared.fault or ("a fallback answered" if shared.served is not None else str(shared.status))
        for word, is_so in (
            ("failed", shared.failed),
            ("client_error", shared.client_error),
            ("dropped", shared.fault == "dropped"),
            (UNCOUNTED, shared.uncounted),
        ):
            if is_so and shared.uncounted == (word == UNCOUNTED):
                of = versioned(shared.variant, shared.version)
                sign = Sign(shared.route, shared.epoch, of, shared.role, word)
                self.sign(sign, len(rows), first_ms, str(shared.status) if word == "client_error" else what)
                self.sign(sign, 0, last_ms)

    def compared(self, shadow: StoredCall, found: Compared) -> None:
        """Count how a shadow's prediction compares with the primary's: by unit only where a measure says so."""
        shared, unit = shadow.shared, shadow.counted_unit
        if (known := self._copies.get(id(shared))) is None:
            known = self._copies[id(shared)] = shared, Counter()
        if unit is not None:
            for measure, value in found:
                if measure.by_unit:
                    self._outcome(_address(shared, "", measure.name, "", "live"), unit, None, value)
            found = tuple([one for one in found if not one[0].by_unit])
        known[1][found] += 1

    def placed(self, ranker: StoredCall, placement: Placement, sign: int) -> None:
        """Count how a merged list treated two rankers: by request, because each is drawn anew."""
        address = _address(ranker, placement.other, placement.measure, "", "live")
        before, after = (None, placement.value) if sign > 0 else (placement.value, None)
        self.alone[address, before, after] += 1

    def closed(
        self, call: Origin, metric: Metric, n: int = 1, *, units: Iterable[str | None], exposed: bool = True
    ) -> None:
        """Count calls whose window has closed, those that count apart from those whose own answer nobody was shown.

        ``units`` are theirs, where units are counted (``StoredCall.bucketed_unit``); with ``n`` -1 one is taken back.
        """
        exposed = exposed and answered(call, metric)
        phase: Phase = "closed" if exposed else "unexposed"
        address = _address(call, "", metric.name, metric.definition, phase)
        self.alone[address, None, 0.0] += n
        for unit in units if exposed else ():
            if unit is not None:
                self.buckets[address][bucket_of(unit)][0] += 1 if n > 0 else -1

    def outcome(self, call: StoredCall, metric: Metric, value: Value, live: Outcome, mature: Outcome) -> None:
        """Move the live and the mature tally of one value; ``call`` is any call of the request."""
        if self.recorded is not None and (live.before != live.after or mature.before != mature.after):
            self.recorded.outcomes.append(ChangedValue(call, metric, value, live, mature))
        shared, unit = call.shared, call.counted_unit
        variant, version, role, against, _, _ = value
        whose = (
            shared.route,
            shared.epoch,
            shared.period,
            variant,
            version,
            role,
            against,
            metric.name,
            metric.definition,
        )
        before, after = live
        if before != after:
            self._outcome(new_address((*whose, "live", 0)), unit, before, after)
        before, after = mature
        if before != after:
            revision = _revision(call, value, self._finer_since_ms)
            address = new_address((*whose, "mature", revision))
            self._outcome(address, unit, before, after)
            if unit is None and shared.by_unit:
                _change(self.buckets[address][bucket_of(call.row.id)], before, after)
            if not against and call.row.at_ms >= self._finer_since_ms:
                _change(self.hours[address, call.row.at_ms // HOUR_MS], before, after)
            self.matured.add(shared.route)

    def status(self, route: str, metric: str, status: Status, n: int = 1, delay_seconds: float | None = None) -> None:
        """Add to a feedback counter."""
        self.statuses.append(StatusDelta(route, metric, status, n, delay_seconds))

    def feedback(self) -> Mapping[tuple[str, str, Status], int]:
        """Return what each feedback counter changes by."""
        total: defaultdict[tuple[str, str, Status], int] = defaultdict(int)
        for route, metric, status, n, _, _ in self.statuses:
            total[route, metric, status] += n
        return total

    def routes(self) -> set[str]:
        """Return the routes of which anything moved."""
        found = {address.route for address in (*self.units, *(address for address, _, _ in self.alone))}
        found |= {shared.route for shared, _ in self._copies.values()}
        found |= {route for route, *_ in (*self.faults, *self.forced, *self.signs)} | {
            delta.route for delta in self.statuses
        }
        return found | self.touched

    def changes(self) -> TallyChanges:
        """Return what tallies change by, for predictions that are units of their own."""
        found = TallyChanges()
        for (address, before, after), n in self.alone.items():
            found[address].requests(before, n, -1)
            found[address].requests(after, n)
        for shared, compared in self._copies.values():
            addresses: dict[str, TallyAddress] = {}
            for each, n in compared.items():
                for measure, value in each:
                    address = addresses.get(measure.name) or _address(shared, "", measure.name, "", "live")
                    addresses[measure.name] = address
                    found[address].requests(value, n)
        return found

    def _outcome(self, address: TallyAddress, unit: str | None, before: float | None, after: float | None) -> None:
        if before == after:
            return
        if unit is None:
            self.alone[address, before, after] += 1
            return
        _change(self._unit(address, unit), before, after)

    def _unit(self, address: TallyAddress, unit: str) -> list[float]:
        units = self.units[address]
        more = units.get(unit)
        if more is None:
            more = units[unit] = [0.0]
        return more

    def _arrivals(self, shared: SharedFields, rows: Sequence[CallRow]) -> None:
        period = RoutePeriod(shared.route, shared.epoch, shared.period)
        named = [row for row in rows if row.unit is not None] if shared.by_unit else []
        if len(named) < len(rows):
            self.stretches[period, shared.revision, shared.variant] += len(rows) - len(named)
        arrivals = self.arrivals[period]
        for row in named:
            unit, at_ms = row.unit, row.at_ms
            assert unit is not None
            known = arrivals.get(unit)
            if known is None or at_ms < known.at_ms or (at_ms == known.at_ms and row.id < known.id):
                arrivals[unit] = Arrival(at_ms, row.id, shared.period, shared.revision, shared.variant)


def _count(more: list[float], n: int, value: float) -> None:
    """Add ``n`` calls of this value to what a count and a sum change by."""
    more[0] += n
    if value:
        more.append(n * value)


def _change(more: list[float], before: float | None, after: float | None) -> None:
    """Add to what a count and a sum change by."""
    if before is not None:
        more[0] -= 1
        if before:
            more.append(-before)
    if after is not None:
        more[0] += 1
        if after:
            more.append(after)


def address_of(call: StoredCall, value: Value, metric: Metric, phase: Phase, finer_since_ms: int = 0) -> TallyAddress:
    """Return where a value of a request counts; ``call`` is any call of it."""
    variant, version, role, against, _, _ = value
    whose = (call.route, call.epoch, call.period, variant, version, role, against, metric.name, metric.definition)
    return new_address((*whose, phase, _revision(call, value, finer_since_ms) if phase == "mature" else 0))


def _revision(call: StoredCall, value: Value, finer_since_ms: int) -> int:
    """Return the revision under which a mature value is kept: that of the plan, for an answer that was drawn anew."""
    shared, row = call
    if shared.by_unit or value.against or value.role == "shadow" or row.at_ms < finer_since_ms:
        return 0
    return shared.revision


def _address(call: Origin, against: str, metric: str, definition: str, phase: Phase) -> TallyAddress:
    whose = (call.route, call.epoch, call.period, call.variant, call.version, call.role)
    return new_address((*whose, against, metric, definition, phase, 0))
