"""What a client may cost the admin port before its token is looked at: a real server on a real socket."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from gateway.admin.app import create
from gateway.admin.guard import MOST_REQUESTS
from gateway.admin.port import CONNECTIONS, FIELDS, HEAD_BYTES, AdminConnection, server
from gateway.control import __main__ as controller
from gateway.files import tls
from router.snapshot import Gateway
from tests.gateway.admin.fake import control
from tests.gateway.proxy.certificates import authority, certificate


class Hurried(AdminConnection):
    """A connection with short deadlines."""

    head_seconds = 0.3
    request_seconds = 0.5


class Small(AdminConnection):
    most_connections = 8


@dataclass
class Port:
    number: int

    async def open(self, sent: bytes = b"", source: str = "127.0.0.1") -> tuple[asyncio.StreamReader, Any]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.number, local_addr=(source, 0))
        writer.write(sent)
        return reader, writer

    async def ask(self, sent: bytes, **more: str) -> bytes:
        """Send, and return everything that comes until the end."""
        reader, writer = await self.open(sent, **more)
        try:
            return await asyncio.wait_for(_rest(reader), 10)
        finally:
            writer.transport.abort()

    async def get(self, path: str, *fields: bytes, **more: str) -> bytes:
        lines = (b"GET %b HTTP/1.1" % path.encode(), b"Host: localhost", b"Connection: close", *fields, b"", b"")
        return await self.ask(b"\r\n".join(lines), **more)


async def _rest(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.read()
    except ConnectionError:
        return b"<reset>"


@asynccontextmanager
async def serving(
    connection: type[AdminConnection] = AdminConnection, context: ssl.SSLContext | None = None, **gateway: Any
) -> AsyncIterator[Port]:
    fake = control(**gateway)
    fake.stored["digits"] = [[{"at_ms": 1, "text": "x" * 10_000}] * 200] * 20
    running = server(create(fake.parts), connection)
    running.config.ssl, running.config.timeout_keep_alive = context, 1
    with socket.create_server(("127.0.0.1", 0)) as sock:
        task = asyncio.create_task(running.serve(sockets=[sock]))
        try:
            while not running.started:
                await asyncio.sleep(0.01)
            yield Port(sock.getsockname()[1])
        finally:
            running.should_exit = running.force_exit = True
            running.config.timeout_graceful_shutdown = 0
            await task


def test_silent_connections_keep_no_client_out() -> None:
    """256 of them kept out every client, health checks too. Now the oldest is closed, of the client that has most."""

    async def main() -> None:
        async with serving() as port:
            held = [await port.open(b"GET / HTTP/1.1\r\nX: " * (number % 2)) for number in range(CONNECTIONS + 20)]
            patient = await port.open(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\n", "127.0.0.2")
            more = [await port.open() for _ in range(CONNECTIONS)]
            for path in ("/livez", "/readyz", "/metrics", "/api/v1/routes"):
                assert (await port.get(path)).startswith(b"HTTP/1.1 200"), path
            patient[1].write(b"\r\n")  # another client's is not what has to go
            assert (await asyncio.wait_for(patient[0].readline(), 10)).startswith(b"HTTP/1.1 200")
            for _, writer in (*held, *more, patient):
                writer.transport.abort()

    asyncio.run(main())


def test_a_client_that_sends_half_a_request_or_takes_no_answer_is_cut_off() -> None:
    async def main() -> None:
        async with serving(Hurried) as port:
            halves = (
                b"",
                b"GET /livez HTTP/1.1\r\nHost: localhost\r\n",
                b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\nGET /livez HTTP/1.1\r\n",
                b"POST /api/v1/privacy/erase HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n{",
            )
            for half in halves:
                assert (await port.ask(half)).count(b"HTTP/1.1 200") == half.count(b"\r\n\r\nGET")
            reader, writer = await port.open(b"GET /api/v1/export?route=digits HTTP/1.1\r\nHost: localhost\r\n\r\n")
            writer.transport.pause_reading()
            await asyncio.sleep(1.5)
            writer.transport.resume_reading()
            answer = await asyncio.wait_for(_rest(reader), 10)
            assert not answer.endswith(b"0\r\n\r\n")
            writer.transport.abort()

    asyncio.run(main())


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GET /livez HTTP/1.1\r\nHost: localhost\r\n" + b"X: y\r\n" * FIELDS + b"\r\n", 431),
        (b"GET /livez HTTP/1.1\r\nHost: localhost\r\nX: " + b"y" * HEAD_BYTES + b"\r\n\r\n", 431),
        (b"GET /livez?" + b"y" * HEAD_BYTES + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", 431),
        (b"POST /-/reload HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", 411),
        (b"POST /-/reload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5000000\r\n\r\n", 413),
        (b"POST /-/reload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999\r\n\r\n", 413),
        (b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n" * 40, 200),
    ],
)
def test_what_is_over_a_bound_is_answered_once_and_the_connection_closed(sent: bytes, status: int) -> None:
    async def main() -> None:
        async with serving() as port:
            assert (await port.ask(sent)).startswith(b"HTTP/1.1 %d" % status) or status == 200
            assert (await port.get("/livez")).startswith(b"HTTP/1.1 200")

    asyncio.run(main())


def test_a_flood_of_header_fields_costs_no_memory() -> None:
    """200 MiB of them took 2.5 GB of memory. Bytes are counted as they come, also those of a field that never ends."""

    async def main() -> None:
        async with serving() as port:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            for flood in (b"X: y\r\n" * 10_000, b"y" * 60_000):
                flooding = [await port.open(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nX: ") for _ in range(20)]
                for _ in range(10):
                    for _, writer in flooding:
                        if not writer.transport.is_closing():
                            writer.write(flood)
                    await asyncio.sleep(0)
                for reader, writer in flooding:
                    answer = await asyncio.wait_for(_rest(reader), 10)
                    assert answer.startswith((b"HTTP/1.1 431", b"<reset>")) or not answer
                    writer.transport.abort()
            assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024  # KiB; 24 MB were sent
            assert (await port.get("/livez")).startswith(b"HTTP/1.1 200")

    asyncio.run(main())


def test_health_is_answered_while_every_place_for_requests_is_taken() -> None:
    async def main() -> None:
        async with serving() as port:
            ask = b"POST /api/v1/privacy/erase HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n"
            waiting = [await port.open(ask) for _ in range(MOST_REQUESTS)]
            await asyncio.sleep(0.2)
            full = await port.get("/api/v1/routes")
            assert full.startswith(b"HTTP/1.1 503")
            assert b"retry-after: 1" in full
            for path in ("/livez", "/readyz"):
                assert (await port.get(path)).startswith(b"HTTP/1.1 200")
            for _, writer in waiting:
                writer.transport.abort()

    asyncio.run(main())


def test_of_connections_that_have_nothing_under_way_the_oldest_goes_first() -> None:
    async def main() -> None:
        async with serving(Small) as port:
            held = [await port.open() for _ in range(8)]
            await asyncio.sleep(0.05)
            assert (await port.get("/livez")).startswith(b"HTTP/1.1 200")
            await asyncio.sleep(0.05)
            assert [reader.at_eof() or reader.exception() is not None for reader, _ in held] == [True] + [False] * 7
            for _, writer in held:
                writer.transport.abort()

    asyncio.run(main())


def test_the_admin_port_speaks_tls_by_its_own_certificate(tmp_path: Path) -> None:
    certificate(tmp_path)
    gateway = Gateway(admin_tls_cert_file=str(tmp_path / "cert.pem"), admin_tls_key_file=str(tmp_path / "key.pem"))

    async def main() -> None:
        async with serving(context=tls.admin_context(gateway)) as port:
            for context, name in ((authority(tmp_path), "localhost"), (tls.asking_context(gateway), "any.name")):
                assert context is not None
                reader, writer = await asyncio.open_connection(
                    "127.0.0.1", port.number, ssl=context, server_hostname=name
                )
                writer.write(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                assert (await reader.readline()).startswith(b"HTTP/1.1 200")
                writer.close()

    asyncio.run(main())


def test_the_admin_ports_certificate_is_read_again_when_it_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate(tmp_path)
    gateway = Gateway(admin_tls_cert_file=str(tmp_path / "cert.pem"), admin_tls_key_file=str(tmp_path / "key.pem"))
    monkeypatch.setattr(controller, "RENEW_SECONDS", 0.05)

    async def shown(port: Port, context: ssl.SSLContext) -> bytes:
        _, writer = await asyncio.open_connection("127.0.0.1", port.number, ssl=context, server_hostname="localhost")
        found: bytes = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        writer.transport.abort()
        return found

    async def main() -> None:
        context, renewal = tls.admin_context(gateway), tls.Renewal(gateway, tls.admin_context)
        async with serving(context=context) as port:
            renewing = asyncio.create_task(controller._renew(context, renewal, lambda: gateway))
            first = await shown(port, authority(tmp_path))
            key = (tmp_path / "key.pem").read_text()
            (tmp_path / "key.pem").write_text("no key")
            await asyncio.sleep(0.15)
            assert await shown(port, authority(tmp_path)) == first
            (tmp_path / "key.pem").write_text(key)
            await asyncio.to_thread(certificate, tmp_path)
            async with asyncio.timeout(10):
                while True:
                    with contextlib.suppress(ssl.SSLCertVerificationError):  # the old one still
                        if await shown(port, authority(tmp_path)) != first:
                            break
                    await asyncio.sleep(0.05)
            renewing.cancel()

    asyncio.run(main())
