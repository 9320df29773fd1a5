"""One backend: which of its replicas is asked, how often a call is sent again, and a bound on the calls under way.

Rules: what is sent is what was given, plus framing: no header of our own but Host where it is missing, no cookie kept,
no redirect followed, no body changed. A call goes to the less busy of two replicas drawn at random among the fit ones
(``health``): nearly as even as asking all of them, and without a herd at the one that was idle a moment ago
(Mitzenmacher 2001, IEEE TPDS 12(10)). A call over the bound waits for a place (``places``), within bounds.
Meanwhile a call whose client keeps the backend waiting, for its body or by not taking its answer, loses its place.

A call is sent again, on a fresh connection to a replica that was not asked yet, only if nothing can have been done
twice: there was no connection, so nothing was sent; or the method is idempotent (RFC 9110, section 9.2.2) and not one
byte of an answer came. To the same replica only if no other is fit, and only because a pooled connection was closed
just then. A body that streams is gone once any of it was taken: such a call is sent again only if there was no
connection. At most ``RETRY_SHARE`` of the calls under way may be repeats, so that a backend in trouble is not asked
twice as much.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Sequence, Sized
from random import random
from typing import Final

from gateway.files.tls import client_context
from gateway.proxy.client.answer import Answer
from gateway.proxy.client.health import Health, State
from gateway.proxy.client.link import Link
from gateway.proxy.client.phases import IDLE_SECONDS
from gateway.proxy.client.places import Places, Turn
from gateway.proxy.client.replica import Replica
from gateway.proxy.log.counters import Counts
from gateway.proxy.log.worker_series import RETRIES, RETRY_BUDGET_EXHAUSTED, SLOW_CLIENTS
from gateway.proxy.wire.buffers import Buffers
from gateway.proxy.wire.deadlines import NEVER, Deadlines
from gateway.proxy.wire.faults import UpstreamFault
from gateway.proxy.wire.headers import Headers, field
from gateway.proxy.wire.wire import UNBODIED, request_head
from router.snapshot import Backend

_IDEMPOTENT: Final = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE", "TRACE"})
#: Methods whose request says so when its body is empty (RFC 9110, section 8.6).
_WITH_BODY: Final = frozenset({"POST", "PUT", "PATCH"})
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

        Repeated calls and ejections are added to ``counts``; ``buffers`` hold what clients are slow to take. Unless it
        ``waits``, a call over the bound fails at once. Raises OSError or ValueError if ``tls_ca_file`` cannot be used.
        """
        self.backend = backend
        self.buffers = Buffers(0) if buffers is None else buffers
        self._counts = Counts() if counts is None else counts
        self._total_seconds = NEVER if backend.total_timeout_ms is None else backend.total_timeout_ms / 1000
        self._deadlines = Deadlines(
            min(backend.timeout_ms / 1000, backend.idle_timeout_ms / 1000, IDLE_SECONDS, self._total_seconds)
        )
        context = client_context(backend) if tls is None else tls
        self._health = health = Health(backend)
        self._places = places = Places(backend, waits=waits)
        self.replicas = tuple(
            Replica(backend, index, context, health, places, self._deadlines, self._counts)
            for index in range(len(backend.urls))
        )
        # Where there is nothing to choose.
        self._only = self.replicas[0] if len(self.replicas) == 1 else None
        self._retrying = 0
        self._evicting = _Evicting(self.replicas, places.waiting, self._deadlines, self._counts)

    @property
    def in_flight(self) -> int:
        """How many calls are under way: from their beginning until the answer is whole, closed or failed."""
        return self._places.in_flight

    @property
    def waiting(self) -> Sequence[Turn]:
        """The calls that wait for a place, in order."""
        return tuple(self._places.waiting)

    async def call(self, method: str, target: bytes, headers: Headers, body: bytes | AsyncIterator[bytes]) -> Answer:
        """Send a request and return the answer as soon as its head is here.

        ``headers`` are end to end and hold Host. A body that is an iterator goes out chunked, or with the
        content-length that ``headers`` declare; what it raises ends the call and comes out here (later: out of the
        answer) as it is.

        Raises UpstreamFault: "overloaded", "refused", "timeout", "reset", "protocol", or "incomplete" if the answer
        broke off at once.
        """
        latest = NEVER if self._total_seconds == NEVER else asyncio.get_running_loop().time() + self._total_seconds
        places = self._places
        if places.in_flight < places.limit:
            places.in_flight += 1
        else:
            self._deadlines.watch(self._evicting)
            await places.wait(latest)
        replica = self._only or self._pick()
        replica.in_flight += 1
        answer = Answer(self.buffers, latest)
        link: Link | None = None
        tried: tuple[int, ...] = ()
        try:
            payload, upload, length = _framed(method, headers, body)
            while True:
                path, chunked = replica.target(target), upload is not None and length is None
                head = request_head(method, path, headers, authority=replica.authority, length=length, chunked=chunked)
                link = replica.idle.pop() if replica.idle and not tried else None
                pooled = link is not None
                try:
                    if link is None:
                        link = await replica.connect(latest)
                    last = method in UNBODIED and (bool(payload) or upload is not None)
                    link.begin(answer, head, payload, head_only=method == "HEAD", last=last)
                    if upload is not None:
                        link.upload(upload, length)
                    await answer.bell
                    if answer.fault is not None:
                        answer.raise_fault()
                    return answer
                except UpstreamFault as fault:
                    fault.retries = len(tried)
                    stale = pooled and link is not None and link.silent and fault.fault == "reset"
                    # A stream may have been broken off because its client was slow to send it.
                    if not (answer.status or stale or (upload and link)):
                        replica.failed(fault)
                    if link is not None and not (upload is None and link.silent and method in _IDEMPOTENT):
                        raise
                    again = self._again(replica, tried, fault, latest, stale=stale)
                    tried = (*tried, replica.index)
                    replica = again
                    answer.retries = len(tried)
        except BaseException:
            self._give_up(answer, link, replica)
            raise
        finally:
            if tried:
                self._retrying -= 1

    async def close(self) -> None:
        """Close what is idle; connections in use are closed when their calls end."""
        await asyncio.gather(*(replica.close() for replica in self.replicas))

    def pool_nothing(self) -> None:
        """Close what is idle, and from now on each connection with its call."""
        for replica in self.replicas:
            replica.pool_nothing()

    def states(self) -> list[tuple[str, State]]:
        """Return the name and the state of each replica."""
        return [(replica.name, self._health.state(replica.index)) for replica in self.replicas]

    def probed(self, index: int, well: bool) -> bool:
        """Count a probe of a replica; return whether the replica became unhealthy or fit by it."""
        return self._health.probed(index, well=well)

    def _give_up(self, answer: Answer, link: Link | None, replica: Replica) -> None:
        """End a call that raises. Once the head is here, it is the connection that gives the place back."""
        if answer.status:
            answer.close()
            return
        if link is not None and link.answer is answer:
            link.leave()
        replica.leave()

    def _pick(self) -> Replica:
        """Return the less busy of two fit replicas, or the one whose trial is due."""
        health = self._health
        if health.trial_at != NEVER:
            now = asyncio.get_running_loop().time()
            if health.trial_at <= now and (index := health.trial(now)) is not None:
                return self.replicas[index]
        return self._less_busy(health.fit)

    def _less_busy(self, indexes: Sequence[int]) -> Replica:
        """Return the less busy of two replicas that are drawn at random."""
        count = len(indexes)
        if count == 1:
            return self.replicas[indexes[0]]
        first = int(random() * count)
        second = int(random() * (count - 1))
        one = self.replicas[indexes[first]]
        other = self.replicas[indexes[second + (second >= first)]]
        return one if one.in_flight <= other.in_flight else other

    def _again(
        self, failed: Replica, tried: tuple[int, ...], fault: UpstreamFault, latest: float, *, stale: bool
    ) -> Replica:
        """Return the replica to ask instead; the call is its own from now on, with the place it had.

        Raises the fault if there is none.
        """
        name = self.backend.name
        others = [index for index in self._health.fit if index != failed.index and index not in tried]
        if len(tried) >= self.backend.retries or not (others or stale):
            raise fault
        if latest <= asyncio.get_running_loop().time():
            raise fault
        if not tried:
            if self._retrying >= max(LEAST_RETRIES, RETRY_SHARE * self._places.in_flight):
                self._counts.add(RETRY_BUDGET_EXHAUSTED, variant=name)
                raise fault
            self._retrying += 1
        self._counts.add(RETRIES, variant=name, reason=fault.fault)
        failed.in_flight -= 1
        chosen = self._less_busy(others) if others else failed
        chosen.in_flight += 1
        return chosen


class _Evicting:
    """While calls wait for a place, ends those that keep the backend waiting for their clients, at every sweep."""

    def __init__(self, replicas: Sequence[Replica], waiting: Sized, deadlines: Deadlines, counts: Counts) -> None:
        self.deadline = -NEVER
        self._replicas = replicas
        self._waiting = waiting
        self._deadlines = deadlines
        self._counts = counts

    def expire(self, now: float) -> None:
        if not self._waiting:
            self._deadlines.forget(self)
            return
        for link in [link for replica in self._replicas for link in replica.links]:
            # The place of one that is ended is handed on at once.
            if self._waiting and (reason := link.evict(now)) is not None:
                self._counts.add(SLOW_CLIENTS, reason=reason)


def _framed(
    method: str, headers: Headers, body: bytes | AsyncIterator[bytes]
) -> tuple[bytes, AsyncIterator[bytes] | None, int | None]:
    """Return the body that is here, the one that is still to come, and the content-length to write, None for none."""
    if isinstance(body, bytes):
        return body, None, len(body) if body or method in _WITH_BODY else None
    declared = field(headers, b"content-length")
    return b"", body, None if declared is None else int(declared)
