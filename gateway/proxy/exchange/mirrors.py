"""Copies of requests to variants whose answers no client waits for.

Rule: a copy never affects the client's answer. It runs independently of the request, with connections and limits of its
own. Copies are bounded in number, size and time; one that is not sent is counted and leaves a row that says so.

A body that has arrived when the request is decided on is sent to the primary and the copies at the same moment. One
that is still arriving is *teed*: each piece goes on to the primary and is kept until the body is whole; then the copies
begin. To send copies piece by piece as well would either slow the primary down to the slowest mirror, or keep what that
has not taken yet, which is the same memory; and a client that leaves in the middle would leave half a request with a
variant that is judged by it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from time import perf_counter
from typing import Final

from gateway.proxy.exchange.call import BackendCall, Kept, call, read_answer, worth_reading
from gateway.proxy.exchange.routed import RoutedRequest, since
from gateway.proxy.log.counters import Counts
from gateway.proxy.log.predictions import Log
from gateway.proxy.log.worker_series import MIRROR_DROPS
from gateway.proxy.wire.deadlines import NEVER, Deadlines
from gateway.proxy.wire.faults import UpstreamFault
from gateway.proxy.wire.fiber import Fiber
from gateway.proxy.wire.headers import checked, joined
from router.snapshot import Gateway

logger = logging.getLogger(__name__)

#: The field by which a backend tells a copy from a request.
MARK: Final = checked((b"turnout-mirror", b"1"))
#: Seconds that copies get to end once they are cancelled.
_STOP_SECONDS: Final = 1.0


class Mirrors:
    """Sends copies and writes their rows, within the bounds of the gateway's settings in force."""

    def __init__(self, log: Log, counts: Counts, gateway: Gateway) -> None:
        self.log = log
        self.counts = counts
        self.deadlines = Deadlines(1.0)
        self._copies: set[Copy] = set()
        self._draining = False
        self._emptied: asyncio.Future[None] | None = None
        self.swap(gateway)

    def __len__(self) -> int:
        return len(self._copies)

    def swap(self, gateway: Gateway) -> None:
        """Apply these bounds from now on."""
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
        """Return ``pieces`` for the primary; the copies are sent at their end. ``length`` is the declared one, if any.

        The tee must be closed.
        """
        return Tee(self, routed, pieces, kept=length is None or length <= self.max_body_bytes)

    def drop(self, routed: RoutedRequest, variant: str, reason: str) -> None:
        """Count a copy that is not sent, or not to its end, and write its row."""
        self.counts.add(MIRROR_DROPS, route=routed.routing.route.name, variant=variant, reason=reason)
        self.log.note(routed.line(variant, "shadow", {"fault": "dropped"}))

    def ended(self, copy: Copy) -> None:
        """Called by a copy that has ended and written its row."""
        self._copies.discard(copy)
        self.deadlines.forget(copy)
        if not self._copies and self._emptied is not None and not self._emptied.done():
            self._emptied.set_result(None)

    async def drain(self, timeout_seconds: float) -> None:
        """Take no more copies, let those under way finish, then cancel what is left."""
        self._draining = True
        await self._empty(timeout_seconds)
        for copy in list(self._copies):
            copy.stop()
        await self._empty(_STOP_SECONDS)

    async def _empty(self, timeout_seconds: float) -> None:
        if self._copies:
            self._emptied = asyncio.get_running_loop().create_future()
            await asyncio.wait((self._emptied,), timeout=timeout_seconds)


class Tee:
    """A body that is still arriving, as an iterator for the primary, which gets each piece at once."""

    __slots__ = ("_decided", "_kept", "_mirrors", "_pieces", "_routed", "_size", "_ticket")

    def __init__(self, mirrors: Mirrors, routed: RoutedRequest, pieces: AsyncIterator[bytes], *, kept: bool) -> None:
        self._mirrors = mirrors
        self._routed = routed
        self._pieces = pieces
        self._kept: list[bytes] = []
        self._size = 0
        self._decided = False
        # The primary may have answered, and written its row, before the copies begin.
        self._ticket = mirrors.log.pending.begin(routed.at_ms)
        if not kept:
            self._drop("body_too_large")

    def __aiter__(self) -> Tee:
        return self

    async def __anext__(self) -> bytes:
        try:
            piece = await anext(self._pieces)
        except StopAsyncIteration:
            if not self._decided:
                self._decided = True
                self._mirrors.send(self._routed, b"".join(self._kept))
            raise
        if not self._decided:
            self._kept.append(piece)
            self._size += len(piece)
            if self._size > self._mirrors.max_body_bytes:
                self._drop("body_too_large")
        return piece

    def close(self) -> None:
        """Called when the request is over. A body that did not arrive whole, or was not taken whole, is not copied."""
        if not self._decided:
            self._drop("body_cut")
        self._kept.clear()
        self._mirrors.log.pending.end(self._ticket)

    def _drop(self, reason: str) -> None:
        self._decided = True
        self._kept.clear()
        for variant in self._routed.routing.mirrored:
            self._mirrors.drop(self._routed, variant, reason)


class Copy:
    """One copy under way. It ends by itself, at its deadline, or when it is cancelled, and leaves one row."""

    #: Deleted by ``_ended``; mypyc asks for such attributes to be declared.
    __deletable__ = ("_fiber",)
    __slots__ = ("_body", "_fiber", "_late", "_mirrors", "_routed", "_ticket", "_variant", "deadline")

    def __init__(self, mirrors: Mirrors, routed: RoutedRequest, variant: str, body: bytes) -> None:
        loop = asyncio.get_running_loop()
        self._mirrors = mirrors
        self._routed = routed
        self._variant = variant
        self._body = body
        self._late = False
        # Registered here and not in the fiber, which runs later: a heartbeat or a swap of snapshots may come before.
        self._ticket = mirrors.log.pending.begin(routed.at_ms)
        routed.generation.enter()
        # A request may stream without a time limit, but a copy must end: its row holds back the watermark.
        self.deadline = loop.time() + mirrors.timeout_seconds
        mirrors.deadlines.watch(self)
        self._fiber = Fiber(self._run(), self._ended)
        # Not at once, so that the primary is sent first; the copy follows in the next turn of the loop.
        loop.call_soon(self._fiber.run)

    def expire(self, now: float) -> None:
        """Called when its time is over."""
        self._late = True
        self._fiber.cancel()

    def stop(self) -> None:
        """Cancel it: the worker ends."""
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
        del self._fiber  # it holds a method of this object: a reference cycle

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
        headers = routed.generation.dressed(joined(routed.headers, MARK), variant)
        came = await call(routed.generation.mirroring(variant), routed, headers, self._body)
        if came.answer is None:
            return came
        # Read to its end as a client would, so that latencies compare; kept only if a prediction is read from it.
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
