"""Copies of requests to variants whose answers nobody waits for.

Rule: a mirror never touches the client's answer. Each copy runs on its own, over connections and limits of its own,
bounded in number, size and time; a copy that is not sent is counted and leaves a row that says so.

A body that is here when the request is decided on goes to its copies in the same moment as to the primary. One that is
still coming is *teed*: each piece goes on to the primary as it comes and is kept until the body is whole; then the
copies begin. Sending them piece by piece as well would mean either to hold the primary back to the pace of the slowest
mirror, or to keep what it has not taken yet, which is the same memory; and a client that leaves in the middle would
leave half a request with a variant that it is judged by.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from time import perf_counter
from typing import Final

from gateway.proxy.exchange.call import BackendCall, Kept, call, read_answer, worth_reading
from gateway.proxy.exchange.routed import RoutedRequest, since
from gateway.proxy.log.counts import Counts
from gateway.proxy.log.predictions import Log
from gateway.proxy.wire.deadlines import NEVER, Deadlines
from gateway.proxy.wire.faults import UpstreamFault
from gateway.proxy.wire.fiber import Fiber
from gateway.proxy.wire.headers import Header
from router.snapshot import Gateway

logger = logging.getLogger(__name__)

#: How a backend knows a copy from a request.
MARK: Final[Header] = (b"turnout-mirror", b"1")
#: Seconds for copies to end when they are stopped.
_STOP_SECONDS: Final = 1.0


class Mirrors:
    """Sends copies and writes their rows. Its bounds are those of the gateway's settings, which can be swapped."""

    def __init__(self, log: Log, counts: Counts, gateway: Gateway) -> None:
        self.log = log
        self.counts = counts
        self.deadlines = Deadlines(1.0)
        self._copies: set[Copy] = set()
        self._draining = False
        self._deserted: asyncio.Future[None] | None = None
        self.swap(gateway)

    def __len__(self) -> int:
        return len(self._copies)

    def swap(self, gateway: Gateway) -> None:
        """Go by these bounds from now on."""
        self.max_copies = gateway.mirror_max_concurrency
        self.max_body_bytes = gateway.mirror_max_body_bytes
        self.timeout_seconds = gateway.mirror_timeout_ms / 1000
        self.deadlines.expect(self.timeout_seconds)

    def send(self, routed: RoutedRequest, body: bytes) -> None:
        """Start a copy for each mirrored variant."""
        for variant in routed.routing.mirrored:
            if self._draining:
                self.drop(routed, variant, "draining")
            elif len(body) > self.max_body_bytes:
                self.drop(routed, variant, "body_too_large")
            elif len(self._copies) >= self.max_copies:
                self.drop(routed, variant, "full")
            else:
                self._copies.add(Copy(self, routed, variant, body))

    def tee(self, routed: RoutedRequest, pieces: AsyncIterator[bytes], length: int | None) -> Tee:
        """Return ``pieces`` for the primary, of which copies are sent at their end; ``length`` if it is declared.

        It must be closed.
        """
        return Tee(self, routed, pieces, kept=length is None or length <= self.max_body_bytes)

    def drop(self, routed: RoutedRequest, variant: str, reason: str) -> None:
        """Count a copy that is not sent, or not to its end, and leave its row."""
        self.counts.add("mirror_drops", route=routed.routing.route.name, variant=variant, reason=reason)
        self.log.note(routed.line(variant, "shadow", {"fault": "dropped"}))

    def ended(self, copy: Copy) -> None:
        """A copy has left its row."""
        self._copies.discard(copy)
        self.deadlines.forget(copy)
        if not self._copies and self._deserted is not None and not self._deserted.done():
            self._deserted.set_result(None)

    async def drain(self, timeout_seconds: float) -> None:
        """Take no more copies, let those under way finish, then stop what is left."""
        self._draining = True
        await self._empty(timeout_seconds)
        for copy in list(self._copies):
            copy.stop()
        await self._empty(_STOP_SECONDS)

    async def _empty(self, timeout_seconds: float) -> None:
        if self._copies:
            self._deserted = asyncio.get_running_loop().create_future()
            await asyncio.wait((self._deserted,), timeout=timeout_seconds)


