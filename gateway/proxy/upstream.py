"""The client side: one backend, its replicas, a pool of connections to each, and a bound on the calls under way.

Rules: what is sent is what was given, plus framing: no header of our own but Host where it is missing, no cookie kept,
no redirect followed, no body changed. The connection used last is used next, so that a pool shrinks to what is needed.
A call over the bound fails at once: there is no queue. A call is repeated in one case only, on a fresh connection: a
pooled one was closed before any byte of the answer came, and doing the request twice is doing it once (RFC 9110,
section 9.2.2).
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Sequence
from typing import Final
from urllib.parse import quote, urlsplit

from gateway.proxy.answer import Answer, UpstreamFault
from gateway.proxy.deadlines import Deadlines
from gateway.proxy.headers import Header, field
from gateway.proxy.link import IDLE_SECONDS, Link
from gateway.proxy.wire import request_head
from router.snapshot import Backend

__all__ = ["Answer", "Upstream", "UpstreamFault"]

_IDEMPOTENT: Final = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE", "TRACE"})
#: Methods whose request says so when its body is empty (RFC 9110, section 8.6).
_WITH_BODY: Final = frozenset({"POST", "PUT", "PATCH"})
#: Seconds that ``close`` waits for idle connections to be gone.
_CLOSE_SECONDS: Final = 1.0


class Upstream:
    """One backend. Must be used in one event loop, and closed."""

    def __init__(self, backend: Backend, *, tls: ssl.SSLContext | None = None) -> None:
        """``tls`` is for ``https`` urls; without it the system's certificate authorities are trusted."""
        self._backend = backend
        seconds = (backend.timeout_ms / 1000, backend.idle_timeout_ms / 1000, IDLE_SECONDS)
        self.deadlines = Deadlines(min(seconds))
        if tls is None and any(url.startswith("https:") for url in backend.urls):
            tls = ssl.create_default_context()
        self._replicas = tuple(Replica(self, url, backend, tls) for url in backend.urls)
        self._turn = 0
        #: Calls under way: from their beginning until the answer is whole, closed or failed.
        self.in_flight = 0
        self._gone: asyncio.Future[None] | None = None

    async def call(
        self, method: str, target: bytes, headers: Sequence[Header], body: bytes | AsyncIterator[bytes]
    ) -> Answer:
        """Send a request and return the answer as soon as its head is here.

        ``headers`` are end to end and hold Host. A body that is an iterator goes out chunked, or with the
        content-length that ``headers`` declare; what it raises ends the call and comes out here (later: out of the
        answer) as it is.

        Raises UpstreamFault: "overloaded", "refused", "timeout", "reset", "protocol", or "incomplete" if the answer
        broke off at once.
        """
        backend = self._backend
        if self.in_flight >= backend.max_concurrency:
            raise UpstreamFault("overloaded", f"{backend.max_concurrency} calls are under way")
        replica = self._least_busy()
        target = replica.target(target)
        upload: AsyncIterator[bytes] | None = None
        if isinstance(body, bytes):
            length = len(body) if body or method in _WITH_BODY else None
            payload = body
        else:
            upload, payload = body, b""
            declared = field(headers, b"content-length")
            length = None if declared is None else int(declared)
        head = request_head(
            method,
            target,
            headers,
            authority=replica.authority,
            length=length,
            chunked=upload is not None and length is None,
        )
        answer = Answer(replica)
        try:
            link = replica.take()
            while True:
                fresh = link is None
                if link is None:
                    link = await replica.connect()
                link.begin(answer, head, payload, bodyless=method == "HEAD")
                if upload is not None:
                    link.upload(upload, length)
                await answer.bell
                if answer.fault is None:
                    return answer
                if fresh or not link.closed_early or upload is not None or method not in _IDEMPOTENT:
                    raise answer.fault
                answer = Answer(replica)
                link = None
        except BaseException:
            answer.close()
            raise

    async def close(self) -> None:
        """Close what is idle; connections in use are closed when their calls end."""
        for replica in self._replicas:
            replica.close()
        if self._closing():
            self._gone = asyncio.get_running_loop().create_future()
            await asyncio.wait((self._gone,), timeout=_CLOSE_SECONDS)

    def lost(self) -> None:
        """A connection is gone."""
        if self._gone is not None and not self._gone.done() and not self._closing():
            self._gone.set_result(None)

    def _closing(self) -> bool:
        return any(replica.closing for replica in self._replicas)

    def _least_busy(self) -> Replica:
        replicas = self._replicas
        if len(replicas) == 1:
            return replicas[0]
        turn = self._turn
        chosen = min(replicas[turn:] + replicas[:turn], key=_in_flight)
        # Equals take turns: the one after the chosen is looked at first next time.
        self._turn = (replicas.index(chosen) + 1) % len(replicas)
        return chosen


