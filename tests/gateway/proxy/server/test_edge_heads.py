"""Which request heads the edge takes, and what its handler sees of them.

What is refused stands in ``payloads``, and is sent through the whole worker by ``test_duties_acceptance``.
"""

from __future__ import annotations

import pytest

from tests.gateway.proxy.raw import Seen, heads, play, served, status

CLOSE = b"Connection: close\r\n\r\n"


@pytest.mark.parametrize(
    "target",
    [
        b"/", b"/a/../b", b"//x", b"/./", b"/%2F%2f", b"/%zz", b"/%ff%FE", b"/;p=1", b"/x?", b"/x?a=b?c", b"/a?/../b",
        b'/"<>\\^`{|}', b"/x?%00",
    ],
)  # fmt: skip
def test_the_bytes_of_a_target_reach_the_handler_unchanged(target: bytes) -> None:
    async def main() -> None:
        seen = Seen()
        async with served(seen) as edge:
            assert status(await edge.ask(b"GET " + target + b" HTTP/1.1\r\nHost: a\r\n" + CLOSE)) == 200
        [request] = seen.requests
        assert request.target == target
        path, _, query = target.decode("latin-1").partition("?")
        assert (request.path, request.query) == (path, query)

    play(main())


@pytest.mark.parametrize(
    ("line", "target", "host"),
    [
        (b"GET http://b:81/x?y HTTP/1.1", b"/x?y", b"b:81"),
        (b"GET HTTPS://b HTTP/1.1", b"/", b"b"),
        (b"GET http://b?y HTTP/1.1", b"/?y", b"b"),
        (b"GET http://[::1]:81/../x HTTP/1.1", b"/../x", b"[::1]:81"),
        (b"OPTIONS http://b HTTP/1.1", b"*", b"b"),
        (b"OPTIONS * HTTP/1.1", b"*", b"a"),
    ],
)
def test_an_absolute_target_becomes_a_path_and_names_the_host(line: bytes, target: bytes, host: bytes) -> None:
    """The Host that was sent beside it is ignored, as RFC 9112, section 3.2.2 asks."""

    async def main() -> None:
        seen = Seen()
        async with served(seen) as edge:
            assert status(await edge.ask(line + b"\r\nX: 1\r\nHost: a\r\n" + CLOSE)) == 200
        [request] = seen.requests
        assert request.target == target
        assert request.headers[:2] == [(b"X", b"1"), (b"Host", host)]

    play(main())


def test_header_fields_arrive_in_order_with_their_bytes_case_and_number() -> None:
    fields = [
        (b"Host", b"a"), (b"X-One", b"1"), (b"x-one", b"2"), (b"X-ONE", b""), (b"X-Latin", b"caf\xe9 \xff\tx"),
        (b"Connection", b"close"),
    ]  # fmt: skip

    async def main() -> None:
        seen = Seen()
        async with served(seen) as edge:
            lines = b"".join(name + b": " + value + b"\r\n" for name, value in fields)
            assert status(await edge.ask(b"\r\n\r\nGET / HTTP/1.1\r\n" + lines + b"\r\n")) == 200
        assert [request.headers for request in seen.requests] == [fields]

    play(main())


def test_a_head_may_come_byte_by_byte() -> None:
    async def main() -> None:
        seen = Seen()
        async with served(seen) as edge:
            message = b"POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nT: 1\r\n\r\n"
            async with edge.client() as client:
                for byte in message + message:
                    await client.send(bytes([byte]))
                assert heads(await client.answer() + await client.answer()) == 2
        assert seen.bodies == [b"abc", b"abc"]
        assert [name for name, _ in seen.requests[1].headers] == [b"Host", b"Transfer-Encoding"]

    play(main())


