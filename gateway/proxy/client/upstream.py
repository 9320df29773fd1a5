"""The client side: one backend, which of its replicas is asked, and a bound on the calls under way.

Rules: what is sent is what was given, plus framing: no header of our own but Host where it is missing, no cookie kept,
no redirect followed, no body changed. A call goes to the less busy of two replicas drawn at random among the fit ones
(``health``): nearly as even as asking all of them, and without a herd at whoever was idle a moment ago (Mitzenmacher
2001, IEEE TPDS 12(10)). A call over the bound waits for a place (``waiting``), within bounds. Meanwhile a call whose
client keeps the backend waiting, for its body or by not taking its answer, loses its place.

A call is sent again, on a fresh connection to a replica that was not asked yet, only if nothing can have been done
twice: there was no connection, so nothing was sent; or the method is idempotent (RFC 9110, section 9.2.2) and not one
byte of an answer came. To the same replica only if no other is fit, and only because a pooled connection was closed
just then. A body that streams is gone once any of it was taken: such a call is sent again only if there was no
connection. At most ``RETRY_SHARE`` of the
calls under way may be repeats, so that a backend in trouble is not asked twice as much.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator, Sequence
from random import random
from typing import TYPE_CHECKING, Final

from gateway.files.tls import client_context
from gateway.proxy.client.answer import Answer
from gateway.proxy.client.health import Health, State
from gateway.proxy.client.link import IDLE_SECONDS, Link
from gateway.proxy.client.replica import Replica
from gateway.proxy.client.waiting import Line
from gateway.proxy.log.counts import Counts
from gateway.proxy.wire.buffers import Buffers
from gateway.proxy.wire.deadlines import NEVER, Deadlines
from gateway.proxy.wire.faults import UpstreamFault
from gateway.proxy.wire.headers import Headers, field
from gateway.proxy.wire.wire import UNBODIED, request_head
from router.snapshot import Backend

if TYPE_CHECKING:
    from gateway.proxy.client.probes import Probes

logger = logging.getLogger(__name__)

_IDEMPOTENT: Final = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE", "TRACE"})
#: Methods whose request says so when its body is empty (RFC 9110, section 8.6).
_WITH_BODY: Final = frozenset({"POST", "PUT", "PATCH"})
#: Seconds that ``close`` waits for idle connections to be gone.
_CLOSE_SECONDS: Final = 1.0
#: Envoy's retry budget and its least: a fifth of the calls under way, and always three.
RETRY_SHARE: Final = 0.2
LEAST_RETRIES: Final = 3


class Upstream:
    """One backend. Must be used in one event loop, and closed."""

    def __init__(
        self,
        backend: Backend,
        *,
        tls: ssl.SSLContext | None = None,
        counts: Counts | None = None,
        buffers: Buffers | None = None,
        waits: bool = True,
    ) -> None:
        """``tls`` is for ``https`` urls; without it, it is made of the backend's settings.

        What is repeated and who is ejected is added to ``counts``; ``buffers`` hold what clients are slow to take.
        Unless it ``waits``, a call over the bound fails at once. Raises OSError or ValueError if ``tls_ca_file`` cannot
        be used.
        """
        self.backend = self._backend = backend
        self._counts = Counts() if counts is None else counts
        self.buffers = Buffers(0) if buffers is None else buffers
        total = NEVER if backend.total_timeout_ms is None else backend.total_timeout_ms / 1000
        self.deadlines = Deadlines(min(backend.timeout_ms / 1000, backend.idle_timeout_ms / 1000, IDLE_SECONDS, total))
        context = client_context(backend) if tls is None else tls
        self.replicas = tuple(Replica(self, i, url, backend, context) for i, url in enumerate(backend.urls))
        self._health = Health(backend)
        self._fit = self.replicas
        #: Where there is nothing to choose.
        self._only = self.replicas[0] if len(self.replicas) == 1 else None
        #: Calls under way: from their beginning until the answer is whole, closed or failed.
        self.in_flight = 0
        self._limit = backend.max_concurrency
        wait = backend.wait_timeout_ms / 1000
        self._line = Line(Deadlines(min(wait, total)), backend.max_waiting if waits else 0, wait, self._give_back)
        #: Those who wait for a place.
        self.waiting = self._line.turns
        self._retrying = 0
        self._total = None if total == NEVER else _Total(self, total)
        self._evicting = _Evicting(self)
        self.probes: Probes | None = None
        self._gone: asyncio.Future[None] | None = None

    async def call(self, method: str, target: bytes, headers: Headers, body: bytes | AsyncIterator[bytes]) -> Answer:
        """Send a request and return the answer as soon as its head is here.

        ``headers`` are end to end and hold Host. A body that is an iterator goes out chunked, or with the
        content-length that ``headers`` declare; what it raises ends the call and comes out here (later: out of the
        answer) as it is.

        Raises UpstreamFault: "overloaded", "refused", "timeout", "reset", "protocol", or "incomplete" if the answer
        broke off at once.
        """
        latest = NEVER if self._total is None else asyncio.get_running_loop().time() + self._total.seconds
        if self.in_flight >= self._limit:
            self.deadlines.watch(self._evicting)
            await self._line.wait(latest, f"{self._limit} calls are under way")
            self.in_flight -= 1  # the place that was kept for this call: the answer takes it now
        replica = self._only or self._pick()
        answer = Answer(replica)
        upload: AsyncIterator[bytes] | None = None
        tried: tuple[Replica, ...] = ()
        try:
            if isinstance(body, bytes):
                length = len(body) if body or method in _WITH_BODY else None
                payload = body
            else:
                upload, payload = body, b""
                declared = field(headers, b"content-length")
                length = None if declared is None else int(declared)
            while True:
                head = request_head(
                    method,
                    replica.target(target),
                    headers,
                    authority=replica.authority,
                    length=length,
                    chunked=upload is not None and length is None,
                )
                answer.latest = latest
                link = None if tried else replica.take()
                fresh = link is None
                try:
                    if link is None:
                        link = await replica.connect(latest)
                    last = method in UNBODIED and (bool(payload) or upload is not None)
                    link.begin(answer, head, payload, bodyless=method == "HEAD", last=last)
                    if upload is not None:
                        link.upload(upload, length)
                    await answer.bell
                    answer.confirm()
                    return answer
                except UpstreamFault as fault:
                    fault.retries = len(tried)
                    stale = link is not None and link.closed_early and not fresh
                    # A stream may have been broken off for its client's sake, who was slow to send it.
                    if not (answer.status or stale or (upload and link)):
                        self.failed(replica, fault)
                    harmless = link is None or (upload is None and link.silent and method in _IDEMPOTENT)
                    again = self._again(replica, tried, fault, latest, stale=stale) if harmless else None
                    if again is None:
                        raise
                    tried = (*tried, replica)
                    replica = again
                    failed, answer = answer, Answer(replica)
                    failed.close()  # after the next has begun: the place among the calls under way stays ours
                    answer.retries = len(tried)
        except BaseException:
            answer.close()
            raise
        finally:
            if tried:
                self._retrying -= 1

    async def close(self) -> None:
        """Close what is idle; connections in use are closed when their calls end."""
        if self.probes is not None:
            await self.probes.close()
        self.pool_nothing()
        if self._closing():
            self._gone = asyncio.get_running_loop().create_future()
            await asyncio.wait((self._gone,), timeout=_CLOSE_SECONDS)

    def pool_nothing(self) -> None:
        """Close what is idle, and from now on each connection with its call."""
        for replica in self.replicas:
            replica.close()

    def states(self) -> list[tuple[str, State]]:
        """Return the name and the state of each replica."""
        return [(replica.name, self._health.state(replica.index)) for replica in self.replicas]

    # What replicas say.

    def made(self, link: Link) -> None:
        """A connection is up."""
        self.deadlines.watch(link)
        if self._total is not None:
            self.deadlines.watch(self._total)

    def lost(self) -> None:
        """A connection is gone."""
        if self._gone is not None and not self._gone.done() and not self._closing():
            self._gone.set_result(None)

    def free(self) -> None:
        """There is a place, and somebody waits: the place is kept for the first of them."""
        if self.in_flight < self._limit and self._line.serve():
            self.in_flight += 1

    def slow(self, direction: str) -> None:
        """A client kept this backend waiting while others waited for the place."""
        self._counts.add("slow_clients", reason=direction)

    def answered(self, replica: Replica, status: int) -> None:
        """A whole answer came, or the head of a failing one."""
        now = asyncio.get_running_loop().time()
        if status >= 500:
            self._eject(replica, self._health.failed(replica.index, "answer", now), f"status {status}", "answer")
        elif self._health.succeeded(replica.index, now):
            logger.info("backend %s: replica %s is back", self._backend.name, replica.name)
        self._settle()

    def failed(self, replica: Replica, fault: UpstreamFault) -> None:
        """There was no connection, or no whole answer came over it."""
        now = asyncio.get_running_loop().time()
        self._eject(replica, self._health.failed(replica.index, "connection", now), str(fault), "connection")
        self._settle()

    def probed(self, index: int, *, well: bool) -> bool:
        """A probe of a replica ended; return whether it went out or came back by it."""
        changed = self._health.probed(index, well=well)
        if changed:
            self._settle()
        return changed

    def _eject(self, replica: Replica, seconds: float | None, why: str, reason: str) -> None:
        if seconds is not None:
            self._counts.add("ejections", variant=self._backend.name, replica=replica.name, reason=reason)
            name = self._backend.name
            logger.warning("backend %s: replica %s is ejected for %g s: %s", name, replica.name, seconds, why)

    def _settle(self) -> None:
        health, replicas = self._health, self.replicas
        self._fit = tuple(replicas[index] for index in health.fit)
        for replica in replicas:
            replica.suspect = health.suspect(replica.index)

    # How a call finds its place and its replica.

    def _give_back(self) -> None:
        """Somebody was handed a place and is gone."""
        self.in_flight -= 1
        if self.waiting:
            self.free()

    def _pick(self) -> Replica:
        """Return the less busy of two fit replicas, or the one whose trial is due."""
        health = self._health
        if health.trial_at != NEVER:
            now = asyncio.get_running_loop().time()
            if health.trial_at <= now and (index := health.trial(now)) is not None:
                return self.replicas[index]
        return _less_busy(self._fit)

    def _again(
        self, failed: Replica, tried: tuple[Replica, ...], fault: UpstreamFault, latest: float, *, stale: bool
    ) -> Replica | None:
        """Return whom to ask instead, None if nobody. What is returned must be asked: it is counted."""
        name = self._backend.name
        others = [replica for replica in self._fit if replica is not failed and replica not in tried]
        if len(tried) >= self._backend.retries or not (others or stale):
            return None
        if latest <= asyncio.get_running_loop().time():
            return None
        if not tried:
            if self._retrying >= max(LEAST_RETRIES, RETRY_SHARE * self.in_flight):
                self._counts.add("retry_budget_exhausted", variant=name)
                return None
            self._retrying += 1
        self._counts.add("retries", variant=name, reason=fault.fault)
        return _less_busy(others) if others else failed

    def _closing(self) -> bool:
        return any(replica.closing for replica in self.replicas)


class _Total:
    """Ends answers whose time as a whole is up. Looks at every sweep, as long as there are connections."""

    def __init__(self, upstream: Upstream, seconds: float) -> None:
        self.deadline = -NEVER
        self._upstream = upstream
        self.seconds = seconds

    def expire(self, now: float) -> None:
        links = [link for replica in self._upstream.replicas for link in replica.links]
        if not links:
            self._upstream.deadlines.forget(self)
        for link in links:
            if link.answer is not None and link.answer.latest <= now:
                link.drop(UpstreamFault("timeout", f"no whole answer within {self.seconds:g} s"))


class _Evicting:
    """While calls wait for a place, takes back those that keep the backend waiting for their clients. Each sweep."""

    def __init__(self, upstream: Upstream) -> None:
        self.deadline = -NEVER
        self._upstream = upstream

    def expire(self, now: float) -> None:
        upstream = self._upstream
        if not upstream.waiting:
            upstream.deadlines.forget(self)
            return
        links = [link for replica in upstream.replicas for link in replica.links if link.kept_waiting(now)]
        for link in links[: len(upstream.waiting)]:
            link.evict()


def _less_busy(replicas: Sequence[Replica]) -> Replica:
    """Return the less busy of two that are drawn at random."""
    count = len(replicas)
    if count == 1:
        return replicas[0]
    first = int(random() * count)
    second = int(random() * (count - 1))
    one, other = replicas[first], replicas[second + (second >= first)]
    return one if one.in_flight <= other.in_flight else other