class Replica:
    """One url of a backend and the pool of connections to it."""

    __slots__ = (
        "_backend",
        "_closed",
        "_host",
        "_idle",
        "_links",
        "_path",
        "_port",
        "_prefix",
        "_tls",
        "_upstream",
        "authority",
        "idle_seconds",
        "in_flight",
        "timeout_seconds",
    )

    def __init__(self, upstream: Upstream, url: str, backend: Backend, tls: ssl.SSLContext | None) -> None:
        parts = urlsplit(url)
        secure = parts.scheme == "https"
        self.in_flight = 0
        self.authority = parts.netloc.rpartition("@")[2].encode()
        self.timeout_seconds = backend.timeout_ms / 1000
        self.idle_seconds = backend.idle_timeout_ms / 1000
        self._backend = backend
        self._upstream = upstream
        self._host = parts.hostname or ""
        self._port = parts.port or (443 if secure else 80)
        self._tls = tls if secure else None
        self._prefix = _quoted(parts.path.rstrip("/"))
        self._path = None if backend.path is None else self._prefix + _quoted(backend.path)
        self._idle: list[Link] = []
        self._links: set[Link] = set()
        self._closed = False

    def __repr__(self) -> str:
        return f"<Replica {self.authority.decode()}: {self.in_flight} in flight, {len(self._idle)} idle>"

    def target(self, target: bytes) -> bytes:
        """Return the target as this replica is asked for it. Its query is kept, and its path unless we have one."""
        if self._path is not None:
            _, mark, query = target.partition(b"?")
            return self._path + mark + query
        return self._prefix + target if self._prefix and target != b"*" else target

    def take(self) -> Link | None:
        """Return the idle connection that was used last, if there is one."""
        return self._idle.pop() if self._idle else None

    async def connect(self) -> Link:
        """Return a new connection, its name resolved anew. Raises UpstreamFault: "refused" or "timeout"."""
        connecting = asyncio.get_running_loop().create_task(self._connect())  # in a task: it has a deadline
        try:
            return await connecting
        except asyncio.CancelledError:
            connecting.add_done_callback(_unwanted)
            raise

    async def _connect(self) -> Link:
        loop = asyncio.get_running_loop()
        link = Link(self, loop)
        backend = self._backend
        try:
            async with asyncio.timeout(backend.connect_timeout_ms / 1000):
                await loop.create_connection(
                    lambda: link,
                    self._host,
                    self._port,
                    ssl=self._tls,
                    server_hostname=self._host if self._tls is not None else None,
                )
        except BaseException as error:
            link.drop(UpstreamFault("reset", "not connected"))
            if isinstance(error, TimeoutError):
                raise UpstreamFault("timeout", f"no connection within {backend.connect_timeout_ms} ms") from error
            if isinstance(error, OSError | UnicodeError):
                raise UpstreamFault("refused", str(error)) from error
            raise
        return link

    def keep(self, link: Link) -> bool:
        """Pool a connection; False when it is not wanted any more."""
        if self._closed:
            return False
        self._idle.append(link)
        return True

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
        self._upstream.in_flight -= 1

    def made(self, link: Link) -> None:
        """A connection is up."""
        self._links.add(link)
        self._upstream.deadlines.watch(link)

    def retire(self, link: Link) -> None:
        """A connection takes no more calls."""
        self._upstream.deadlines.forget(link)
        if link in self._idle:
            self._idle.remove(link)

    def lost(self, link: Link) -> None:
        """A connection is gone."""
        self._links.discard(link)
        self._upstream.lost()


def _in_flight(replica: Replica) -> int:
    return replica.in_flight


def _unwanted(connecting: asyncio.Task[Link]) -> None:
    """Drop a connection that came up in the moment in which its call was cancelled."""
    if not connecting.cancelled() and connecting.exception() is None:
        connecting.result().drop(UpstreamFault("reset", "nobody wants it any more"))


def _quoted(path: str) -> bytes:
    """A configured path, with what cannot stand in a request line percent-encoded."""
    return quote(path, safe="/%:@!$&'()*+,;=~").encode()
