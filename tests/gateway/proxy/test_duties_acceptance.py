"""Duties 1 to 18 of an intermediary: which requests it takes, over a raw socket, and what the backend saw of them.

Rule: each test is one duty. What is sent and what must come of it stands in ``payloads``; here are the facts, their
sources, and what a table cannot say.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from router.snapshot import Gateway
from tests.gateway.proxy import builders, faults
from tests.gateway.proxy.chain import chain, hold, statuses, values
from tests.gateway.proxy.faults import polite
from tests.gateway.proxy.payloads import LAST, SMUGGLED, chunked, get, post
from tests.gateway.proxy.stage import play, staged


def test_duty_1_a_request_without_exactly_one_valid_host_is_400_and_reaches_no_backend(tmp_path: Path) -> None:
    """RFC 9112, section 3.2."""
    hold(tmp_path, 1)


def test_duty_2_an_absolute_target_becomes_a_path_and_its_host_the_host(tmp_path: Path) -> None:
    """RFC 9112, section 3.2.2: the Host that was sent is ignored."""
    hold(tmp_path, 2)

    async def main() -> None:
        async with chain(tmp_path) as c:
            await c.ask(b"GET http://b:81/x HTTP/1.1\r\nX: 1\r\nHost: a\r\nConnection: close\r\n\r\n")
        assert c.seen[0].fields[:2] == [(b"X", b"1"), (b"Host", b"b:81")]
        assert c.seen[0].values(b"x-forwarded-host") == [b"b:81"]

    play(main())


def test_duty_3_an_asterisk_is_for_options_alone_and_what_is_no_target_is_refused(tmp_path: Path) -> None:
    """RFC 9112, section 3.2.4, and section 2.3 for the version. ``OPTIONS *`` asks the gateway itself."""
    hold(tmp_path, 3)


def test_duty_3_dot_segments_leave_neither_a_route_nor_a_base_path(tmp_path: Path) -> None:
    """RFC 3986, section 6.2.2.3. The target is passed on unchanged, and the backend may resolve it to another path."""

    async def main() -> None:
        async with faults.backend(polite) as model:
            cast = builders.snapshot(
                builders.backend("b", f"{model.url}/base"),
                builders.route("open", builders.only("b"), path="/v1/*"),
                builders.route("guarded", builders.only("b"), path="/v1/admin/*"),
            )
            async with staged(tmp_path, cast) as stage:
                for rest in ("../x", "%2e%2E/x", "..%2fx", "x/../admin/y", "admin/../x", ".."):
                    assert (await stage.ask(f"/v1/{rest}", method="GET")).status == 400, rest
                assert (await stage.ask("/v1/a/%2e./b?c=/../", method="GET")).status == 200
            assert [request.line for request in model.requests] == [b"GET /base/v1/a/%2e./b?c=/../ HTTP/1.1"]

    play(main())


def test_duty_4_a_length_and_a_coding_together_are_400_and_the_end_of_the_connection(tmp_path: Path) -> None:
    """RFC 9112, sections 6.1 and 6.3."""
    hold(tmp_path, 4)


def test_duty_5_chunked_is_the_last_coding_and_the_only_one(tmp_path: Path) -> None:
    """RFC 9112, sections 6.1 and 6.3: 501 for a coding that we do not know, 400 where the end cannot be known."""
    hold(tmp_path, 5)


def test_duty_6_http_1_0_has_no_transfer_coding(tmp_path: Path) -> None:
    """RFC 9112, section 6.1."""
    hold(tmp_path, 6)


def test_duty_7_a_length_is_one_plain_number(tmp_path: Path) -> None:
    """RFC 9112, section 6.3; RFC 9110, section 8.6."""
    hold(tmp_path, 7)


def test_duty_8_no_whitespace_before_a_colon_or_a_field_and_no_folded_lines(tmp_path: Path) -> None:
    """RFC 9112, sections 2.2, 5.1 and 5.2."""
    hold(tmp_path, 8)


def test_duty_9_control_bytes_are_refused_and_a_bare_line_feed_ends_nothing(tmp_path: Path) -> None:
    """RFC 9110, section 5.5; RFC 9112, section 2.2."""
    hold(tmp_path, 9)


def test_duty_10_a_chunk_is_hexadecimal_digits_and_as_long_as_they_say(tmp_path: Path) -> None:
    """RFC 9112, section 7.1."""
    hold(tmp_path, 10)


def test_duty_11_nothing_is_read_after_a_framing_error(tmp_path: Path) -> None:
    """RFC 9112, section 6.3: what comes later, in other packets, is no request either."""

    async def main() -> None:
        async with chain(tmp_path) as c:
            for broken in (post(b"Content-Length: x"), chunked(b"x\r\n"), get(b"Host: a", b"X : 1")):
                async with c.client() as client:
                    await client.send(broken)
                    assert statuses(await client.answer()) == (400,)
                    assert await client.ask(SMUGGLED, SMUGGLED) in (b"", b"<reset>")
            assert c.seen == []

    play(main())


def test_duty_12_trailers_never_become_fields_of_the_head(tmp_path: Path) -> None:
    """RFC 9110, section 6.5.1; RFC 9112, section 7.1.2. They are dropped, whenever they come."""
    hold(tmp_path, 12)

    async def main() -> None:
        async with chain(tmp_path) as c:
            await c.ask(chunked(b"3\r\nabc\r\n0\r\n"), b"X-User-Id: root\r\nHost: evil\r\n\r\n", LAST)
        assert c.seen[0].body == b"abc"
        assert c.seen[0].values(b"x-user-id") == []
        assert c.seen[0].values(b"host") == [b"a"]

    play(main())


def test_duty_13_the_body_of_a_request_for_an_upgrade_is_its_body_and_the_upgrade_stops_here(tmp_path: Path) -> None:
    """RFC 9110, sections 7.8 and 7.6.1. The parser skips such a body: read on, it would be the next request."""
    hold(tmp_path, 13)

    async def main() -> None:
        async with chain(tmp_path) as c:
            fields = (b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABk")
            await c.ask(post(*fields, b"Content-Length: 35", body=SMUGGLED) + LAST)
        assert [name.lower() for name, _ in c.seen[0].fields] == [
            b"host", b"via", b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host", b"content-length",
        ]  # fmt: skip

    play(main())


def test_duty_14_a_client_that_expects_100_gets_it_or_its_answer_at_once(tmp_path: Path) -> None:
    """RFC 9110, sections 10.1.1 and 15.2."""
    hold(tmp_path, 14)

    async def main() -> None:
        async with chain(tmp_path) as c:
            expecting = post(b"Expect: 100-Continue", b"Content-Length: 3")
            async with c.client() as client:
                await client.send(expecting)
                assert await client.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
                await client.send(b"abc")
                assert statuses(await client.answer()) == (200,)
                assert statuses(await client.ask(LAST)) == (200,)
            assert [request.body for request in c.seen] == [b"abc", b""]
            assert c.seen[0].values(b"expect") == []
            # No 1xx to HTTP/1.0, though its body is waited for.
            answer = await c.ask(post(b"Expect: 100-continue", b"Content-Length: 3", version=b"HTTP/1.0"), b"abc")
            assert statuses(answer) == (200,)
            # A body that cannot be taken is refused before it is sent.
            large = post(b"Expect: 100-continue", b"Content-Length: 99999999")
            assert statuses(await c.ask(large)) == (413,)
            assert len(c.seen) == 3

    play(main())


@pytest.mark.parametrize("expects", [False, True])
def test_duty_14_a_final_answer_before_the_body_ends_the_upload_cleanly(tmp_path: Path, expects: bool) -> None:
    """RFC 9110, section 10.1.1: the client reads the answer, and what it still sends is no request."""

    async def main() -> None:
        async with chain(tmp_path) as c, c.client() as client:
            fields = (b"Expect: 100-continue",) if expects else ()
            await client.send(post(*fields, b"Content-Length: 5000000").replace(b" /x ", b" /-/nothing "))
            assert statuses(await client.answer()) == (404,)
            assert await client.ask(SMUGGLED * 10_000) in (b"", b"<reset>")
            assert c.seen == []

    play(main())


def test_duty_15_what_is_over_a_limit_is_431_414_or_413_before_it_is_held(tmp_path: Path) -> None:
    """RFC 9110, sections 15.5.14 and 15.5.15; RFC 6585, section 5; RFC 9112, section 9.3 for the close."""
    hold(tmp_path, 15)

    async def main() -> None:
        limits = Gateway(max_header_bytes=2_000, max_target_bytes=500, max_headers=10, max_body_bytes=1_000)
        async with chain(tmp_path, gateway=limits) as c:
            async with c.client() as client:
                client.writer.write(post(b"Content-Length: 4000000") + b"x" * 4_000_000)
                assert statuses(await client.rest()) == (413,)  # a client that is still sending can read it
            endless = chunked(b"3e8\r\n" + b"x" * 1_000 + b"\r\n5\r\nxxxxx\r\n")
            assert statuses(await c.ask(endless)) == (413,)
            assert statuses(await c.ask(get(b"Host: a", *[b"X: 1"] * 10))) == (431,)
            assert c.seen == []
            assert statuses(await c.ask(post(b"Content-Length: 1000", b"Connection: close", body=b"x" * 1_000))) == (
                200,
            )

    play(main())


def test_duty_16_close_in_any_form_ends_the_connection_and_what_is_behind_it_is_not_read(tmp_path: Path) -> None:
    """RFC 9112, section 9.6."""
    hold(tmp_path, 16)

    async def main() -> None:
        async with chain(tmp_path) as c:
            assert values(await c.ask(get(b"Host: a", b"Connection: x, CLOSE")), b"connection") == [b"close"]

    play(main())


def test_duty_17_pipelined_requests_are_answered_in_order_to_a_half_closed_client_too(tmp_path: Path) -> None:
    """RFC 9112, sections 9.3.2 and 9.6."""
    hold(tmp_path, 17)

    async def main() -> None:
        async def echo(wire: faults.Wire) -> None:
            while (request := await wire.request()) is not None:
                await asyncio.sleep(0.02 if b"/0 " in request.line else 0)
                await wire.send(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n" + request.line.split()[1])

        async with chain(tmp_path, echo) as c, c.client() as client:
            await client.send(b"".join(get(b"Host: a", target=b"/%d" % n) for n in range(9)))
            client.writer.write_eof()
            answers = await client.rest()
            assert [answer[-2:] for answer in answers.split(b"HTTP/1.1 200 OK")[1:]] == [b"/%d" % n for n in range(9)]
            assert [request.line for request in c.seen] == [b"GET /%d HTTP/1.1" % n for n in range(9)]

    play(main())


def test_duty_18_empty_lines_before_a_request_are_passed_over(tmp_path: Path) -> None:
    """RFC 9112, section 2.2."""
    hold(tmp_path, 18)
