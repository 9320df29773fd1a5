"""Duties 19 to 31 of an intermediary: what a backend receives of a request, byte for byte, and how often.

Rule: each test is one duty, driven over a raw socket through a worker; what is checked is what the backend received.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from gateway.files.published import SNAPSHOT, publish
from router.snapshot import Gateway
from tests.gateway.proxy import builders, faults
from tests.gateway.proxy.certificates import certificate
from tests.gateway.proxy.chain import CLOSE, chain, hold, statuses
from tests.gateway.proxy.faults import OK, Received, Script, Wire
from tests.gateway.proxy.payloads import get, post
from tests.gateway.proxy.stage import play

#: What the gateway adds behind a client's fields.
WAY = [
    (b"via", b"1.1 turnout"),
    (b"x-forwarded-for", b"127.0.0.1"),
    (b"x-forwarded-proto", b"http"),
    (b"x-forwarded-host", b"a"),
]


def received(directory: Path, *requests: bytes, gateway: Gateway | None = None) -> list[Received]:
    """Send requests, each on a connection of its own, and return what the backend saw of them."""
    seen: list[Received] = []

    async def main() -> None:
        async with chain(directory, gateway=gateway) as c:
            for request in requests:
                assert statuses(await c.ask(request)) == (200,), request
            seen.extend(c.seen)

    play(main())
    assert len(seen) == len(requests)
    return seen


UNDERSCORED = (
    b"Transfer_Encoding: chunked", b"Content_Length: 5", b"Host_: b", b"X_User_Id: root", b"turnout_mirror: 1",
    b"X_Forwarded_For: 203.0.113.9", b"X-Forwarded_Host: api.example", b"turnout-force_variant: b",
)  # fmt: skip


@pytest.mark.parametrize("allowed", [False, True])
def test_duty_26_fields_with_an_underscore_are_no_fields_of_another_name(tmp_path: Path, allowed: bool) -> None:
    """CGI and WSGI give X_User_Id and X-User-Id one name. Imitations of framing or of our fields never pass."""

    async def main() -> None:
        gateway = Gateway(underscores_in_headers=allowed)
        async with chain(tmp_path, gateway=gateway) as c:
            assert statuses(await c.ask(get(b"Host: a", *UNDERSCORED, b"X-Kept: 1", b"Connection: close"))) == (200,)
            passing = [(b"Host_", b"b"), (b"X_User_Id", b"root")] if allowed else []
            assert c.seen[0].fields == [(b"Host", b"a"), *passing, (b"X-Kept", b"1"), *WAY]
        assert c.stage.counters[("dropped_fields",)] == len(UNDERSCORED) - len(passing)

    play(main())


def test_duty_28_a_connection_that_carried_content_of_a_method_without_any_is_not_used_again(tmp_path: Path) -> None:
    """A backend that does not read it takes it for the next request, and its answer would go to another client."""

    async def main() -> None:
        async with chain(tmp_path) as c:
            for method in (b"GET", b"DELETE", b"HEAD"):
                assert statuses(await c.ask(method + post(b"Content-Length: 3", body=b"abc")[4:])) == (200,)
                await c.stage.eventually(lambda: not c.stage.upstreams()["b"].replicas[0].links)
            assert statuses(await c.ask(post(b"Content-Length: 3", b"Connection: close", body=b"abc"))) == (200,)
            assert c.stage.upstreams()["b"].replicas[0].links

    play(main())


@pytest.mark.parametrize("value", [b"x", b""])
def test_duty_19_hop_by_hop_fields_and_those_that_connection_names_stop_here(tmp_path: Path, value: bytes) -> None:
    """RFC 9110, section 7.6.1; empty ones too."""
    hop = [
        b"Keep-Alive", b"Proxy-Connection", b"TE", b"Trailer", b"Upgrade", b"HTTP2-Settings", b"Proxy-Authorization",
        b"X-One", b"x-two", b"X-THREE",
    ]  # fmt: skip
    fields = [name + b": " + value for name in hop]
    [seen] = received(
        tmp_path,
        get(b"Host: a", b"Connection: x-ONE ,,\tX-Two", *fields, b"X-Kept: 1", b"connection: close, X-Three"),
    )
    assert seen.fields == [(b"Host", b"a"), (b"X-Kept", b"1"), *WAY]


def test_duty_20_what_the_gateway_adds_cannot_be_listed_away(tmp_path: Path) -> None:
    """RFC 9110, section 7.6.1: it is added after the client's Connection was applied."""
    names = b"via, x-forwarded-for, x-forwarded-proto, x-forwarded-host, host, content-length"
    [seen] = received(tmp_path, post(b"Connection: close, " + names, b"Content-Length: 2", body=b"ab"))
    assert seen.fields == [(b"Host", b"a"), *WAY, (b"content-length", b"2")]
    assert seen.body == b"ab"


