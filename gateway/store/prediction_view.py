"""One prediction as the API shows it: its calls, its feedback, and its state under each metric.

Rule: it is computed from the rows by the functions that also move the tallies, so what is shown is what was counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.store.counts import plans
from gateway.store.counts.definitions import Definition, Definitions
from gateway.store.rows import bodies, calls, feedback_events
from gateway.store.rows.calls import StoredCall
from gateway.store.rows.feedback_events import Event
from router.exposure import exposed
from router.outcomes import Value, in_time, inapplicable, state, values
from router.records import EXPOSED, Feedback


async def prediction(connection: AsyncConnection, prediction_id: str) -> dict[str, Any] | None:
    """Return a request's calls, its feedback, its values and its state under each metric; None if it is unknown."""
    known = (await calls.of(connection, [prediction_id])).get(prediction_id)
    if known is None:
        return None
    stored = sorted(known, key=lambda call: (call.role, call.variant))
    about = await feedback_events.about(connection, [prediction_id], sharing=True)
    events = sorted(about.get(prediction_id, ()), key=lambda event: event.seq or 0)
    learned = [event.feedback for event in events if event.status == "joined"]
    definitions = await plans.read_definitions(connection)
    states, outcomes = states_and_outcomes(definitions, stored, learned)
    return {
        "prediction_id": prediction_id,
        "calls": [calls.as_json(one) for one in stored],
        "feedback": [
            {**feedback_events.as_json(event), "reason": _why(definitions, stored, event)} for event in events
        ],
        "states": states,
        "outcomes": outcomes,
        "captured": await bodies.of(connection, prediction_id),
    }


def states_and_outcomes(
    definitions: Definitions, stored: Sequence[StoredCall], learned: Sequence[Feedback]
) -> tuple[dict[str, dict[str, Any]], list[dict[str, Any]]]:
    """Return the state of one request under each metric, and the values of its calls, as plain JSON values.

    ``learned`` are the events about it that joined.
    """
    states: dict[str, dict[str, Any]] = {}
    outcomes: list[dict[str, Any]] = []
    for definition in _definitions(definitions, stored[0]):
        states[definition.name], valued = _under_metric(definitions, definition, stored, learned)
        outcomes += valued
    return states, outcomes


def metric_values(
    definitions: Definitions, finished: Sequence[StoredCall], learned: Sequence[Feedback]
) -> list[tuple[str, Value]]:
    """Return the values of the finished calls of one request, each with the name of its metric."""
    at_ms, found = finished[0].at_ms, []
    for definition in _definitions(definitions, finished[0]):
        name, metric = definition.name, definition.metric
        assert metric is not None
        if _counts(definitions, definition, at_ms, learned):
            events = [one for one in learned if one.metric == name and in_time(one.event_ms, at_ms, metric)]
            found += [(name, value) for value in values(finished, events, metric, closed=definition.closed(at_ms))]
    return found


def _counts(definitions: Definitions, definition: Definition, at_ms: int, learned: Sequence[Feedback]) -> bool:
    """Return whether the prediction counts under a metric: where exposure is required, only once it was exposed."""
    return definition.name == EXPOSED or not definitions.exposure(definition.route, at_ms) or exposed(learned)


def _why(definitions: Definitions, stored: Sequence[StoredCall], event: Event) -> str | None:
    """Return why an event cannot count for a prediction with these calls; None if it can."""
    if event.status != "not_applicable":
        return None
    definition = definitions.at(stored[0].route, event.feedback.metric, stored[0].at_ms)
    return inapplicable(stored, event.feedback, None if definition is None else definition.metric)


async def orphans(connection: AsyncConnection, route: str | None, limit: int) -> list[dict[str, Any]]:
    """Return feedback whose prediction was never recorded, the newest first; of any route if ``route`` is None."""
    return [
        {
            "prediction_id": event.feedback.prediction_id,
            "route": event.feedback.route,
            **feedback_events.as_json(event),
            "given_up_ms": event.due_ms,
        }
        for event in await feedback_events.orphans(connection, route, limit)
    ]


def _definitions(definitions: Definitions, call: StoredCall) -> list[Definition]:
    """Return the definitions of the route's metrics at the time of the prediction."""
    found = (definitions.at(call.route, name, call.at_ms) for name in definitions.names(call.route))
    return [definition for definition in found if definition is not None]


def _under_metric(
    definitions: Definitions, definition: Definition, stored: Sequence[StoredCall], learned: Sequence[Feedback]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the state of the prediction under one metric, and its values."""
    name, metric, at_ms = definition.name, definition.metric, stored[0].at_ms
    assert metric is not None
    finished, closed = [call for call in stored if not call.open], definition.closed(at_ms)
    events = [one for one in learned if one.metric == name and in_time(one.event_ms, at_ms, metric)]
    counts = _counts(definitions, definition, at_ms, learned)
    shown = state(finished, events, metric, closed=closed, exposed=counts)
    found = values(finished, events, metric, closed=closed) if counts else ()
    return {"state": shown, "closed": closed, "closes_at_ms": at_ms + metric.window_ms}, [
        {
            "metric": name,
            "variant": value.variant,
            "version": value.version,
            "role": value.role,
            "against": value.against or None,
            "live": value.live,
            "mature": value.mature,
        }
        for value in found
    ]
