"""One url of a backend: where it is, how it is asked, and the pool of connections to it.

Rules: the connection used last is used next, so that a pool shrinks to what is needed. It never grows beyond the calls
that may be under way: a call that is sent again makes a new connection, however many lie idle. A name is resolved anew
for each connection, and no connection takes another call once it is older than ``OLDEST_SECONDS``: so a backend that
moved is followed within that time, however busy the old connections are.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, urlsplit

from gateway.proxy.client.link import Link
from gateway.proxy.wire.faults import UpstreamFault
from router.settings.backend import replica_name
from router.snapshot import Backend

if TYPE_CHECKING:
    from gateway.proxy.client.upstream import Upstream

#: Name servers' answers are good for minutes; so is what was made of them.
OLDEST_SECONDS: Final = 300.0

_Connect = Callable[[asyncio.AbstractEventLoop, Link], Coroutine[Any, Any, object]]


class Replica:
    """One url of a backend and the pool of connections to it."""

    __slots__ = (
        "_backend",
        "_closed",
        "_connect",
        "_idle",
        "_links",
        "_most",
        "_opening",
        "_path",
        "_prefix",
        "_upstream",
        "authority",
        "buffers",
        "idle_seconds",
        "in_flight",
        "index",
        "name",
        "suspect",
        "timeout_seconds",
    )

    def __init__(self, upstream: Upstream, index: int, url: str, backend: Backend, tls: ssl.SSLContext | None) -> None:
        self.index = index
        self.name = replica_name(url)
        self.in_flight = 0
        #: True when a good answer would change what is thought of it.
        self.suspect = False
        self.timeout_seconds = backend.timeout_ms / 1000
        self.idle_seconds = backend.idle_timeout_ms / 1000
        self._backend = backend
        self._upstream = upstream
        self.buffers = upstream.buffers
        self._connect, self.authority, base = _place(url, tls)
        self._prefix = _quoted(base.rstrip("/"))
        self._path = None if backend.path is None else self._prefix + _quoted(backend.path)
        self._idle: list[Link] = []
        self._links: set[Link] = set()
        self._most = backend.max_concurrency
        self._opening: set[asyncio.Task[object]] = set()
        self._closed = False

    def __repr__(self) -> str:
        return f"<Replica {self.name}: {self.in_flight} in flight, {len(self._idle)} idle>"

    def target(self, target: bytes) -> bytes:
        """Return the target as this replica is asked for it. Its query is kept, and its path unless we have one."""
        if self._path is not None:
            _, mark, query = target.partition(b"?")
            return self._path + mark + query
        return self._prefix + target if self._prefix and target != b"*" else target

    def take(self) -> Link | None:
        """Return the idle connection that was used last, if there is one."""
        return self._idle.pop() if self._idle else None

    async def connect(self, latest: float) -> Link:
        """Return a new connection, its name resolved anew; ``latest`` is when its call ends anyhow.

        Raises UpstreamFault: "refused" or "timeout".
        """
        loop = asyncio.get_running_loop()
        link = Link(self, loop)
        limit = loop.time() + self._backend.connect_timeout_ms / 1000
        # Waited for at arm's length: a deadline that cancelled the caller could not be told from a client that left.
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

    def keep(self, link: Link) -> bool:
        """Pool a connection; False when it is not wanted any more."""
        if (
            self._closed
            or link.made_at + OLDEST_SECONDS < self._upstream.deadlines.now
            or len(self._links) > self._most
        ):
            return False
        self._idle.append(link)
        return True

    @property
    def links(self) -> frozenset[Link]:
        """The connections there are, in use or idle."""
        return frozenset(self._links)

    @property
    def closing(self) -> bool:
        """True while connections that no call uses are not gone yet."""
        return any(link.answer is None for link in self._links)

    def close(self) -> None:
        """Close what is idle and pool nothing from now on."""
        self._closed = True
        for link in list(self._idle):
            link.drop(UpstreamFault("reset", "the backend was closed"))

    # What calls and connections say.

    def enter(self) -> None:
        """A call begins."""
        self.in_flight += 1
        self._upstream.in_flight += 1

    def leave(self) -> None:
        """A call has ended."""
        self.in_flight -= 1
        upstream = self._upstream
        upstream.in_flight -= 1
        if upstream.waiting:
            upstream.free()

    def answered(self, status: int) -> None:
        """A whole answer came, or the head of a failing one. Needs to be said only if suspect, or if it is a 5xx."""
        self._upstream.answered(self, status)

    def failed(self, fault: Exception) -> None:
        """An answer broke off."""
        if isinstance(fault, UpstreamFault):
            self._upstream.failed(self, fault)

    def made(self, link: Link) -> None:
        """A connection is up."""
        self._links.add(link)
        self._upstream.made(link)

    def slow(self, direction: str) -> None:
        """A call lost its place to whoever waits for one: its client kept the backend waiting."""
        self._upstream.slow(direction)

    def retire(self, link: Link) -> None:
        """A connection takes no more calls."""
        self._upstream.deadlines.forget(link)
        if link in self._idle:
            self._idle.remove(link)

    def lost(self, link: Link) -> None:
        """A connection is gone."""
        self._links.discard(link)
        self._upstream.lost()

    def _abandon(self, opening: asyncio.Task[object], link: Link) -> None:
        """Nobody wants this connection any more: it must not stay, not even if it comes up all the same."""

        def ended(task: asyncio.Task[object]) -> None:
            _drop(link)
            if task.cancelled() or task.exception() is not None:
                # uvloop closes what had just come up without a word to it.
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
