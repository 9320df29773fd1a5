"""Copies of requests to variants whose answers nobody waits for.

Rule: a mirror never touches the client's answer. It runs in a task of its own, over connections and limits of its own,
bounded in number, size and time; a copy that is not sent is counted and leaves a row that says so.
"""

from __future__ import annotations

import asyncio
import logging
from time import perf_counter
from typing import Final

from gateway.proxy.calls import Call, call, since
from gateway.proxy.case import Case
from gateway.proxy.counts import Counts
from gateway.proxy.headers import Header
from gateway.proxy.log import Log
from gateway.proxy.reading import Kept, read_answer, worth_reading
from gateway.proxy.upstream import UpstreamFault

logger = logging.getLogger(__name__)

#: Copies under way in one worker. More would be memory and backends' time for something nobody waits for.
MAX_COPIES: Final = 128
#: The largest body that is copied: held until the mirror has it, long after the client has its answer.
MAX_BODY_BYTES: Final = 2**20
#: How a backend knows a copy from a request.
MARK: Final[Header] = (b"turnout-mirror", b"1")


class Mirrors:
    """Sends copies and writes their rows."""

    def __init__(self, log: Log, counts: Counts, *, max_copies: int = MAX_COPIES) -> None:
        self._log = log
        self._counts = counts
        self._max_copies = max_copies
        self._copies: set[asyncio.Task[None]] = set()
        self._draining = False

    def __len__(self) -> int:
        return len(self._copies)

    def send(self, case: Case, body: bytes | None) -> None:
        """Start a copy for each mirrored variant; ``body`` is None when it is too long to be copied."""
        for variant in case.routing.mirrored:
            if self._draining:
                self._drop(case, variant, "draining")
            elif body is None or len(body) > MAX_BODY_BYTES:
                self._drop(case, variant, "body_too_large")
            elif len(self._copies) >= self._max_copies:
                self._drop(case, variant, "full")
            else:
                self._start(case, variant, body)

    async def drain(self, timeout_seconds: float) -> None:
        """Take no more copies, let those under way finish, then stop what is left."""
        self._draining = True
        if self._copies:
            _, late = await asyncio.wait(self._copies, timeout=timeout_seconds)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late)

    def _start(self, case: Case, variant: str, body: bytes) -> None:
        # Registered here and not in the task: before it runs, a heartbeat or a swap of snapshots could pass it by.
        ticket = self._log.pending.begin(case.at_ms)
        case.generation.enter()
        task = asyncio.create_task(self._copy(case, variant, body))
        self._copies.add(task)

        def done(task: asyncio.Task[None]) -> None:
            self._copies.discard(task)
            self._log.pending.end(ticket)
            case.generation.leave()
            if not task.cancelled() and (error := task.exception()) is not None:
                logger.error("a copy for %s failed", variant, exc_info=error)

        task.add_done_callback(done)

    def _drop(self, case: Case, variant: str, reason: str) -> None:
        self._counts.add("mirror_drops", route=case.routing.route.name, variant=variant, reason=reason)
        self._log.note(case.line(variant, "shadow", {"fault": "dropped"}))

    async def _copy(self, case: Case, variant: str, body: bytes) -> None:
        backend = case.generation.backends[variant]
        began = perf_counter()
        try:
            # A stream has no total for clients, but a copy must end: its row holds back the watermark.
            async with asyncio.timeout((backend.timeout_ms + backend.idle_timeout_ms) / 1000):
                came = await self._call(case, variant, body)
        except TimeoutError:
            came = Call(None, since(began), "timeout")
        except asyncio.CancelledError:
            self._drop(case, variant, "draining")
            raise
        outcome = came.outcome()
        if came.fault is None:
            read_answer(outcome, case, variant, came, came.body, self._counts)
        self._log.note(case.line(variant, "shadow", outcome))

    async def _call(self, case: Case, variant: str, body: bytes) -> Call:
        began = perf_counter()
        headers = case.generation.dressed([*case.headers, MARK], variant)
        came = await call(case.generation.mirroring(variant), case, headers, body)
        if came.answer is None:
            return came
        # Taken to its end as a client would, so that latencies compare; kept only as far as it is read.
        kept = Kept(worth_reading(case, variant, came))
        try:
            async for chunk in came.answer.chunks():
                kept.add(chunk)
        except UpstreamFault as fault:
            came.fault, came.detail, came.latency_ms = fault.fault, fault.detail, since(began)
            return came
        finally:
            came.close()
        came.body = kept.whole()
        came.latency_ms = since(began)
        return came
