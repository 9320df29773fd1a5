"""CloudEvents in JSON of what was recorded.

Rule: pure. The fields have the names of the log (``records.CALL_FIELDS``), and a unit has the name that it is stored
under. Where something happens once for a prediction, the event's id is made from the prediction's: made again, the
event has the same id.

| type     | once for each                                           | id                                  |
|----------|---------------------------------------------------------|-------------------------------------|
| request  | request (rarely twice, with one id, if its answer was merged) | prediction id + ".request"          |
| decision | request; of a merged answer, each ranker                | … + ".decision" (+ "." + variant)   |
| response | call that ended, copies for shadows too                 | … + ".response." + role + variant   |
| feedback | status that a feedback event comes to                   | of its own                          |
| outcome  | change of a value: ``live`` and ``mature``, before and after | of its own                     |
| body     | request of which something was captured                 | … + ".body"                         |
| verdict  | change of a variant's verdict                           | of its own                          |
| rollout, act, trigger | what moved, was done, or fired             | what announced it                   |

Source: CloudEvents 1.0.2, section "Context Attributes"; its JSON format, section 3; its Distributed Tracing extension.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from operator import itemgetter
from typing import Any, Final
from urllib.parse import quote

import orjson

from gateway.moments import rfc3339
from gateway.proxy.exchange.ids import new_id
from gateway.store.rows import calls
from gateway.store.rows.bodies import Body
from gateway.store.rows.calls import StoredCall
from gateway.store.rows.feedback_events import Event as FeedbackEvent
from gateway.store.rows.recorded import Announced, ChangedValue, ChangedVerdict, Recorded
from router.records import CALL_FIELDS
from router.snapshot import EventType, Sink

logger = logging.getLogger(__name__)

SPECVERSION: Final = "1.0"


def events(sink: Sink, recorded: Recorded, now_ms: int) -> Iterator[bytes]:
    """Yield the events that a sink asks for, each as JSON without a line break, in the order of what caused them.

    One that cannot be written, which would be a defect of this program, is empty.
    """
    wanted, routes = frozenset(sink.events), frozenset(sink.routes)
    for kind, route, make in _events(recorded, now_ms):
        if kind in wanted and (not routes or route in routes):
            yield _written(sink, kind, route, make)
    for judged in recorded.verdicts:
        if "verdict" in wanted and (not routes or judged.route in routes):
            yield _written(sink, "verdict", judged.route, partial(_verdict, sink, judged))
    for one in recorded.announced:
        asked = one.kind in wanted and (not routes or one.route is None or one.route in routes)
        if asked or sink.name in one.named:
            yield _written(sink, one.kind, one.route, partial(_announced, sink, one))


def _written(sink: Sink, kind: EventType, route: str | None, make: Callable[[], Event]) -> bytes:
    try:
        return orjson.dumps({**make(), "type": f"{sink.type_prefix}{kind}"})
    except Exception:
        logger.exception("a %s event of route %s cannot be written", kind, route)
        return b""


Event = dict[str, Any]
#: A kind of event, its route, and what makes it.
Unmade = tuple[EventType, str, Callable[[], Event]]
#: Gives the values of ``_VALUES``.
Content = Callable[[], tuple[Any, ...]]


def _events(recorded: Recorded, now_ms: int) -> Iterator[Unmade]:
    asked: set[str] = set()
    for call, first in recorded.calls:
        content = _content_of(call)
        if first and call.role != "shadow":
            if call.id not in asked:  # each ranker of a merged answer has a call of the same request
                asked.add(call.id)
                yield "request", call.route, partial(_request, call, content)
            yield "decision", call.route, partial(_decision, call, content)
        if not call.open:
            yield "response", call.route, partial(_response, call, content)
    for body in recorded.bodies:
        yield "body", body.route, partial(_body, body)
    for event in recorded.events:
        yield "feedback", event.counted, partial(_feedback, event, now_ms)
    for changed in recorded.outcomes:
        yield "outcome", changed.call.route, partial(_outcome, changed, now_ms)


def _content_of(call: StoredCall) -> Content:
    """Return what reads the call's values once for all of its events, when the first of them is made."""
    read: list[tuple[Any, ...]] = []

    def content() -> tuple[Any, ...]:
        if not read:
            read.append((*calls.stored_values(call), call.shared.failed))
        return read[0]

    return content


def _request(call: StoredCall, content: Content) -> Event:
    shared, row = call.shared, call.row
    return _event(f"{row.id}.request", shared.route, row.id, row.at_ms, _REQUEST(content()), **_trace(content()))


def _decision(call: StoredCall, content: Content) -> Event:
    shared, row = call.shared, call.row
    id_ = f"{row.id}.decision" if shared.role == "primary" else f"{row.id}.decision.{shared.variant}"
    data = _DECISION(content())
    return _event(id_, shared.route, row.id, row.at_ms, data, variant=shared.variant, **_trace(content()))