class Tee:
    """A body that is still coming, on its way to the primary: an iterator over its pieces, none of them held back."""

    __slots__ = ("_kept", "_mirrors", "_pieces", "_routed", "_settled", "_size", "_ticket")

    def __init__(self, mirrors: Mirrors, routed: RoutedRequest, pieces: AsyncIterator[bytes], *, kept: bool) -> None:
        self._mirrors = mirrors
        self._routed = routed
        self._pieces = pieces
        self._kept: list[bytes] = []
        self._size = 0
        self._settled = False
        # The primary may have answered, and left its row, before the copies begin.
        self._ticket = mirrors.log.pending.begin(routed.at_ms)
        if not kept:
            self._drop("body_too_large")

    def __aiter__(self) -> Tee:
        return self

    async def __anext__(self) -> bytes:
        try:
            piece = await anext(self._pieces)
        except StopAsyncIteration:
            if not self._settled:
                self._settled = True
                self._mirrors.send(self._routed, b"".join(self._kept))
            raise
        if not self._settled:
            self._kept.append(piece)
            self._size += len(piece)
            if self._size > self._mirrors.max_body_bytes:
                self._drop("body_too_large")
        return piece

    def close(self) -> None:
        """The request is over. A body that did not come whole, or that the primary did not take whole, is no copy."""
        if not self._settled:
            self._drop("body_cut")
        self._kept.clear()
        self._mirrors.log.pending.end(self._ticket)

    def _drop(self, reason: str) -> None:
        self._settled = True
        self._kept.clear()
        for variant in self._routed.routing.mirrored:
            self._mirrors.drop(self._routed, variant, reason)


class Copy:
    """One copy under way. It ends by itself, at its deadline, or when it is stopped, and leaves one row."""

    #: What ``_ended`` deletes; compiled classes want to know.
    __deletable__ = ("_fiber",)
    __slots__ = ("_body", "_fiber", "_late", "_mirrors", "_routed", "_ticket", "_variant", "deadline")

    def __init__(self, mirrors: Mirrors, routed: RoutedRequest, variant: str, body: bytes) -> None:
        loop = asyncio.get_running_loop()
        self._mirrors = mirrors
        self._routed = routed
        self._variant = variant
        self._body = body
        self._late = False
        # Registered here and not in the fiber: before it runs, a heartbeat or a swap of snapshots could pass it by.
        self._ticket = mirrors.log.pending.begin(routed.at_ms)
        routed.generation.enter()
        # A stream has no total for clients, but a copy must end: its row holds back the watermark.
        self.deadline = loop.time() + mirrors.timeout_seconds
        mirrors.deadlines.watch(self)
        self._fiber = Fiber(self._run(), self._ended)
        # Not at once: the primary is sent first, and both in the same turn of the loop as far as anybody can tell.
        loop.call_soon(self._fiber.run)

    def expire(self, now: float) -> None:
        """Its time is up."""
        self._late = True
        self._fiber.cancel()

    def stop(self) -> None:
        """End it now: the gateway ends."""
        self._fiber.cancel()

    def _ended(self, fiber: Fiber, error: BaseException | None) -> None:
        routed = self._routed
        if isinstance(error, asyncio.CancelledError):
            self._mirrors.drop(routed, self._variant, "draining")
        elif error is not None:
            logger.error("a copy for %s failed", self._variant, exc_info=error)
        self._mirrors.log.pending.end(self._ticket)
        routed.generation.leave()
        self._mirrors.ended(self)
        self.deadline = NEVER
        del self._fiber  # it holds our method: a cycle

    async def _run(self) -> None:
        routed, variant, mirrors = self._routed, self._variant, self._mirrors
        began = perf_counter()
        try:
            came = await self._call(began)
        except asyncio.CancelledError:
            if not self._late:
                raise
            came = BackendCall(None, since(began), "timeout")
        outcome = came.outcome()
        if came.fault is None:
            read_answer(outcome, routed, variant, came, came.body, mirrors.counts)
        mirrors.log.note(routed.line(variant, "shadow", outcome))

    async def _call(self, began: float) -> BackendCall:
        routed, variant = self._routed, self._variant
        headers = routed.generation.dressed([*routed.headers, MARK], variant)
        came = await call(routed.generation.mirroring(variant), routed, headers, self._body)
        if came.answer is None:
            return came
        # Taken to its end as a client would, so that latencies compare; kept only as far as it is read.
        kept = Kept(worth_reading(routed, variant, came))
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
