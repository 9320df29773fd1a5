"""Whatever bytes come, and however they are cut: no request is invented, none is lost, and no exception escapes.

The examples are the same in every run, so that a failure comes from a change of the code. For new ones, run
``python -m loadtests.fuzz``.
"""

from __future__ import annotations

import asyncio
import logging
import re
import socket
from collections.abc import Callable
from typing import Any

import httptools
import pytest
import uvloop
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from gateway.proxy.server.edge import Edge
from gateway.proxy.server.request import Request
from gateway.proxy.server.response import Response
from loadtests.fuzz import check
from router.snapshot import Gateway
from tests.gateway.proxy.payloads import PAYLOADS, Payload
from tests.gateway.proxy.raw import Client
from tests.gateway.proxy.wires import Read, Sent, mangled, pieces, requests, second_reading

LAST = b"GET /last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
# Not shrunk: what fails over sockets may take its time for each of thousands of smaller ones.
FIXED = settings(
    max_examples=100,
    deadline=None,
    derandomize=True,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


class Fuzzed:
    """An edge whose handler reads every body and answers with the number of its request, whole or in pieces."""

    def __init__(self, runner: asyncio.Runner) -> None:
        self._runner = runner
        self.read: list[Read] = []
        self.fields: list[tuple[tuple[bytes, bytes], ...]] = []
        self.escaped: list[dict[str, Any]] = []
        runner.get_loop().set_exception_handler(lambda _, context: self.escaped.append(context))
        self._edge = Edge(self._handle, Gateway(max_header_bytes=4_000, max_body_bytes=4_000))
        sock = socket.create_server(("127.0.0.1", 0))
        self._port = sock.getsockname()[1]
        runner.run(self._edge.start(sock))

    async def _handle(self, request: Request, response: Response) -> None:
        number = len(self.read)
        if number % 2:
            body = await request.body()
        else:
            body = b"".join([piece async for piece in request.chunks()])
        self.read.append(Read(request.method.encode(), request.target, body))
        # The parser leaves whitespace behind a value where it is; who reads the value reads it without (RequestFacts).
        self.fields.append(tuple((name, value.rstrip(b" \t")) for name, value in request.headers))
        if number % 3:
            response.send(200, [], b"%d" % number)
        else:
            response.start(200, [], length=None)
            await response.write(b"%d" % number)
            response.finish()

    def ask(self, *sent: bytes) -> bytes:
        """Send pieces and then the end; return all that came back."""
        self.read.clear()
        self.fields.clear()
        return self._runner.run(self._asked(sent))

    async def _asked(self, sent: tuple[bytes, ...]) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            for piece in sent:
                if writer.transport.is_closing():
                    break
                writer.write(piece)
                for _ in range(3):  # let the edge read it before there is more
                    await asyncio.sleep(0)
            if not writer.transport.is_closing():
                writer.write_eof()
            return await asyncio.wait_for(Client(reader, writer).rest(), 5)
        except ConnectionError:
            return b"<reset>"
        finally:
            writer.transport.abort()

    def end(self) -> None:
        self._runner.run(self._edge.drain(0.5))


def fuzzed(caplog: pytest.LogCaptureFixture, holds: Callable[[Fuzzed], None]) -> None:
    with caplog.at_level(logging.WARNING), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        edge = Fuzzed(runner)
        try:
            holds(edge)
        finally:
            edge.end()
    assert edge.escaped == []
    assert caplog.records == []


class _Answers:
    """The bodies of answers in order, by a parser; the end of the last one is the end of the bytes."""

    def __init__(self, data: bytes) -> None:
        self.bodies: list[bytes] = []
        httptools.HttpResponseParser(self).feed_data(data)

    def on_message_begin(self) -> None:
        self.bodies.append(b"")

    def on_body(self, data: bytes) -> None:
        self.bodies[-1] += data


def _ambiguous(request: Sent) -> bool:
    """Return whether some servers do not read the request's body, so that nothing is read behind it."""
    fields = {name.lower(): value for name, value in request.fields}
    framed = b"transfer-encoding" in fields or fields.get(b"content-length", b"0") != b"0"
    return framed and (request.method in (b"GET", b"HEAD", b"DELETE"))


def test_what_is_sent_is_what_is_handled_and_answered_in_order(caplog: pytest.LogCaptureFixture) -> None:
    def holds(edge: Fuzzed) -> None:
        @FIXED
        @given(sent=st.lists(requests(), min_size=1, max_size=5), cuts=st.lists(st.integers(1, 60), max_size=40))
        def example(sent: list[Sent], cuts: list[int]) -> None:
            answers = edge.ask(*pieces(b"".join(request.wire for request in sent) + LAST, cuts))
            last = next((number for number, request in enumerate(sent, 1) if _ambiguous(request)), None)
            expected = [Read(request.method, request.target, request.body) for request in sent[:last]]
            if last is None:
                assert edge.read.pop().target == b"/last"
                assert edge.fields.pop()
            assert edge.read == expected
            passing = [tuple(field for field in request.fields if b"_" not in field[0]) for request in sent[:last]]
            assert edge.fields == passing
            assert _Answers(answers).bodies == [b"%d" % number for number in range(len(expected) + (last is None))]

        example()

    fuzzed(caplog, holds)


def test_bytes_gone_wrong_are_refused_or_read_as_a_strict_reader_reads_them(caplog: pytest.LogCaptureFixture) -> None:
    """Every request that is handled is one that h11 finds as well, in its place and with its body.

    The other way round we are stricter: a bare line feed, a folded line, two lengths that agree or a length beside
    chunks are refused here, and then nothing behind them is read.
    """

    def holds(edge: Fuzzed) -> None:
        @FIXED
        @given(data=mangled(), cuts=st.lists(st.integers(1, 60), max_size=10))
        def example(data: bytes, cuts: list[int]) -> None:
            answers = edge.ask(*pieces(data, cuts))
            assert edge.read == second_reading(data)[: len(edge.read)]
            answered = [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", answers) if status != b"100"]
            assert answered[: len(edge.read)] == [200] * len(edge.read)
            assert len(answered) <= len(edge.read) + 1
            assert all(400 <= status < 600 for status in answered[len(edge.read) :])

        example()

    fuzzed(caplog, holds)


@pytest.mark.parametrize(
    "beginning", [b"", b"GET / HTTP/1.1\r\nHost: a\r\n", b"POST / HTTP/1.1\r\nTransfer-Encoding: "]
)
def test_noise_is_refused(caplog: pytest.LogCaptureFixture, beginning: bytes) -> None:
    def holds(edge: Fuzzed) -> None:
        @FIXED
        @given(noise=st.binary(max_size=300))
        def example(noise: bytes) -> None:
            answers = edge.ask(beginning + noise)
            assert edge.read == second_reading(beginning + noise)[: len(edge.read)]
            assert answers[:10] in (b"HTTP/1.1 2", b"HTTP/1.1 4", b"HTTP/1.1 5", b"", b"<reset>")

        example()

    fuzzed(caplog, holds)


@pytest.mark.interpreted
@pytest.mark.parametrize("payload", PAYLOADS, ids=lambda payload: payload.name)
def test_of_no_payload_more_requests_are_made_than_a_second_reader_makes(payload: Payload) -> None:
    """Those of the duties, by what ``python -m loadtests.fuzz`` holds of every input."""
    check(payload.raw)