def test_duty_21_the_bytes_of_path_and_query_go_on_unchanged(tmp_path: Path) -> None:
    """RFC 9110, section 7.7: what was routed is what is asked for."""
    targets = [
        b"/", b"/a/../b", b"//x", b"//evil.example/x", b"/./", b"/%2F%2f", b"/%zz", b"/%", b"/%ff%FE", b"/;p=1",
        b"/x?", b"/x?a=b?c", b"/a?/../b", b'/"<>\\^`{|}', b"/x?%00", b"/a/%2e%2e/b", b"/x?q=a+b&&=&q",
    ]  # fmt: skip
    seen = received(tmp_path, *(get(b"Host: a", b"Connection: close", target=target) for target in targets))
    assert [request.line for request in seen] == [b"GET " + target + b" HTTP/1.1" for target in targets]


def test_duty_22_fields_of_one_name_keep_their_order_and_their_number(tmp_path: Path) -> None:
    """RFC 9110, section 5.3; and their case, which means nothing."""
    given = [(b"X-A", b"1"), (b"x-b", b"2"), (b"x-a", b"3"), (b"X-a", b""), (b"Cookie", b"a=1"), (b"Cookie", b"b=2")]
    [seen] = received(
        tmp_path, get(b"Host: a", *[b"%b: %b" % field for field in given], b"X-A: 1", b"Connection: close")
    )
    assert seen.fields == [(b"Host", b"a"), *given, (b"X-A", b"1"), *WAY]


def test_duty_23_fields_with_unknown_names_pass_with_their_bytes(tmp_path: Path) -> None:
    """RFC 9110, sections 5.1 and 5.5: bytes above 127 are not interpreted."""
    given = [(b"X-Latin", b"caf\xe9 \xff\tx"), (b"X-UTF-8", "é".encode()), (b"!#$%&'*+-.^`|~", b"~")]
    [seen] = received(tmp_path, get(b"Host: a", *[b"%b: %b" % field for field in given], b"Connection: close"))
    assert seen.fields == [(b"Host", b"a"), *given, *WAY]


