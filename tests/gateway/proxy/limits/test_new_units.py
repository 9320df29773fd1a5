"""A client may bring so many new units a minute; those beyond are served and logged, but not counted."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path

import pytest

from gateway.proxy.limits import new_units
from gateway.proxy.limits.new_units import NewUnits, client_of
from gateway.proxy.wire.peer import Peer
from policies.plans import Weighted
from router.records import UNCOUNTED
from router.snapshot import NEW_UNITS, Gateway
from tests.gateway.proxy.builders import backend, route, snapshot
from tests.gateway.proxy.exchange.test_exchange import seven
from tests.gateway.proxy.stage import Model, play, staged


@dataclass
class Asked:
    """The part of a request that tells which client it is from."""

    peer: Peer
    forwarded: str | None = None

    def header(self, name: str) -> str | None:
        return self.forwarded if name == "x-forwarded-for" else None


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def from_(address: str) -> Asked:
    return Asked(Peer(address, "http"))


def bounded(bound: int = 5) -> tuple[NewUnits, Clock]:
    clock = Clock()
    return NewUnits(Gateway(max_new_units_per_client=bound), clock), clock


def test_beyond_the_bound_new_units_of_a_client_do_not_count_until_the_next_minute() -> None:
    made, clock = bounded()
    asked = from_("192.0.2.1")
    assert [made.counts(f"u{n}", asked) for n in range(8)] == [True] * 5 + [False] * 3
    assert made.counts("u0", asked)  # it is still known
    assert not made.counts("u7", asked)  # it was not counted, so it is still new
    assert made.counts("v0", from_("192.0.2.2"))
    clock.now = 61.0
    assert [made.counts(f"u{n}", asked) for n in range(12)] == [True] * 10 + [False] * 2


def test_a_request_without_its_unit_is_a_new_unit_each_time() -> None:
    made, _ = bounded()
    assert [made.counts(None, from_("192.0.2.1")) for _ in range(7)] == [True] * 5 + [False] * 2


def test_clients_behind_the_operators_proxies_are_told_apart_and_what_others_claim_is_not_believed() -> None:
    made = NewUnits(Gateway(max_new_units_per_client=1, trusted_proxies=("10.0.0.0/8",)), Clock())
    proxy = Peer("10.0.0.7", "http", trusted=True)
    assert made.counts("a", Asked(proxy, "192.0.2.1"))
    assert made.counts("b", Asked(proxy, "192.0.2.2, 10.0.0.8"))
    assert not made.counts("c", Asked(proxy, "203.0.113.9, 192.0.2.2"))  # the first address was written by the client
    assert made.counts("d", Asked(Peer("198.51.100.1", "http"), "203.0.113.1"))
    assert not made.counts("e", Asked(Peer("198.51.100.1", "http"), "203.0.113.2"))


@pytest.mark.parametrize(
    ("address", "client"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ("2001:db8:1:2:ffff::1", "2001:db8:1:2::"),
        ("somebody", "somebody"),
    ],
)
def test_a_client_is_an_address_or_the_network_that_one_customer_has(address: str, client: str) -> None:
    assert client_of(from_(address), ()) == client


@pytest.mark.parametrize(
    ("named", "client"),
    [
        ("192.0.2.7:51234", "192.0.2.7"),
        ("[2001:db8::7]:51234", "2001:db8::"),
        ("[2001:db8::7]", "2001:db8::"),
        ("192.0.2.7, 10.0.0.2:443", "192.0.2.7"),
        ("203.0.113.9, 192.0.2.7:1", "192.0.2.7"),
    ],
)
def test_the_port_that_a_proxy_writes_beside_an_address_makes_no_other_client(named: str, client: str) -> None:
    asked = Asked(Peer("10.0.0.1", "http", trusted=True), named)
    assert client_of(asked, (ip_network("10.0.0.0/8"),)) == client


def test_there_is_a_bound_where_proxies_tell_whose_address_is_whose_or_where_one_is_given() -> None:
    assert Gateway().new_units_bound == 0
    assert Gateway(trusted_proxies=("10.0.0.1",)).new_units_bound == NEW_UNITS == 600
    assert Gateway(max_new_units_per_client=7).new_units_bound == 7
    assert Gateway(max_new_units_per_client=0, trusted_proxies=("10.0.0.1",)).new_units_bound == 0


def test_memory_is_fixed_and_the_units_of_late_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(new_units, "REMEMBERED", 1_000)
    made, _ = bounded(10**9)
    asked = from_("192.0.2.1")
    before = len(made._known), len(made._before)
    for number in range(5_000):
        made.counts(f"u{number}", asked)
    assert (len(made._known), len(made._before)) == before == (2**20, 2**20)
    made.bound = 0
    assert all(made.counts(f"u{number}", asked) for number in range(4_000, 5_000))
    assert not any(made.counts(f"u{number}", asked) for number in range(1_000))


def test_few_new_units_are_taken_for_known_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """With as many units remembered as there may be, one new unit in 400 is taken for a known one.

    Here at 1/64 scale.
    """
    monkeypatch.setattr(new_units, "_BITS", 2**17)
    made, _ = bounded(10**9)
    asked = from_("192.0.2.1")
    for number in range(new_units.REMEMBERED // 64):
        made.counts(f"u{number}", asked)
    made.bound = 0
    assert sum(made.counts(f"v{number}", asked) for number in range(4_000)) < 30


@pytest.mark.parametrize("sticky", [True, False])
def test_what_does_not_count_is_answered_and_logged_as_ever(tmp_path: Path, sticky: bool) -> None:
    """The same holds on a route that draws each request anew, as a bandit does."""

    async def main() -> None:
        async with Model(seven) as model:
            parts = (
                Gateway(max_new_units_per_client=3, trusted_proxies=("127.0.0.1",)),
                backend("a", model.url),
                backend("b", model.url),
                route("r", Weighted((("a", 0.5), ("b", 0.5)), sticky=sticky), unit="header:x-user"),
            )
            async with staged(tmp_path, snapshot(*parts)) as stage:
                for number in range(10):
                    headers = {"x-user": f"u{number}", "x-forwarded-for": "192.0.2.1"}
                    assert (await stage.ask("/r", headers=headers)).status == 200
                await stage.ask("/r", headers={"x-user": "u0", "x-forwarded-for": "192.0.2.1"})
                await stage.ask("/r", headers={"x-user": "other", "x-forwarded-for": "192.0.2.2"})
                rows = stage.rows()
            assert Counter(row["reason"] for row in rows) == {"unit" if sticky else "request": 5, UNCOUNTED: 7}
            assert all(row["propensity"] == 0.5 for row in rows)
            assert stage.counters["uncounted_requests", "r"] == 7

    play(main())
