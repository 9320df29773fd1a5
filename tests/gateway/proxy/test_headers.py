"""Which fields cross the gateway, and what it adds."""

from __future__ import annotations

from functools import reduce
from operator import or_

import pytest

from gateway.proxy import headers
from gateway.proxy.headers import MEANING, Header, field, way


def meanings(given: list[Header]) -> int:
    return reduce(or_, (MEANING[name] for name, _ in given), 0)


def end_to_end(given: list[Header]) -> list[Header]:
    return headers.end_to_end(given, meanings(given))


def forwarded(given: list[Header], client: str, scheme: str) -> list[Header]:
    return headers.forwarded(given, meanings(given), way(client, scheme))


def names(headers: list[Header]) -> list[bytes]:
    return [name for name, _ in headers]


def test_what_crosses_keeps_its_order_number_case_and_bytes() -> None:
    given = [(b"Host", b"a"), (b"X-A", b"1"), (b"x-a", b""), (b"Cookie", b"caf\xe9"), (b"X-A", b"2 ")]
    assert end_to_end(given) == given


@pytest.mark.parametrize(
    "name",
    [
        b"Connection", b"Keep-Alive", b"Proxy-Connection", b"TE", b"Trailer", b"Transfer-Encoding", b"Upgrade",
        b"HTTP2-Settings", b"Proxy-Authorization", b"Proxy-Authenticate", b"UPGRADE", b"te",
    ],
)  # fmt: skip
@pytest.mark.parametrize("value", [b"x", b""])
def test_hop_by_hop_fields_stop_here_even_when_empty(name: bytes, value: bytes) -> None:
    assert end_to_end([(b"a", b"1"), (name, value), (b"b", b"2")]) == [(b"a", b"1"), (b"b", b"2")]


def test_every_field_that_connection_lists_stops_here() -> None:
    given = [
        (b"X-One", b"1"), (b"Connection", b"close, x-ONE ,,\tX-Two"), (b"x-two", b"2"), (b"x-three", b"3"),
        (b"connection", b"X-Three"), (b"x-four", b"4"), (b"close", b"5"),
    ]  # fmt: skip
    assert names(end_to_end(given)) == [b"x-four", b"close"]


def test_connection_cannot_take_away_what_the_message_needs() -> None:
    given = [(b"Host", b"a"), (b"Content-Length", b"3"), (b"Connection", b"host, content-length")]
    assert names(end_to_end(given)) == [b"Host", b"Content-Length"]


def test_nobody_but_the_gateway_speaks_in_its_name() -> None:
    given = [(b"Turnout-Variant", b"x"), (b"turnout-force-token", b"secret"), (b"turnouts", b"1")]
    assert names(end_to_end(given)) == [b"turnouts"]
    assert b"secret" not in dict(forwarded(given, "192.0.2.1", "http")).values()


def test_a_backend_learns_the_way_a_request_came_from_the_gateway_alone() -> None:
    given = [
        (b"Host", b"models.example"),
        (b"X-Forwarded-For", b"10.0.0.1"),
        (b"Forwarded", b"for=10.0.0.1"),
        (b"Via", b"1.0 fred"),
        (b"x-forwarded-proto", b"gopher"),
        (b"X-Forwarded-Host", b"evil"),
        (b"Expect", b"100-continue"),
        (b"X-Request-Id", b"7"),
        (b"Connection", b"via, x-forwarded-for, x-forwarded-proto, x-forwarded-host"),
    ]
    assert forwarded(given, "192.0.2.1", "https") == [
        (b"Host", b"models.example"),
        (b"X-Request-Id", b"7"),
        (b"via", b"1.1 turnout"),
        (b"x-forwarded-for", b"192.0.2.1"),
        (b"x-forwarded-proto", b"https"),
        (b"x-forwarded-host", b"models.example"),
    ]


def test_via_grows() -> None:
    assert forwarded([(b"Via", b"1.0 fred")], "::1", "http")[:2] == [(b"Via", b"1.0 fred"), (b"via", b"1.1 turnout")]


def test_a_request_without_host_gets_no_forwarded_host() -> None:
    assert b"x-forwarded-host" not in names(forwarded([(b"a", b"1")], "::1", "http"))


def test_a_field_is_found_by_its_name_in_any_case_and_the_first_counts() -> None:
    given = [(b"X-USER", b"1"), (b"x-user", b"2")]
    assert field(given, b"x-user") == b"1"
    assert field(given, b"x-use") is None


def test_names_that_clients_make_up_are_not_remembered_without_end() -> None:
    for number in range(5_000):
        assert end_to_end([(b"x-%d" % number, b"")])
    assert len(MEANING) <= 2_048
    assert end_to_end([(b"cOnNeCtIoN", b"x-9999"), (b"x-9999", b"")]) == []
