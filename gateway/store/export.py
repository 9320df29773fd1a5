"""Predictions with what came of them, read out by the portion.

Rule: a portion per transaction, and between two of them a pause as long as the last one took: recording and reports go
on. Each prediction is read once, as it is at that moment; one that is recorded behind where the reading is, is not.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Sequence
from time import monotonic
from typing import Any, Final

from gateway.store import calls, feedback, plans
from gateway.store.calls import Call, Span
from gateway.store.definitions import Definitions
from gateway.store.feedback import Event
from gateway.store.person import Opened
from gateway.store.told import standing

#: Predictions per transaction: some fifty milliseconds, and some megabytes.
PORTION: Final = 2_000


async def exported(store: Opened, span: Span, portion: int = PORTION) -> AsyncIterator[list[dict[str, Any]]]:
    """Yield a route's finished calls of a span in the order of time: plain JSON values, each with its ``outcomes``."""
    since_ms = span.since_ms
    while since_ms < span.until_ms:
        began = monotonic()
        async with store.read() as connection:
            until_ms = await calls.reach(connection, span.route, since_ms, span.until_ms, portion)
            ids = await calls.ids_in(connection, Span(span.route, since_ms, until_ms))
            stored = await calls.of(connection, ids)
            joined = await feedback.about(connection, ids, "joined", sharing=True)
            definitions = await plans.read_definitions(connection)
        rows = [row for one in sorted(stored) for row in _rows(stored[one], joined.get(one, ()), definitions)]
        since_ms = until_ms
        if rows:
            yield rows
        await asyncio.sleep(monotonic() - began)


def _rows(stored: Sequence[Call], events: Collection[Event], definitions: Definitions) -> list[dict[str, Any]]:
    _, outcomes = standing(definitions, stored, [event.feedback for event in events])
    return [
        {
            **calls.as_json(call),
            "outcomes": [
                {name: one[name] for name in ("metric", "against", "live", "mature")}
                for one in outcomes
                if (one["variant"], one["role"]) == (call.variant, call.role)
            ],
        }
        for call in stored
        if not call.open
    ]