def test_duty_24_nothing_is_added_but_the_way_it_came(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """RFC 9110, section 7.6: no defaults of a client, nothing out of the environment."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".netrc").write_text("machine localhost login user password secret\n")
    [seen] = received(tmp_path, get(b"Host: a", b"Connection: close"))
    assert seen.head == (
        b"GET /x HTTP/1.1\r\nHost: a\r\nvia: 1.1 turnout\r\nx-forwarded-for: 127.0.0.1\r\n"
        b"x-forwarded-proto: http\r\nx-forwarded-host: a"
    )


def test_duty_25_a_request_goes_on_in_our_version_with_via_naming_the_one_it_came_in(tmp_path: Path) -> None:
    """RFC 9110, section 7.6.3; RFC 9112, section 2.3."""
    new, old = received(
        tmp_path,
        get(b"Host: a", b"Via: 1.0 fred", b"Connection: close"),
        get(b"Host: a", b"Via: 1.0 fred, 1.1 mary", version=b"HTTP/1.0"),
    )
    assert new.line == old.line == b"GET /x HTTP/1.1"
    assert new.values(b"via") == [b"1.0 fred", b"1.1 turnout"]
    assert old.values(b"via") == [b"1.0 fred, 1.1 mary", b"1.0 turnout"]


def forged(*others: bytes) -> bytes:
    return get(
        b"Host: a", b"X-Forwarded-For: 203.0.113.9", b"x-forwarded-for: 198.51.100.1", b"X-Forwarded-Proto: https",
        b"X-Forwarded-Host: api.example", b"Forwarded: for=203.0.113.9", b"Turnout-Variant: x", b"turnout-mirror: 1",
        b"Connection: close", *others,
    )  # fmt: skip


def test_duty_26_what_a_stranger_says_of_the_way_is_replaced_and_what_a_trusted_proxy_says_is_passed_on(
    tmp_path: Path,
) -> None:
    """By ``trusted_proxies``; RFC 7239, section 8.1. Fields in the gateway's own name are taken from no one."""
    [seen] = received(tmp_path, forged())
    assert seen.fields == [(b"Host", b"a"), *WAY]
    [seen] = received(tmp_path, forged(), gateway=Gateway(trusted_proxies=("10.0.0.0/8", "127.0.0.0/8")))
    assert seen.fields == [
        (b"Host", b"a"),
        (b"via", b"1.1 turnout"),
        (b"x-forwarded-for", b"203.0.113.9, 198.51.100.1, 127.0.0.1"),
        (b"x-forwarded-proto", b"https"),
        (b"x-forwarded-host", b"api.example"),
    ]


def test_duty_26_a_proxy_that_is_trusted_no_more_is_not_believed_on_its_open_connections(tmp_path: Path) -> None:
    async def main() -> None:
        trusting = Gateway(trusted_proxies=("127.0.0.1",))
        async with chain(tmp_path, gateway=trusting) as c, c.client() as client:
            ask = get(b"Host: a", b"X-Forwarded-For: 203.0.113.9")
            await client.send(ask)
            await client.answer()
            cast = builders.snapshot(
                builders.backend("b", c.backend.url), builders.route("all", builders.only("b"), path="/*"), revision=4
            )
            publish(c.stage.directory / SNAPSHOT, cast)

            async def addresses() -> bytes:
                await client.send(ask)
                await client.answer()
                return c.seen[-1].values(b"x-forwarded-for")[0]

            assert c.seen[0].values(b"x-forwarded-for") == [b"203.0.113.9, 127.0.0.1"]
            async with asyncio.timeout(5):
                while await addresses() != b"127.0.0.1":
                    await asyncio.sleep(0.02)

    play(main())


def test_duty_27_the_host_is_the_clients_and_the_name_for_tls_that_of_the_url(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RFC 9110, section 7.2: the host is preserved, never rewritten; a certificate is the backend's own."""
    names: list[str | None] = []
    context = certificate(tmp_path)
    context.sni_callback = lambda _, name, __: names.append(name)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))

    async def main() -> None:
        async with faults.backend(tls=context) as backend, chain(tmp_path, backend=backend) as c:
            assert statuses(await c.ask(get(b"Host: models.example:81", b"Connection: close"))) == (200,)
            assert c.seen[0].values(b"host") == [b"models.example:81"]
            assert c.seen[0].values(b"x-forwarded-host") == [b"models.example:81"]

    play(main())
    assert names == ["localhost"]


def test_duty_28_a_body_goes_on_with_its_length_or_in_chunks_whatever_the_method(tmp_path: Path) -> None:
    """RFC 9112, section 6; RFC 9110, section 8.6."""

    async def main() -> None:
        async with chain(tmp_path) as c:
            for method in (b"GET", b"DELETE", b"PUT", b"POST"):
                await c.ask(method + post(b"Content-Length: 3", b"Connection: close", body=b"abc")[4:])
            await c.ask(post(b"Connection: close"))
            await c.ask(post(b"Content-Length: 0", b"Connection: close"))
            await c.get()
            await c.ask(post(b"Content-Length: 6", b"Connection: close"), b"abc", b"def")
            await c.ask(post(b"Transfer-Encoding: chunked", b"Connection: close"), b"3\r\nabc\r\n", b"0\r\n\r\n")
        framings = [(request.values(b"content-length"), request.body) for request in c.seen]
        assert framings == [([b"3"], b"abc")] * 4 + [([b"0"], b"")] * 2 + [
            ([], b""),
            ([b"6"], b"abcdef"),
            ([b"3"], b"abc"),
        ]
        assert [request.values(b"transfer-encoding") for request in c.seen] == [[]] * 9

    play(main())


