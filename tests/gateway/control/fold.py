"""The exact fold, written a second time and naively: everything known at once, nothing incremental.

What the store holds after any order, any repeats and any interruptions must equal this.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from math import fsum
from typing import Any

from gateway.store.counts.hours import HourKey
from gateway.store.counts.ledger import CALLS, TallyKey, UnitsOf
from gateway.store.rows.feedback_status import UNKNOWN
from gateway.store.units.unit_buckets import bucket_of, hash_of
from policies.types import BUCKETS, Buckets, Tally
from router.records import LARGEST, Feedback, Prediction
from router.scores import PAIR_MEASURES
from router.snapshot import Metric

#: An exact sum and its count of values.
Sum = tuple[Fraction, float]


class Values(defaultdict[TallyKey, dict[str, Sum]]):
    """The sum of each unit. ``buckets`` has those of units' buckets, ``drawn`` are tallies of calls without units."""

    def __init__(self) -> None:
        super().__init__(dict)
        self.buckets: defaultdict[TallyKey, dict[int, Sum]] = defaultdict(dict)
        self.drawn: set[TallyKey] = set()
        self.hours: defaultdict[HourKey, Sum] = defaultdict(lambda: (Fraction(0), 0.0))


@dataclass
class Fold:
    """What should be counted for one epoch."""

    tallies: dict[TallyKey, Tally]
    feedback: Counter[tuple[str, str, str]]
    arrivals: Counter[tuple[int, str]] = field(default_factory=Counter)
    buckets: dict[TallyKey, Buckets] = field(default_factory=dict)
    few_units: dict[UnitsOf, tuple[tuple[float, float], ...]] = field(default_factory=dict)
    hours: dict[HourKey, tuple[float, float]] = field(default_factory=dict)


