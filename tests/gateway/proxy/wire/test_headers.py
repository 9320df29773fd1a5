"""Which fields cross the gateway, and what it adds."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_network

import pytest

from gateway.proxy.wire.headers import DATE, MEANING, Header, end_to_end, field
from gateway.proxy.wire.peer import Peer, forwarded, lies_within

STRANGER = Peer("192.0.2.1", "http")
PROXY = Peer("10.0.0.7", "http", trusted=True)


def names(headers: Iterable[Header]) -> list[bytes]:
    return [name for name, _ in headers]


def test_what_crosses_keeps_its_order_number_case_and_bytes() -> None:
    given = [(b"Host", b"a"), (b"X-A", b"1"), (b"x-a", b""), (b"Cookie", b"caf\xe9"), (b"X-A", b"2 ")]
    assert list(end_to_end(given)) == given


@pytest.mark.parametrize(
    "name",
    [
        b"Connection", b"Keep-Alive", b"Proxy-Connection", b"TE", b"Trailer", b"Transfer-Encoding", b"Upgrade",
        b"HTTP2-Settings", b"Proxy-Authorization", b"Proxy-Authenticate", b"UPGRADE", b"te",
    ],
)  # fmt: skip
@pytest.mark.parametrize("value", [b"x", b""])
def test_hop_by_hop_fields_stop_here_even_when_empty(name: bytes, value: bytes) -> None:
    assert list(end_to_end([(b"a", b"1"), (name, value), (b"b", b"2")])) == [(b"a", b"1"), (b"b", b"2")]


def test_every_field_that_connection_lists_stops_here() -> None:
    given = [
        (b"X-One", b"1"), (b"Connection", b"close, x-ONE ,,\tX-Two"), (b"x-two", b"2"), (b"x-three", b"3"),
        (b"connection", b"X-Three"), (b"x-four", b"4"), (b"close", b"5"),
    ]  # fmt: skip
    assert names(end_to_end(given)) == [b"x-four", b"close"]


def test_connection_cannot_take_away_what_the_message_needs() -> None:
    """Its length, too, but that is written anew with every head."""
    given = [(b"Host", b"a"), (b"Content-Length", b"3"), (b"Connection", b"host, content-length")]
    assert names(end_to_end(given)) == [b"Host"]


def test_a_field_that_connection_takes_away_does_not_count_as_there() -> None:
    """An answer whose Date was for the gateway alone gets one of the gateway's own (RFC 9110, section 6.6.1)."""
    assert end_to_end([(b"Date", b"now"), (b"X", b"1")]).meanings & DATE
    assert not end_to_end([(b"Date", b"now"), (b"X", b"1"), (b"Connection", b"date")]).meanings & DATE


def test_only_the_gateway_sets_fields_of_its_own_name() -> None:
    given = [(b"Turnout-Variant", b"x"), (b"turnout-force-token", b"secret"), (b"turnouts", b"1")]
    assert names(end_to_end(given)) == [b"turnouts"]
    assert b"secret" not in dict(forwarded(given, STRANGER)).values()


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
    assert list(forwarded(given, Peer("192.0.2.1", "https"))) == [
        (b"Host", b"models.example"),
        (b"X-Request-Id", b"7"),
        (b"via", b"1.1 turnout"),
        (b"x-forwarded-for", b"192.0.2.1"),
        (b"x-forwarded-proto", b"https"),
        (b"x-forwarded-host", b"models.example"),
    ]


@pytest.mark.parametrize(("http10", "version"), [(False, b"1.1"), (True, b"1.0")])
def test_via_grows_by_the_version_in_which_the_request_came(http10: bool, version: bytes) -> None:
    kept = list(forwarded([(b"Via", b"1.0 fred")], STRANGER, http10=http10))
    assert kept[:2] == [(b"Via", b"1.0 fred"), (b"via", version + b" turnout")]


def test_a_trusted_proxys_word_is_passed_on_with_its_own_address_behind() -> None:
    given = [
        (b"X-Forwarded-For", b"203.0.113.9"),
        (b"Host", b"models.example"),
        (b"x-forwarded-for", b""),
        (b"X-FORWARDED-FOR", b"198.51.100.1, 198.51.100.2"),
        (b"X-Forwarded-Proto", b"https"),
        (b"X-Forwarded-Host", b"api.example"),
        (b"Forwarded", b"for=203.0.113.9"),
    ]
    assert list(forwarded(given, PROXY)) == [
        (b"Host", b"models.example"),
        (b"via", b"1.1 turnout"),
        (b"x-forwarded-for", b"203.0.113.9, 198.51.100.1, 198.51.100.2, 10.0.0.7"),
        (b"x-forwarded-proto", b"https"),
        (b"x-forwarded-host", b"api.example"),
    ]


def test_what_a_trusted_proxy_does_not_say_is_what_we_saw() -> None:
    """And what it lists in Connection was said to us alone."""
    given = [(b"Host", b"a"), (b"Connection", b"x-forwarded-for"), (b"X-Forwarded-For", b"203.0.113.9")]
    assert list(forwarded(given, PROXY))[1:] == [
        (b"via", b"1.1 turnout"), (b"x-forwarded-for", b"10.0.0.7"), (b"x-forwarded-proto", b"http"),
        (b"x-forwarded-host", b"a"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("address", "within"),
    [
        ("10.0.0.7", True), ("::ffff:10.9.9.9", True), ("11.0.0.1", False), ("fd00::1", True), ("fe80::1%eth0", False),
        ("", False), ("unix", False),
    ],
)  # fmt: skip
def test_an_address_lies_within_a_network_or_not(address: str, within: bool) -> None:
    assert lies_within(address, [ip_network("10.0.0.0/8"), ip_network("fd00::/8")]) is within


def test_a_request_without_host_gets_no_forwarded_host() -> None:
    assert b"x-forwarded-host" not in names(forwarded([(b"a", b"1")], STRANGER))


def test_a_field_is_found_by_its_name_in_any_case_and_the_first_counts() -> None:
    given = [(b"X-USER", b"1"), (b"x-user", b"2")]
    assert field(given, b"x-user") == b"1"
    assert field(given, b"x-use") is None


def test_names_that_clients_make_up_are_not_remembered_without_end() -> None:
    for number in range(5_000):
        assert list(end_to_end([(b"x-%d" % number, b"")]))
    assert len(MEANING) <= 2_048
    assert list(end_to_end([(b"cOnNeCtIoN", b"x-9999"), (b"x-9999", b"")])) == []
