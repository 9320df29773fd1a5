"""One url of a backend: where it is, how it is asked, how it is doing, and the pool of connections to it.

Rules: the connection used last is used next, so that a pool shrinks to what is needed. It never grows beyond the calls
that may be under way: a call that is sent again makes a new connection, however many lie idle. A name is resolved anew
for each connection, and no connection takes another call once it is older than ``OLDEST_SECONDS``: so a backend that
moved is followed within that time, however busy the old connections are.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable, Coroutine
from typing import Any, Final
from urllib.parse import quote, urlsplit

from gateway.proxy.client.health import Health, Origin
from gateway.proxy.client.link import Link
from gateway.proxy.client.phases import phase_seconds
from gateway.proxy.client.places import Places
from gateway.proxy.log.counters import Counts
from gateway.proxy.log.worker_series import EJECTIONS
from gateway.proxy.wire.deadlines import NEVER, Deadlines
from gateway.proxy.wire.faults import UpstreamFault
from router.settings.backend import replica_name
from router.snapshot import Backend

logger = logging.getLogger(__name__)

#: Name servers' answers are good for minutes; so is what was made of them.
OLDEST_SECONDS: Final = 300.0
#: Seconds to wait until idle connections are gone.
_CLOSE_SECONDS: Final = 1.0

_Connect = Callable[[asyncio.AbstractEventLoop, Link], Coroutine[Any, Any, object]]


class Replica:
    """One url of a backend. ``deadlines`` are those of its connections; health and places are the backend's."""

    __slots__ = (
        "_backend",
        "_closed",
        "_connect",
        "_counts",
        "_deadlines",
        "_gone",
        "_health",
        "_links",
        "_opening",
        "_path",
        "_places",
        "_prefix",
        "authority",
        "idle",
        "in_flight",
        "index",
        "name",
        "phase_seconds",
        "total_seconds",
    )

    def __init__(
        self,
        backend: Backend,
        index: int,
        tls: ssl.SSLContext | None,
        health: Health,
        places: Places,
        deadlines: Deadlines,
        counts: Counts,
    ) -> None:
        url = backend.urls[index]
        self.index = index
        self.name = replica_name(url)
        self.in_flight = 0
        self.phase_seconds = phase_seconds(backend.timeout_ms / 1000, backend.idle_timeout_ms / 1000)
        self.total_seconds = NEVER if backend.total_timeout_ms is None else backend.total_timeout_ms / 1000
        self._backend = backend
        self._health = health
        self._places = places
        self._deadlines = deadlines
        self._counts = counts
        self._connect, self.authority, base = _place(url, tls)
        self._prefix = _quoted(base.rstrip("/"))
        self._path = None if backend.path is None else self._prefix + _quoted(backend.path)
        #: The pool: connections that carry no call, the one used last at the end.
        self.idle: list[Link] = []
        self._links: set[Link] = set()
        self._opening: set[asyncio.Task[object]] = set()
        self._closed = False
        self._gone: asyncio.Future[None] | None = None

    def __repr__(self) -> str:
        return f"<Replica {self.name}: {self.in_flight} in flight, {len(self.idle)} idle>"

    def target(self, target: bytes) -> bytes:
        """Return the target to ask this replica for: with its query, and with its path unless one is configured."""
        if self._path is not None:
            _, mark, query = target.partition(b"?")
            return self._path + mark + query
        return self._prefix + target if self._prefix and target != b"*" else target

    async def connect(self, latest: float) -> Link:
        """Return a new connection, its name resolved anew; ``latest`` is when its call ends in any case.

        Raises UpstreamFault: "refused" or "timeout".
        """
        loop = asyncio.get_running_loop()
        link = Link(self, loop)
        limit = loop.time() + self._backend.connect_timeout_ms / 1000
        # Awaited through a future: a deadline that cancelled the caller could not be told from a client that left.
        done: asyncio.Future[None] = loop.create_future()
        opening: asyncio.Task[object] = loop.create_task(self._connect(loop, link))
        self._opening.add(opening)
        opening.add_done_callback(self._opening.discard)
        opening.add_done_callback(lambda _: _finish(done))
        timer = loop.call_at(min(limit, latest), _finish, done)
        try:
            await done
        except BaseException:
            self._abandon(opening, link)
            raise
        finally:
            timer.cancel()
        if not opening.done():
            self._abandon(opening, link)
            if latest < limit:
                raise UpstreamFault("timeout", "the time of the call was over before there was a connection")
            raise UpstreamFault("timeout", f"no connection within {self._backend.connect_timeout_ms} ms")
        error = opening.exception()
        if error is not None:
            self._abandon(opening, link)
            if isinstance(error, OSError | UnicodeError):
                raise UpstreamFault("refused", str(error)) from error
            raise error
        return link

    @property
    def links(self) -> frozenset[Link]:
        """The connections there are, in use or idle."""
        return frozenset(self._links)

    def pool_nothing(self) -> None:
        """Close what is idle, and from now on each connection with its call."""
        self._closed = True
        for link in list(self.idle):
            link.drop(UpstreamFault("reset", "the backend was closed"))

    async def close(self) -> None:
        """Close what is idle, and wait until it is gone; connections in use are closed when their calls end."""
        self.pool_nothing()
        if self._closing():
            self._gone = asyncio.get_running_loop().create_future()
            await asyncio.wait((self._gone,), timeout=_CLOSE_SECONDS)

    def _closing(self) -> bool:
        """Return whether connections that carry no call are not gone yet."""
        return any(link.answer is None for link in self._links)

    # How calls went.

    def leave(self) -> None:
        """A call has ended."""
        self.in_flight -= 1
        places = self._places
        places.in_flight -= 1
        if places.waiting:
            places.hand_on()

    def ended(self, link: Link, status: int, *, reusable: bool) -> bool:
        """A call has ended with a whole answer. Return whether its connection was put back into the pool."""
        young = link.made_at + OLDEST_SECONDS >= self._deadlines.now
        kept = reusable and young and not self._closed and len(self._links) <= self._places.limit
        if kept:
            self.idle.append(link)
        if status >= 500 or self.index in self._health.suspects:
            self.answered(status)
        self.leave()
        return kept

    def answered(self, status: int) -> None:
        """A whole answer came, or the head of a failing one."""
        if status >= 500:
            self._count_failure("answer", f"status {status}")
        elif self._health.succeeded(self.index, asyncio.get_running_loop().time()):
            logger.info("backend %s: replica %s is back", self._backend.name, self.name)

    def failed(self, fault: Exception) -> None:
        """There was no connection, or no whole answer came over it. All but UpstreamFault are the client's."""
        if isinstance(fault, UpstreamFault):
            self._count_failure("connection", str(fault))

    def _count_failure(self, origin: Origin, why: str) -> None:
        seconds = self._health.failed(self.index, origin, asyncio.get_running_loop().time())
        if seconds is not None:
            name = self._backend.name
            self._counts.add(EJECTIONS, variant=name, replica=self.name, reason=origin)
            logger.warning("backend %s: replica %s is ejected for %g s: %s", name, self.name, seconds, why)

    # What becomes of a connection.

    def made(self, link: Link) -> None:
        """A connection is up."""
        self._links.add(link)
        self._deadlines.watch(link)

    def retire(self, link: Link) -> None:
        """A connection takes no more calls."""
        self._deadlines.forget(link)
        if link in self.idle:
            self.idle.remove(link)

    def lost(self, link: Link) -> None:
        """A connection is gone."""
        self._links.discard(link)
        if self._gone is not None and not self._gone.done() and not self._closing():
            self._gone.set_result(None)

    def _abandon(self, opening: asyncio.Task[object], link: Link) -> None:
        """Close a connection that is not wanted any more, even if it comes up later."""

        def ended(task: asyncio.Task[object]) -> None:
            _drop(link)
            if task.cancelled() or task.exception() is not None:
                # uvloop closes what had just come up without telling the protocol.
                self.lost(link)

        opening.cancel()
        opening.add_done_callback(ended)
        _drop(link)


def _finish(done: asyncio.Future[None]) -> None:
    if not done.done():
        done.set_result(None)


def _drop(link: Link) -> None:
    link.drop(UpstreamFault("reset", "not connected"))


def _place(url: str, tls: ssl.SSLContext | None) -> tuple[_Connect, bytes, str]:
    """Return how to connect to a url, the Host of requests without one, and the base path."""
    parts = urlsplit(url)
    if parts.scheme == "unix":
        socket, _, base = parts.path.partition(":")
        return lambda loop, link: loop.create_unix_connection(lambda: link, socket), b"localhost", base
    host = parts.hostname or ""
    secure = parts.scheme == "https"
    port = parts.port or (443 if secure else 80)

    def connect(loop: asyncio.AbstractEventLoop, link: Link) -> Coroutine[Any, Any, object]:
        context, name = (tls, host) if secure else (None, None)
        return loop.create_connection(lambda: link, host, port, ssl=context, server_hostname=name)

    return connect, parts.netloc.rpartition("@")[2].encode(), parts.path


def _quoted(path: str) -> bytes:
    """A configured path, with what cannot stand in a request line percent-encoded."""
    return quote(path, safe="/%:@!$&'()*+,;=~").encode()
