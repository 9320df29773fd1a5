"""What a scrape reads of the store, part by part.

Rule: a series is never left out because the store is slow: it keeps its last value, and how old that is has a series of
its own. A part is read once at a time and to its end, however many scrapes wait for it or stop waiting.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping

from gateway.admin.api.reports import Reports, from_store
from gateway.admin.metrics.metrics import Metrics
from gateway.control.queries import Queries

logger = logging.getLogger(__name__)


class Readings:
    """Reads parts by name. ``clock`` is monotonic, in seconds."""

    def __init__(self, parts: Mapping[str, Callable[[], Awaitable[None]]], *, clock: Callable[[], float]) -> None:
        self._parts = parts
        self._clock = clock
        self._read = dict.fromkeys(parts, clock())
        self._reading: dict[str, asyncio.Task[None]] = {}

    async def refresh(self, seconds: float) -> Mapping[str, float]:
        """Read every part, as far as the time allows; return how many seconds old each is."""
        for name in self._parts.keys() - self._reading.keys():
            self._reading[name] = asyncio.create_task(self._one(name))
        await asyncio.wait(list(self._reading.values()), timeout=seconds)
        now = self._clock()
        return {name: now - self._read[name] for name in self._parts}

    async def _one(self, name: str) -> None:
        began = self._clock()
        try:
            await self._parts[name]()
            self._read[name] = began
        except Exception as error:  # the store cannot be read: what was read last stays
            logger.debug("%s could not be read for /metrics", name, exc_info=error)
        finally:
            del self._reading[name]


def readings(queries: Queries, reports: Reports, metrics: Metrics, *, clock: Callable[[], float]) -> Readings:
    """Return what ``/metrics`` reads of the store."""

    async def quality() -> None:
        metrics.refresh_quality(await reports.all())

    async def feedback() -> None:
        metrics.refresh_account(await from_store(queries, lambda ask: ask.store.feedback_total()))

    async def sinks() -> None:
        metrics.refresh_sinks(await from_store(queries, lambda ask: ask.sinks()))

    return Readings({"reports": quality, "feedback": feedback, "sinks": sinks}, clock=clock)
