"""Predictions with their outcomes, read from the store in batches.

Rule: each batch is one transaction on the connection that only reads, so that no writer waits for it. Its values are
computed in a thread, so that reports and scrapes are answered meanwhile. Each prediction is read once, as it is at that
moment; one recorded later whose time lies in a batch already read is left out.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any, Final, NamedTuple

import orjson

from gateway.store.counts import plans
from gateway.store.counts.definitions import Definitions
from gateway.store.prediction_view import metric_values
from gateway.store.rows import calls, feedback_events
from gateway.store.rows.calls import Span, StoredCall
from gateway.store.rows.feedback_events import Event
from gateway.store.unit_data import Transactions
from router.records import fields_stored

#: Predictions in the first batch and the most in any, and the bytes of lines that a batch aims at.
FIRST: Final = 500
MOST: Final = 2_000
BATCH_BYTES: Final = 2**21


class ExportBatch(NamedTuple):
    """Calls as JSON Lines. With it, all calls made before ``until_ms`` are exported."""

    lines: bytes
    until_ms: int


async def exported(
    store: Transactions, span: Span, *, texts: bool = False, first: int = FIRST
) -> AsyncIterator[ExportBatch]:
    """Yield a route's finished calls of a span in the order of time, each with its ``outcomes``.

    With ``texts`` fields that may be any JSON (``prediction``, ``features``) are strings that hold it, as columns need.
    """
    since_ms, batch = span.since_ms, first
    while since_ms < span.until_ms:
        async with store.read() as connection:
            until_ms = await calls.reach(connection, span.route, since_ms, span.until_ms, batch)
            stored = await calls.inside(connection, Span(span.route, since_ms, until_ms))
            definitions = await plans.read_definitions(connection)
            ids = list(dict.fromkeys(call.row.id for call in stored))
            joined = await feedback_events.about(connection, ids, "joined", sharing=definitions.sharing)
        lines = await asyncio.to_thread(_lines, stored, joined, definitions, texts)
        since_ms = until_ms
        batch = max(1, min(MOST, 2 * batch, batch * BATCH_BYTES // max(1, len(lines))))
        yield ExportBatch(lines, until_ms)


def _lines(
    stored: Sequence[StoredCall], joined: Mapping[str, Collection[Event]], definitions: Definitions, texts: bool
) -> bytes:
    return b"".join(
        orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE)
        for _, together in groupby(stored, key=lambda call: call.row.id)
        for row in _rows([call for call in together if not call.open], joined, definitions, texts)
    )


def _rows(
    finished: Sequence[StoredCall], joined: Mapping[str, Collection[Event]], definitions: Definitions, texts: bool
) -> Iterator[dict[str, Any]]:
    """Yield the calls of one prediction, as ``calls.as_json`` has them but for what is JSON already."""
    if not finished:
        return
    learned = [event.feedback for event in joined.get(finished[0].row.id, ())]
    found = metric_values(definitions, finished, learned)
    for call in finished:
        row = calls.as_stored(call)
        if texts:
            for name in _OBJECTS:
                if row[name] is not None:
                    row[name] = calls.json_of(row[name])
        elif row["prediction"] is not None:
            row["prediction"] = orjson.Fragment(row["prediction"])
        row["open"] = False
        row["outcomes"] = [
            {"metric": name, "against": value.against or None, "live": value.live, "mature": value.mature}
            for name, value in found
            if value.variant == call.shared.variant and value.role == call.shared.role
        ]
        yield row


#: Rare fields that may be any JSON; ``prediction`` is stored as JSON.
_OBJECTS: Final = tuple(one.name for one in fields_stored("rare") if one.kind in {"json", "object"})
