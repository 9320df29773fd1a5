"""Windows of predictions: where the first open one may be under each definition, and closing those that are due.

Rule: a definition costs something when the window of a call closes under it, and nothing else. So of each definition
that has calls with open windows it is known where the first of them may be, and only that is compared to the watermark.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.control.join.valuation import RequestState, Valuation, feedback_of, finished_of
from gateway.store.counts import plans
from gateway.store.counts.definitions import Definition, DefinitionKey, Definitions
from gateway.store.counts.deltas import Deltas
from gateway.store.rows import calls, feedback_events
from router.exposure import exposed
from router.outcomes import counted
from router.records import EXPOSED

_ALWAYS_MS: Final = 2**62


class Windows:
    """The windows that are open, by definition. ``set_aside`` are predictions whose windows cannot be closed."""

    def __init__(self, definitions: Definitions, valuation: Valuation, set_aside: Collection[str]) -> None:
        self._definitions = definitions
        self._valuation = valuation
        self.set_aside = set(set_aside)
        #: No call with an open window is earlier than this, by definition; of those that are missing there is none.
        self._first_ms: dict[DefinitionKey, int] = {}

    def due(self, watermark_ms: int) -> Iterator[Definition]:
        """Yield the definitions under which windows may close at this watermark."""
        for key, first_ms in self._first_ms.items():
            definition = self._definitions.with_key(key)
            if definition.closes_until(watermark_ms) > first_ms:
                yield definition

    async def look(self, connection: AsyncConnection, definitions: Sequence[Definition]) -> None:
        """Find out where the first call with an open window is, under each of these definitions."""
        spans = {
            definition.key: calls.Span(
                definition.route, since_ms, _ALWAYS_MS if definition.until_ms is None else definition.until_ms
            )
            for definition in definitions
            if (since_ms := definition.first_open_ms(0)) is not None
        }
        found = dict(zip(spans, await calls.first_in(connection, list(spans.values())), strict=True))
        for definition in definitions:
            first = found.get(definition.key)
            if first is None:
                self._first_ms.pop(definition.key, None)
            else:
                self._first_ms[definition.key] = first

    def note_calls(self, oldest: Mapping[str, int], watermark_ms: int | None) -> bool:
        """Note calls that came, the oldest of each route at this time; return whether the window of any is due."""
        due = False
        for route, at_ms in oldest.items():
            for definition in self._definitions.of(route):
                first = definition.first_open_ms(at_ms)
                if first is None or first >= self._first_ms.get(definition.key, _ALWAYS_MS):
                    continue
                self._first_ms[definition.key] = first
                due |= watermark_ms is not None and first < definition.closes_until(watermark_ms)
        return due

    async def first_closing(self, connection: AsyncConnection, definition: Definition, watermark_ms: int) -> list[str]:
        """Return the predictions whose windows close first: those of one millisecond."""
        since, until = max(definition.closed_until, definition.since_ms), definition.closes_until(watermark_ms)
        reached = await calls.reach(connection, definition.route, since, until, 1)
        found = await calls.ids_in(connection, calls.Span(definition.route, since, reached))
        return [one for one in found if one not in self.set_aside]

    async def close(
        self, connection: AsyncConnection, definition: Definition, until: int, deltas: Deltas, limit: int
    ) -> int:
        """Close the windows of predictions before ``until``, or of the first ``limit``; return until where."""
        metric = definition.metric
        assert metric is not None
        deltas.touched.add(definition.route)
        since = max(definition.closed_until, definition.since_ms)
        reached = await calls.reach(connection, definition.route, since, until, limit)
        span = calls.Span(definition.route, since, reached)
        asked = definition.name != EXPOSED and EXPOSED in self._definitions.names(definition.route)
        if not asked:
            for shared, n, units in await calls.counted_in(connection, span, metric):
                deltas.closed(shared, metric, n, units=units)
        if metric.missing is not None or asked or self._definitions.sharing:
            ids = await calls.ids_in(connection, span)
        elif metric.mature == "window":
            ids = await feedback_events.joined_in(connection, span, definition.name)
        else:
            ids = []  # what had a value is mature, and what had none has none now
        if self.set_aside:
            ids = [one for one in ids if one not in self.set_aside]
        requests = await calls.of(connection, ids)
        joined = await feedback_events.joined(connection, ids, sharing=self._definitions.sharing)
        for prediction_id, stored in requests.items():
            learned, finished = feedback_of(joined.get(prediction_id, ())), finished_of(stored)
            events = [event for event in learned if event.metric == definition.name]
            met = not self._definitions.exposure(definition.route, stored[0].at_ms) or exposed(learned)
            open_, closed = (RequestState(finished, events, closed, exposed=met) for closed in (False, True))
            self._valuation.move(definition.name, open_, closed, deltas)
            if asked:
                for call in finished:
                    if counted(call, metric):
                        deltas.closed(call, metric, units=(call.bucketed_unit,), exposed=met)
        await plans.close_definition(connection, definition, reached)
        self._definitions.close(definition, reached)
        return reached