def test_duty_29_a_gateway_that_is_its_own_backend_ends_the_loop_with_508(tmp_path: Path) -> None:
    """RFC 9110, section 7.6. Four may stand behind each other; the fifth of the name is too many."""
    hold(tmp_path, 29)

    async def main() -> None:
        async with chain(tmp_path) as c:
            cast = builders.snapshot(
                builders.backend("b", f"http://127.0.0.1:{c.stage.port}"),
                builders.route("all", builders.only("b"), path="/*"),
                revision=4,
            )
            publish(c.stage.directory / SNAPSHOT, cast)
            async with asyncio.timeout(5):
                while statuses(await c.get()) != (508,):
                    await asyncio.sleep(0.05)
            looped = len(c.seen)
            before = len(c.stage.rows())
            assert statuses(await c.get()) == (508,)
            assert len(c.stage.rows()) - before == 5  # each pass is a call, and the fifth call is refused
            assert len(c.seen) == looped

    play(main())


def test_duty_29_max_forwards_counts_down_where_it_has_a_meaning(tmp_path: Path) -> None:
    """RFC 9110, section 7.6.2: for OPTIONS, as TRACE is refused; at 0 it is not forwarded (``payloads``)."""
    options, other = received(
        tmp_path,
        b"OPTIONS" + get(b"Host: a", b"max-forwards: 7", b"Connection: close")[3:],
        get(b"Host: a", b"Max-Forwards: 0", b"Connection: close"),
    )
    assert options.values(b"max-forwards") == [b"6"]
    assert other.values(b"max-forwards") == [b"0"]


def test_duty_30_conditions_and_credentials_pass_unchanged(tmp_path: Path) -> None:
    """RFC 9110, sections 13.2.1 and 11.6.2."""
    given = [
        (b"If-Match", b'"x"'), (b"If-None-Match", b'W/"y", *'),
        (b"If-Modified-Since", b"Sat, 29 Oct 1994 19:43:31 GMT"),
        (b"If-Range", b'"x"'), (b"Range", b"bytes=0-0,-1"), (b"Authorization", b"Bearer  a.b.c=="),
        (b"Cache-Control", b"no-store"), (b"X-Request-Id", b"7"), (b"traceparent", b"00-1-2-01"),
    ]  # fmt: skip
    [seen] = received(tmp_path, get(b"Host: a", *[b"%b: %b" % field for field in given], b"Connection: close"))
    assert seen.fields == [(b"Host", b"a"), *given, *WAY]


def closing_when_used() -> Script:
    """Answer the first request of the first connection; break off at every later one that comes on it."""
    connections = 0

    async def script(wire: Wire) -> None:
        nonlocal connections
        connections += 1
        first = connections == 1
        while await wire.request() is not None:
            await wire.send(OK)
            if first:
                await wire.request()
                return

    return script


@pytest.mark.parametrize(("method", "expected"), [(b"POST", 502), (b"PATCH", 502), (b"GET", 200)])
def test_duty_31_what_is_not_idempotent_is_never_sent_twice(tmp_path: Path, method: bytes, expected: int) -> None:
    """RFC 9110, section 9.2.2: not even where a used connection closed, and the first may never have been read."""

    async def main() -> None:
        async with chain(tmp_path, closing_when_used()) as c:
            await c.get()
            answer = await c.ask(method + post(b"Content-Length: 2", body=b"ab")[4:-6] + b"\r\n" + CLOSE + b"ab")
            assert statuses(answer) == (expected,)
            lines = [request.line for request in c.seen]
            assert lines == [b"GET /x HTTP/1.1"] + [method + b" /x HTTP/1.1"] * (2 if expected == 200 else 1)

    play(main())
