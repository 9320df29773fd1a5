"""The protocol of the admin port: uvicorn's, with bounds on what a client may cost before its token is looked at.

Rules:

1. A head has at most ``HEAD_BYTES`` and ``FIELDS``, and must be complete within ``HEAD_SECONDS``; a body has a declared
   length of at most ``BODY_BYTES``, and must be complete ``REQUEST_SECONDS`` after its head. Chunked bodies are
   refused: their trailers have no bound.
2. A connection whose client reads nothing of its answer for ``REQUEST_SECONDS`` is closed.
3. Beyond ``CONNECTIONS``, the idle connection is closed that has been idle for longest, of the address that has most
   idle ones: so idle connections cannot keep other clients out. Requests under way are bounded by the guard, which
   answers health checks regardless.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import Counter
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any, Final, cast

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_BYTES: Final = 65_536
FIELDS: Final = 128
BODY_BYTES: Final = 2**21
HEAD_SECONDS: Final = 10.0
REQUEST_SECONDS: Final = 30.0
CONNECTIONS: Final = 256
#: Connections that wait to be accepted, and that are accepted in one turn of the loop, which the recorder shares.
BACKLOG: Final = 64
#: Pipelined requests that wait on one connection.
_PIPELINED: Final = 16


class AdminConnection(HttpToolsProtocol):
    """One connection to the admin port."""

    head_seconds = HEAD_SECONDS
    request_seconds = REQUEST_SECONDS
    most_connections = CONNECTIONS

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self._deadline: asyncio.TimerHandle | None = None
        self._unread: asyncio.TimerHandle | None = None
        self._head_bytes = 0  # of the head that is being read
        self._fields = 0
        self._field_bytes = 0
        self._heading = True  # no head is complete since the last request
        self._refused = False
        #: Since when it is idle, on the loop's clock.
        self.since = 0.0

    @property
    def silent(self) -> bool:
        """Whether it is idle: no request is under way."""
        return self.cycle is None or (self.cycle.response_complete and not self.pipeline)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(cast("asyncio.Transport", transport))
        self.since = self.loop.time()
        self._expect(self.head_seconds)
        if len(self.connections) > self.most_connections:
            self._make_room()

    def connection_lost(self, exc: Exception | None) -> None:
        self._expect(None)
        if self._unread is not None:
            self._unread.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        if self._heading:
            if self._deadline is None:
                self._expect(self.head_seconds)
            self._head_bytes += len(data)
        super().data_received(data)
        if self._heading and self._head_bytes > HEAD_BYTES:
            self._refuse(431)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._fields = self._field_bytes = 0

    def on_url(self, url: bytes) -> None:
        self._field_bytes += len(url)
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._fields += 1
        self._field_bytes += len(name) + len(value)
        if self._fields <= FIELDS:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._heading = False
        self._head_bytes = 0
        if self._refused:
            return
        length = [value for name, value in self.headers if name == b"content-length"]
        if self._fields > FIELDS or self._field_bytes > HEAD_BYTES:
            self._refuse(431)
        elif any(name == b"transfer-encoding" for name, _ in self.headers):
            self._refuse(411)
        elif any(len(value) > 7 or int(value) > BODY_BYTES for value in length):
            self._refuse(413)
        elif len(self.pipeline) >= _PIPELINED:
            self._refuse(429)
        else:
            self._expect(self.request_seconds)
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        if not self._refused:
            super().on_body(body)

    def on_message_complete(self) -> None:
        self._heading = True
        if not self._refused:
            self._expect(None)
            super().on_message_complete()

    def on_response_complete(self) -> None:
        self.since = self.loop.time()
        super().on_response_complete()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._unread = self.loop.call_later(self.request_seconds, self._cut)

    def resume_writing(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None
        super().resume_writing()

    def _expect(self, seconds: float | None) -> None:
        """Close the connection after so many seconds, in place of the deadline before; with None there is none."""
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = None if seconds is None else self.loop.call_later(seconds, self._cut)

    def _cut(self) -> None:
        if self.transport is not None:
            self.transport.abort()

    def _refuse(self, status: int) -> None:
        """Send an error and close the connection; where an answer is under way, close it without one."""
        self._refused = True
        if not self.silent:
            self._cut()
            return
        line = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
        self.transport.write(line.encode())
        self.transport.close()

    def _make_room(self) -> None:
        everyone = cast("set[AdminConnection]", self.connections)
        silent = [one for one in everyone if one is not self and one.silent]
        if silent:
            ((address, _),) = Counter(map(_address, silent)).most_common(1)
            oldest = min((one for one in silent if _address(one) == address), key=lambda one: one.since)
            # Removed here and not in connection_lost: new connections of the same burst would choose it again, and free
            # none.
            everyone.discard(oldest)
            oldest._cut()


class AdminServer(uvicorn.Server):
    """uvicorn without its signal handlers, since the controller has its own, and with its own ``startup``."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept clients on these sockets."""
        loop, tls = asyncio.get_running_loop(), self.config.ssl
        for sock in sockets or ():
            server = await loop.create_server(
                self._connection,
                sock=sock,
                backlog=BACKLOG,
                ssl=tls,
                ssl_handshake_timeout=None if tls is None else HEAD_SECONDS,
            )
            self.servers.append(server)
        self.started = True

    def _connection(self) -> asyncio.Protocol:
        made: asyncio.Protocol = self.config.http_protocol_class(  # type: ignore[call-arg]
            config=self.config, server_state=self.server_state, app_state={}
        )
        return made


def server(app: Any, connection: type[AdminConnection] = AdminConnection) -> AdminServer:
    """Return a server of the admin app. With a context in its ``config.ssl`` it speaks TLS."""
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        lifespan="off",
        http=connection,
        ws="none",
        server_header=False,
        timeout_graceful_shutdown=2,
    )
    config.load()
    made = AdminServer(config)
    made.servers = []
    return made


def _address(connection: AdminConnection) -> str:
    return connection.client[0] if connection.client else ""
