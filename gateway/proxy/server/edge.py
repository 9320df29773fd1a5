"""The server side: HTTP/1.1 as clients speak it, on the worker's listening socket.

Rule: what a client may do and when it is answered is in ``connection``, and what connections share in ``service``. Here
are the listening socket, the set of connections, and the drain.

Why not uvicorn: it never times out a client, lets the body of a request with ``Upgrade: h2c`` become a second request,
and merges trailers into the headers.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable, Coroutine
from ssl import SSLContext
from typing import Any, Final, Literal

from gateway.proxy.server.connection import Connection
from gateway.proxy.server.request import Request
from gateway.proxy.server.response import Response
from gateway.proxy.server.service import Service
from gateway.proxy.wire.buffers import Buffers
from router.snapshot import Gateway

#: Answers one request. It runs in a fiber of its own, which is cancelled when the client is lost.
Handler = Callable[[Request, Response], Coroutine[Any, Any, None]]

logger = logging.getLogger(__name__)

#: Connections that the kernel holds while the worker is busy.
_BACKLOG: Final = 4_096
#: How much the kernel takes from the worker before it has sent it (tcp(7)). Without this bound its buffer grows to
#: megabytes, and a client that pipelines requests and reads nothing is answered 13,000 times before it has to wait,
#: each time with a call to a backend and a row; with it, 800 times.
_UNSENT_BYTES: Final = 65_536
#: Seconds for handlers to end when they are cancelled at the end of a drain, and for their answers to be taken.
_CANCEL_SECONDS: Final = 1.0
#: Seconds of a drain in which every answer announces the close, and at most this share of the drain's time; and how
#: long that lasts without any connection: time for those that the kernel has accepted already.
_NOTICE_SECONDS: Final = 0.5
_NOTICE_SHARE: Final = 0.25
_UNNOTICED_SECONDS: Final = 0.02
#: The share of the notice, at its end, in which no new connections are accepted.
_LATEST_SHARE: Final = 0.4


class Edge(Service):
    """One listening server. Its limits are those of ``gateway``, which can be swapped at any time."""

    def __init__(
        self, handler: Handler, gateway: Gateway, *, ssl: SSLContext | None = None, buffers: Buffers | None = None
    ) -> None:
        """``buffers`` is the worker's budget, whose limit follows the settings from now on."""
        scheme: Literal["http", "https"] = "http" if ssl is None else "https"
        super().__init__(handler, gateway, scheme, Buffers(0) if buffers is None else buffers)
        self._gateway = gateway
        self._ssl = ssl
        self._server: asyncio.AbstractServer | None = None
        self._sock: socket.socket | None = None
        self._connections: set[Connection] = set()

    @property
    def gateway(self) -> Gateway:
        """The limits in force."""
        return self._gateway

    @gateway.setter
    def gateway(self, gateway: Gateway) -> None:
        self._gateway = gateway
        before = self.trusted
        self.limit(gateway)
        if self.trusted != before:
            for connection in self._connections:
                connection.renew_peer()

    @property
    def connections(self) -> int:
        """Clients connected now, those that are being turned away among them."""
        return len(self._connections)

    async def start(self, sock: socket.socket) -> None:
        """Accept clients on a bound socket, which this object owns from now on."""
        # Accepted sockets inherit it. Not SO_SNDBUF: that would also bound what is in flight to distant clients.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _UNSENT_BYTES)
        self._sock = sock
        self._server = await self._listen(self._ssl)

    async def renew(self, context: SSLContext) -> None:
        """Use this TLS context for new connections. Open ones go on, and none is refused meanwhile."""
        old = self._server
        if old is None or self._sock is None:
            return
        fresh = await self._listen(context)
        if self.draining:  # it began meanwhile, and no listening server may be left behind
            fresh.close()
            return
        self._ssl, self._server = context, fresh
        old.close()

    async def _listen(self, context: SSLContext | None) -> asyncio.AbstractServer:
        loop = asyncio.get_running_loop()
        assert self._sock is not None
        return await loop.create_server(
            lambda: Connection(self, loop, self._arrived, self._departed),
            sock=self._sock.dup(),  # every server after it shares this queue of clients
            backlog=_BACKLOG,
            ssl=context,
            ssl_handshake_timeout=None if context is None else self.header_seconds,
        )

    async def drain(self, timeout_seconds: float) -> None:
        """Announce the close, stop accepting, close idle connections, let requests finish; in the end cancel them.

        For a moment clients are still accepted, and their answers say that the connection closes: to close a connection
        at once could lose a request that its client is just sending. A request that is cancelled unanswered gets 503.
        When this returns, no connection is left.
        """
        loop = asyncio.get_running_loop()
        began = loop.time()
        self.draining = True
        notice = min(_NOTICE_SECONDS, timeout_seconds * _NOTICE_SHARE)
        await self._give_notice(notice * (1 - _LATEST_SHARE))
        if self._server is not None:
            self._server.close()
        await self._give_notice(notice * _LATEST_SHARE)  # a client that came at the last moment is sending its request
        self.closing = True
        if self._sock is not None:
            self._sock.close()
            self._sock = None
        for connection in list(self._connections):
            connection.close_if_idle()
        if await self._empty_within(max(0.0, began + timeout_seconds - loop.time())):
            return
        logger.warning("drain timed out with %d connections", len(self._connections))
        for fiber in list(self.fibers):
            fiber.cancel()
        if not await self._empty_within(_CANCEL_SECONDS):
            for connection in list(self._connections):
                connection.cut()
            await self._empty_within(_CANCEL_SECONDS)

    async def _give_notice(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        await asyncio.sleep(min(seconds, _UNNOTICED_SECONDS))
        if self._connections:
            await self._empty_within(max(0.0, began + seconds - loop.time()))

    async def _empty_within(self, seconds: float) -> bool:
        """Wait until no connection and no handler is left; return whether that is so."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self._connections or self.fibers:
                    await self.departure
        return not (self._connections or self.fibers)

    def _arrived(self, connection: Connection) -> int:
        """Count a connection in; return by how many there are too many, if above 0."""
        self._connections.add(connection)
        self.deadlines.watch(connection)
        excess = len(self._connections) - self.max_connections
        if excess > 0:
            self.turned_away += 1
        return excess

    def _departed(self, connection: Connection) -> None:
        """Count a connection out."""
        self._connections.discard(connection)
        self.deadlines.forget(connection)
        self.departure.ring()