def test_a_head_over_the_limit_is_431_and_a_target_over_it_414() -> None:
    async def main() -> None:
        seen = Seen()
        async with served(seen, max_header_bytes=1000) as edge:
            head = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nX: "
            assert status(await edge.ask(head + b"x" * (1000 - len(head) - 4) + b"\r\n\r\n")) == 200
            assert status(await edge.ask(head + b"x" * (1001 - len(head) - 4) + b"\r\n\r\n")) == 431
            assert status(await edge.ask(head + b"x" * 2000)) == 431
            assert status(await edge.ask(b"GET /", b"x" * 900, b"x" * 900)) == 414
            assert status(await edge.ask(b"GET / HTTP/1.1\r\nHost: a\r\nX: ", b"x" * 900, b"x" * 900)) == 431
            assert status(await edge.ask(b"GET /" + b"x" * 2000 + b" HTTP/1.1\r\nHost: a\r\n\r\n")) == 414
            assert len(seen.requests) == 1

    play(main())


def test_more_fields_than_allowed_are_431_and_a_longer_target_414() -> None:
    async def main() -> None:
        seen = Seen()
        async with served(seen, max_headers=10, max_target_bytes=300) as edge:

            def head(target: bytes, fields: int) -> bytes:
                lines = b"".join(b"X-%d: 1\r\n" % n for n in range(fields - 2))
                return b"GET " + target + b" HTTP/1.1\r\nHost: a\r\n" + lines + CLOSE

            longest = b"/" + b"x" * 299
            assert status(await edge.ask(head(longest, 10))) == 200
            assert status(await edge.ask(head(b"/", 11))) == 431
            assert status(await edge.ask(head(b"/", 5000)[:-4])) == 431  # and does not wait for its end
            assert status(await edge.ask(head(longest + b"x", 2))) == 414
            assert status(await edge.ask(b"GET " + longest, b"xx")) == 414
            assert status(await edge.ask(b"GET http://a" + longest + b" HTTP/1.1\r\nHost: a\r\n" + CLOSE)) == 414
            assert [request.target for request in seen.requests] == [longest]

    play(main())


@pytest.mark.parametrize(
    ("via", "expected"),
    [
        (b"1.1 turnout, 1.0 turnout, 1.1 turnout (Turnout, inner), 1.1 turnout", 200),
        (b"1.1 turnout, 1.0 turnout\r\nVia: 1.1 turnout (Turnout, inner)\r\nvia:\tHTTP/1.1 turnout,1.1 turnout", 508),
        (b"1.1 a, 1.1 b, 1.1 c, 1.1 d, 1.1 e, 1.1 f, , x", 200),
    ],
)
def test_a_request_that_passed_this_kind_of_gateway_five_times_goes_in_circles(via: bytes, expected: int) -> None:
    async def main() -> None:
        seen = Seen()
        async with served(seen) as edge:
            assert status(await edge.ask(b"GET / HTTP/1.1\r\nHost: a\r\nVia: " + via + b"\r\n" + CLOSE)) == expected
        assert len(seen.requests) == (expected == 200)

    play(main())


@pytest.mark.parametrize("number", [b"0" * 5_000 + b"2", b"0" * 21])
def test_a_number_of_thousands_of_digits_is_refused_and_not_read(number: bytes) -> None:
    async def main() -> None:
        async with served(Seen()) as edge:
            head = b"OPTIONS / HTTP/1.1\r\nHost: a\r\n"
            assert status(await edge.ask(head + b"Content-Length: " + number + b"\r\n\r\nab")) == 400
            assert status(await edge.ask(head + b"Max-Forwards: " + number + b"\r\n\r\n")) == 400

    play(main())


def test_a_refused_head_request_has_no_body() -> None:
    async def main() -> None:
        async with served(Seen()) as edge:
            answer = await edge.ask(b"HEAD / HTTP/1.1\r\n\r\n")
            assert status(answer) == 400
            assert answer.endswith(b"\r\n\r\n")

    play(main())


def test_http_1_0_needs_no_host() -> None:
    async def main() -> None:
        seen = Seen()
        async with served(seen) as edge:
            assert status(await edge.ask(b"GET /x HTTP/1.0\r\n\r\n")) == 200
        assert seen.requests[0].http10

    play(main())