def fold(
    calls: Iterable[Prediction],
    events: Sequence[Feedback],
    metrics: Mapping[str, Metric],
    watermark_ms: int,
    *,
    key_rule: str = "latest",
    exposure: bool = False,
) -> Fold:
    """Return the tallies, the feedback by (route, metric, status), and the units by (revision, variant)."""
    requests: dict[str, list[Prediction]] = defaultdict(list)
    for call in calls:
        requests[call.id].append(call)
    met = None
    if exposure:
        every = metric_of_exposure(metrics)
        joined, statuses = judge(requests, [e for e in events if e.metric == "exposed"], every, watermark_ms, key_rule)
        met = {one for one, told in joined.items() if any(e.value for e in told)}
        shown = joined
        joined, more = judge(
            requests, [e for e in events if e.metric != "exposed"], metrics, watermark_ms, key_rule, met
        )
        statuses.update(more)
    else:
        joined, statuses = judge(requests, events, metrics, watermark_ms, key_rule)
    values = Values()
    for prediction_id, rows in requests.items():
        whole = [row for row in rows if not (row.forced or row.uncounted or row.fault == "dropped")]
        for row in whole:
            put(values, row, "", CALLS, "", "live", float(row.failed))
        primary = next((row for row in whole if row.role == "primary"), None)
        for row in whole:
            if row.role == "shadow" and primary and all(r.predicted and not r.failed for r in (row, primary)):
                for measure in PAIR_MEASURES:
                    worth = measure.value(row.prediction, primary.prediction)
                    if worth is not None:
                        whose = None if measure.by_unit else row.id + row.variant
                        put(values, row, "", measure.name, "", "live", worth, unit=whose)
        drafted = {row.variant: row for row in whole if row.role == "draft" and row.items is not None}
        in_order = next((row.shown for row in whole if row.role == "draft" and row.shown is not None), None)
        if {"a", "b"} <= set(drafted) and in_order is not None:
            ours, theirs = drafted["a"].items or (), drafted["b"].items or ()
            ups = [1 if in_order.index(x) < in_order.index(y) else -1 for x, y in zip(ours, theirs, strict=False)]
            most = (len(ours) > len(theirs)) - (len(ours) < len(theirs))
            for name, way in (("@first", ups[0]), ("@above", sum(ups) / (len(in_order) // 2)), ("@credited", most)):
                put(values, drafted["a"], "b", name, "", "live", float(way), unit=prediction_id)
        if met is not None:
            every_ms = every["exposed"].window_ms
            told = [e for e in shown.get(prediction_id, ()) if e.value is not None]
            weigh(values, whole, told, every["exposed"], rows[0].at_ms + every_ms < watermark_ms)
        for metric in metrics.values():
            closed = rows[0].at_ms + metric.window_ms < watermark_ms
            told = [e for e in joined.get(prediction_id, ()) if e.metric == metric.name and e.value is not None]
            if met is not None and prediction_id not in met:
                for row in whole if closed else ():
                    if row.role != "shadow" or metric.kind == "label":
                        unit = row.id + row.role + row.variant
                        put(values, row, "", metric.name, metric.definition, "unexposed", 0.0, unit=unit)
                continue
            weigh(values, whole, told, metric, closed)
    tallies = {
        key: replace(tally_of(units.values(), moments=key.phase == "mature"), distinct=newly(key, values))
        for key, units in values.items()
    }
    return Fold(tallies, statuses, arrive(requests.values()), bucketed(values), few(values), hourly(values))


def hourly(values: Values) -> dict[HourKey, tuple[float, float]]:
    return {key: (d, float(m)) for key, (m, d) in values.hours.items()}


def newly(key: TallyKey, values: Values) -> int:
    """How many of a tally's units have no values in an earlier period."""
    earlier = [units for other, units in values.items() if other.period < key.period and other[1:] == key[1:]]
    return sum(not any(unit in units for units in earlier) for unit in values[key])


def bucketed(values: Values) -> dict[TallyKey, Buckets]:
    """The buckets of tallies in which units alone are counted."""
    found = {}
    for key in values.buckets.keys() - values.drawn:
        each = [values.buckets[key].get(bucket, (Fraction(0), 0.0)) for bucket in range(BUCKETS)]
        found[key] = Buckets(tuple(float(m) for m, _ in each), tuple(d for _, d in each))
    return found


def few(values: Values) -> dict[UnitsOf, tuple[tuple[float, float], ...]]:
    """Every unit of mature values, where each has a name."""
    pooled: dict[UnitsOf, dict[str, Sum]] = defaultdict(dict)
    for key, units in values.items():
        if key.phase == "mature" and not key.revision:
            of = pooled[UnitsOf(*key[1:7])]
            for unit, (m, d) in units.items():
                before = of.get(unit, (Fraction(0), 0.0))
                of[unit] = (before[0] + m, before[1] + d)
    named = {place: of for place, of in pooled.items() if all(unit.startswith("u:") for unit in of)}
    return {
        place: tuple((float(of[unit][0]), of[unit][1]) for unit in sorted(of, key=lambda unit: hash_of(unit[2:])))
        for place, of in named.items()
    }


def tally_of(units: Collection[tuple[Fraction, float]], *, moments: bool) -> Tally:
    """Tallies computed afresh from units: every sum is rounded once, at the end."""
    each = [(float(m), d) for m, d in units]
    plain = Tally.of_units((0.0, d) for _, d in each)
    return replace(
        plain,
        m=float(sum(m for m, _ in units)),
        m2=fsum(m * m for m, _ in each),
        md=fsum(m * d for m, d in each),
        m3=fsum(m * m * m for m, _ in each) if moments else 0.0,
        m2d=fsum(m * m * d for m, d in each) if moments else 0.0,
        md2=fsum(m * d * d for m, d in each) if moments else 0.0,
        d3=plain.d3 if moments else 0.0,
        positive=sum(m > 0 for m, _ in each),
        negative=sum(m < 0 for m, _ in each),
    )


def judge(
    requests: Mapping[str, Sequence[Prediction]],
    events: Sequence[Feedback],
    metrics: Mapping[str, Metric],
    watermark_ms: int,
    key_rule: str,
    met: Collection[str] | None = None,
) -> tuple[dict[str, list[Feedback]], Counter[tuple[str, str, str]]]:
    """Return the events that count, by prediction, and the status of every event."""
    joined: dict[str, list[Feedback]] = defaultdict(list)
    statuses: Counter[tuple[str, str, str]] = Counter()
    groups: dict[str, list[Feedback]] = defaultdict(list)
    for event in events:
        groups[event.identity].append(event)

    def find(event: Feedback) -> list[Sequence[Prediction]]:
        known = event.metric in metrics
        return led(event, requests, watermark_ms, key_rule if known else "latest", reach(event, metrics))

    for group in groups.values():
        # Drawn events of one identity and revision never share the millisecond unless they are alike.
        group.sort(key=lambda event: event.received_ms)
        originals: dict[int, Feedback] = {}
        for event in group:
            if event.revision in originals:
                route = route_of(find(event), event)
                statuses[route, event.metric, "repeated"] += 1
            else:
                originals[event.revision] = event
        candidates = []
        for event in originals.values():
            found = find(event)
            route = route_of(found, event)
            if not found:
                end = event.received_ms + 5_000
                patience = end if event.prediction_id else max(end, event.event_ms + reach(event, metrics))
                ours = event.prediction_id is None or re.match(r".{8}-.{4}-7", event.prediction_id)
                status = "orphaned" if watermark_ms > patience or not ours else "waiting"
            elif not (able := [rows for rows in found if can_count(event, rows, metrics)]):
                status = "not_applicable"
            elif inside := [rows[0].id for rows in able if not outside(event, rows[0], metrics[event.metric])]:
                if met is None or any(one in met for one in inside):
                    candidates.append((event, inside, route))
                    continue
                status = "not_exposed"
            else:
                status = "late"
            statuses[route, event.metric, status] += 1
        candidates.sort(key=lambda candidate: candidate[0].revision)
        for event, _, route in candidates[:-1]:
            statuses[route, event.metric, "corrected"] += 1
        for event, inside, route in candidates[-1:]:
            statuses[route, event.metric, "joined"] += 1
            for prediction_id in inside:
                joined[prediction_id].append(event)
    return joined, statuses


def metric_of_exposure(metrics: Mapping[str, Metric]) -> dict[str, Metric]:
    window_ms = max(metric.window_ms for metric in metrics.values())
    one = next(iter(metrics.values()))
    changes: dict[str, Any] = {"kind": "event", "score": None, "fold": "any", "missing": None, "before_ms": None}
    changes |= {"mature": "arrival", "window_ms": window_ms, "definition": f"exposed:{window_ms}", "range": None}
    return {"exposed": replace(one, name="exposed", **changes)}


def reach(event: Feedback, metrics: Mapping[str, Metric]) -> int:
    """How long after an event by key its prediction may be made."""
    return (metrics[event.metric].before_ms or 0) if event.metric in metrics else 0


def led(
    event: Feedback, requests: Mapping[str, Sequence[Prediction]], watermark_ms: int, rule: str, back: int
) -> list[Sequence[Prediction]]:
    """The requests an event is about; the first is the one whose route it is counted under."""
    if event.prediction_id is not None:
        return [requests[event.prediction_id]] if event.prediction_id in requests else []
    if event.event_ms >= watermark_ms:
        return []
    keyed = [rows for rows in requests.values() if (rows[0].route, rows[0].key) == (event.route, event.key)]
    keyed.sort(key=lambda rows: (rows[0].at_ms, rows[0].id))
    before = [rows for rows in keyed if rows[0].at_ms <= event.event_ms]
    after = [rows for rows in keyed if event.event_ms < rows[0].at_ms <= event.event_ms + back]
    if rule == "all":
        return [*reversed(before), *after]
    return before[-1:] if rule == "latest" and before else before[:1] if before else after[:1]


def outside(event: Feedback, row: Prediction, metric: Metric) -> bool:
    early = metric.before_ms is not None and event.event_ms + metric.before_ms < row.at_ms
    return early or event.event_ms > row.at_ms + metric.window_ms


def can_count(event: Feedback, rows: Sequence[Prediction], metrics: Mapping[str, Metric]) -> bool:
    """Whether an event may count for a request: in a merged answer it must name an item that was shown."""
    if event.metric not in metrics or rows[0].uncounted:
        return False
    exempt = event.value is None or event.metric == "exposed" or metrics[event.metric].kind == "label"
    if not exempt and any(row.served for row in rows):
        return False
    rankers = [row for row in rows if row.role == "draft"]
    if not rankers or exempt:
        return True
    return any(event.item in (row.items or ()) or event.item in (row.shown or ()) for row in rankers)


def route_of(found: Sequence[Sequence[Prediction]], event: Feedback) -> str:
    return found[0][0].route if found else event.route or UNKNOWN


def weigh(values: Values, rows: Sequence[Prediction], told: Sequence[Feedback], metric: Metric, closed: bool) -> None:
    """Put the values of one request for one metric."""
    scored: dict[str, float] = {}
    for row in rows:
        if row.role == "shadow" and metric.kind != "label":
            continue
        unseen = row.served is not None and metric.kind != "label" and metric.name != "exposed"
        if closed:
            phase = "unexposed" if unseen else "closed"
            put(values, row, "", metric.name, metric.definition, phase, 0.0, unit=row.id + row.role + row.variant)
        if unseen:
            continue
        mine = [e for e in told if row.role != "draft" or metric.kind == "label" or e.item in (row.items or ())]
        value = merge([(e, score(row, e, metric)) for e in mine], metric)
        if not mine and row.role != "shadow" and closed:
            value = metric.missing
            ripe = True
        else:
            ripe = closed or metric.mature == "arrival"
        if value is not None:
            scored[row.role if row.role == "primary" else row.variant] = value
            put(values, row, "", metric.name, metric.definition, "live", value)
            if ripe:
                put(values, row, "", metric.name, metric.definition, "mature", value)
    phases = ("live", "mature") if closed or metric.mature == "arrival" else ("live",)
    if metric.kind == "label":
        for row in rows:
            if row.role == "shadow" and row.variant in scored and "primary" in scored:
                primary = next(r for r in rows if r.role == "primary")
                for phase in phases:
                    difference = scored[row.variant] - scored["primary"]
                    put(values, row, primary.variant, metric.name, metric.definition, phase, difference)
        return
    merged = [row for row in rows if row.role == "draft" and row.items is not None and not row.failed]
    whole = [item for row in rows if row.role == "draft" for item in row.shown or ()]
    in_rounds = any(row.shown is not None for row in rows if row.role == "draft")
    if not any(e.item in (whole if in_rounds else row.items or ()) for row in merged for e in told):
        return
    earned = {}
    for row in merged:
        parts = [merge([(e, number(e.value)) for e in told if e.item == item], metric) for item in row.items or ()]
        earned[row.variant] = [0.0 if part is None else part for part in parts]
    for row in merged:
        for other in merged:
            if other.variant != row.variant:
                a, b = sum(earned[row.variant]), sum(earned[other.variant])
                if in_rounds:
                    rounds = list(zip(earned[row.variant], earned[other.variant], strict=False))
                    a, b = sum(one > two for one, two in rounds), sum(one < two for one, two in rounds)
                for phase in phases:
                    sign = 1.0 if a > b else -1.0 if a < b else 0.0
                    put(values, row, other.variant, metric.name, metric.definition, phase, sign)


def put(
    values: Values,
    row: Prediction,
    against: str,
    metric: str,
    definition: str,
    phase: Any,
    value: float,
    unit: str | None = None,
) -> None:
    stretched = phase == "mature" and not (row.by_unit or against or row.role == "shadow")
    revision = row.revision if stretched else 0
    key = TallyKey(row.period, row.variant, row.version, row.role, against, metric, definition, phase, revision)
    unit = unit or (f"u:{row.unit}" if row.by_unit and row.unit is not None else row.id)
    m, d = values[key].get(unit, (Fraction(0), 0.0))
    values[key][unit] = (m + Fraction(value), d + 1.0)
    if not against and (phase == "mature" or metric == CALLS):
        hour = row.at_ms - row.at_ms % 3_600_000
        at = HourKey("r", "e", metric, definition, hour, row.variant, row.version, row.role)
        m, d = values.hours[at]
        values.hours[at] = (m + Fraction(value), d + 1.0)
    if not row.by_unit:
        values.drawn.add(key)
    elif phase in {"mature", "closed"}:
        bucket = bucket_of(row.id if row.unit is None else row.unit)
        m, d = values.buckets[key].get(bucket, (Fraction(0), 0.0))
        values.buckets[key][bucket] = (m + Fraction(value), d + 1.0)


def score(row: Prediction, event: Feedback, metric: Metric) -> float | None:
    if metric.kind != "label":
        return number(event.value)
    if row.failed:
        return 0.0 if metric.score == "match" and row.role != "shadow" else None
    if not row.predicted:
        return None
    if metric.score == "match":
        return float(equal(event.value, row.prediction))
    if isinstance(event.value, bool) or isinstance(row.prediction, bool | str | None):
        return None
    if number(row.prediction) is None or number(event.value) is None:
        return None
    return abs(float(row.prediction) - float(event.value))


def number(value: Any) -> float | None:
    return float(value) if abs(value) <= LARGEST else None


def merge(scores: Sequence[tuple[Feedback, float | None]], metric: Metric) -> float | None:
    if metric.fold in ("first", "last"):
        ordered = sorted(scores, key=lambda pair: (pair[0].event_ms, pair[0].identity), reverse=metric.fold == "last")
        return ordered[0][1] if ordered else None
    numbers = [number for _, number in scores if number is not None]
    if not numbers:
        return None
    match metric.fold:
        case "any":
            return 1.0 if any(number != 0 for number in numbers) else 0.0
        case "sum":
            return fsum(numbers)
        case "max":
            return max(numbers)
        case _:
            return fsum(numbers) / len(numbers)


def equal(a: Any, b: Any) -> bool:
    """Drawn predictions are numbers, booleans, strings and null."""
    return type(a) is type(b) and bool(a == b) if isinstance(a, bool) or isinstance(b, bool) else bool(a == b)


def arrive(requests: Iterable[Sequence[Prediction]]) -> Counter[tuple[int, str]]:
    found: Counter[tuple[int, str]] = Counter()
    first: dict[str, Prediction] = {}
    for rows in requests:
        for row in rows:
            if row.role != "primary" or row.forced or row.uncounted:
                continue
            if not row.by_unit or row.unit is None:
                found[row.revision, row.variant] += 1
            elif row.unit not in first or (row.at_ms, row.id) < (first[row.unit].at_ms, first[row.unit].id):
                first[row.unit] = row
    for row in first.values():
        found[row.revision, row.variant] += 1
    return found