def _response(call: StoredCall, content: Content) -> Event:
    shared, row = call.shared, call.row
    data = _RESPONSE(content())
    if row.prediction is not None:
        data["prediction"] = orjson.Fragment(row.prediction)
    ended_ms = row.at_ms + round(row.latency_ms or 0)
    id_ = f"{row.id}.response.{shared.role}.{shared.variant}"
    return _event(id_, shared.route, row.id, ended_ms, data, variant=shared.variant, **_trace(content()))


_VALUES: Final = (*calls.STORED_NAMES, "failed")


def _carrying(*names: str) -> Callable[[tuple[Any, ...]], dict[str, Any]]:
    """Return what takes an event's data from the values of its call: these fields, after the prediction's id."""
    keys, values = ("prediction_id", *names), itemgetter(*map(_VALUES.index, ("id", *names)))
    return lambda content: dict(zip(keys, values(content), strict=True))


#: The fields of a call that each kind of event carries, in the order in which they have always been sent.
_ASKED: Final = ("route", "method", "unit", "key", "features", "request_id")
_DECIDED: Final = (
    *("route", "epoch", "period", "revision", "variant", "model", "version"),
    *("role", "propensity", "reason", "by_unit", "forced"),
)
_ANSWERED: Final = (
    *("route", "role", "variant", "model", "version", "status", "fault", "served", "failed", "latency_ms"),
    *("overhead_ms", "predicted", "prediction", "items", "reported_version", "retries"),
)
#: Attributes of the event (subject, time, traceparent), and what is only in the log.
_ELSEWHERE: Final = ("id", "at_ms", "traceparent", "wrong")
_KNOWN: Final = frozenset({*_ASKED, *_DECIDED, *_ANSWERED, *_ELSEWHERE})
#: A field that is added to the table is sent with the response.
_ADDED: Final = tuple(one.name for one in CALL_FIELDS if one.name not in _KNOWN)
_REQUEST, _DECISION, _RESPONSE = _carrying(*_ASKED), _carrying(*_DECIDED), _carrying(*_ANSWERED, *_ADDED)


def _body(body: Body) -> Event:
    data = {
        "prediction_id": body.id,
        "route": body.route,
        "request": None if body.request is None else orjson.Fragment(body.request),
        "answer": None if body.answer is None else orjson.Fragment(body.answer),
    }
    return _event(f"{body.id}.body", body.route, body.id, body.at_ms, data)


def _feedback(event: FeedbackEvent, now_ms: int) -> Event:
    given = event.feedback
    data = {
        "prediction_id": event.target,
        "also": event.also,
        "route": event.counted,
        "metric": given.metric,
        "value": given.value,
        "status": event.status,
        "key": given.key,
        "item": given.item,
        "event_id": given.event_id,
        "revision": given.revision,
        "occurred_at": None if given.occurred_ms is None else rfc3339(given.occurred_ms),
        "received_at": rfc3339(given.received_ms),
    }
    return _event(new_id(now_ms), event.counted, event.target, given.event_ms, data)


def _outcome(changed: ChangedValue, now_ms: int) -> Event:
    call, metric, value = changed.call, changed.metric, changed.value
    data = {
        "prediction_id": call.id,
        "route": call.route,
        "epoch": call.epoch,
        "period": call.period,
        "metric": metric.name,
        "definition": metric.definition,
        "variant": value.variant,
        "version": value.version,
        "role": value.role,
        "against": value.against or None,
        "live": {"before": changed.live.before, "after": changed.live.after},
        "mature": {"before": changed.mature.before, "after": changed.mature.after},
    }
    return _event(new_id(now_ms), call.route, call.id, now_ms, data, variant=value.variant)


def _verdict(sink: Sink, judged: ChangedVerdict) -> Event:
    data = {
        "route": judged.route,
        "epoch": judged.epoch,
        "variant": judged.variant,
        "metric": judged.metric,
        "status": {"before": judged.before, "after": judged.after},
        "sentence": judged.sentence,
        "link": _page(sink, judged.route),
    }
    return _event(new_id(judged.at_ms), judged.route, None, judged.at_ms, data, variant=judged.variant)


def _announced(sink: Sink, one: Announced) -> Event:
    data = {"route": one.route, **one.data, "link": _page(sink, one.route)}
    return _event(one.id, one.route, None, one.at_ms, data)


def _page(sink: Sink, route: str | None) -> str:
    """Return the url of the page of a route, or of all."""
    return f"{sink.pages}/" if route is None else f"{sink.pages}/routes/{quote(route)}"


def _event(
    id_: str, route: str | None, subject: str | None, at_ms: int, data: Mapping[str, Any], **extensions: str
) -> Event:
    source = "/turnout" if route is None else f"/turnout/routes/{quote(route)}"
    event: Event = {"specversion": SPECVERSION, "id": id_, "source": source}
    if subject is not None:
        event["subject"] = subject
    return {
        **event,
        "time": rfc3339(at_ms),
        "datacontenttype": "application/json",
        **({} if route is None else {"route": route}),
        **extensions,
        "data": data,
    }


def _trace(content: tuple[Any, ...]) -> dict[str, str]:
    traceparent = content[_TRACEPARENT]
    return {} if traceparent is None else {"traceparent": traceparent}


_TRACEPARENT: Final = _VALUES.index("traceparent")
