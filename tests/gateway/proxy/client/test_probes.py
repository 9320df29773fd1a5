"""Replicas are probed beside the traffic, which is not changed by it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from gateway.proxy.client.backends import Backends
from gateway.proxy.client.upstream import Upstream
from tests.gateway.proxy import builders
from tests.gateway.proxy.faults import OK, Backend, Wire, backend, get, nowhere
from tests.gateway.proxy.raw import play, until

ILL = b"HTTP/1.1 503 Not Well\r\ncontent-length: 0\r\n\r\n"


@dataclass
class Patient:
    """A backend that answers probes as a test says, and all other requests with "ok"."""

    says: bytes = OK
    probes: list[bytes] = field(default_factory=list)
    calls: int = 0

    async def __call__(self, wire: Wire) -> None:
        while (request := await wire.request()) is not None:
            if b"/well" in request.line:
                self.probes.append(request.head)
                await wire.send(self.says)
                if not self.says:
                    await wire.gone()
            else:
                self.calls += 1
                await wire.send(OK)


@asynccontextmanager
async def probed(*urls: str, **settings: object) -> AsyncIterator[Backends]:
    """The backends of a snapshot with one backend, whose replicas are asked often."""
    given = {
        "health_path": "/well",
        "health_interval_ms": 20,
        "health_timeout_ms": 200,
        "unhealthy_after": 2,
        "healthy_after": 2,
        **settings,
    }
    held = Backends(builders.snapshot(builders.backend("b", *urls, **given)))
    try:
        yield held
    finally:
        await held.close()


def states(held: Backends) -> list[str]:
    return [labels["state"] for name, labels, _ in held.gauges() if name == "replicas"]


def upstream(held: Backends) -> Upstream:
    return held.current.answering("b")


def test_a_replica_that_says_it_is_not_well_is_spared_until_it_says_it_is() -> None:
    async def main() -> None:
        one, two = Patient(), Patient(says=ILL)
        async with backend(one) as a, backend(two) as b, probed(a.url, b.url) as held:
            await until(lambda: states(held) == ["fit", "unhealthy"])
            assert len(two.probes) >= 2
            for _ in range(20):
                await get(upstream(held))
            assert (one.calls, two.calls) == (20, 0)
            two.says = OK
            await until(lambda: states(held) == ["fit", "fit"])
            while not two.calls:
                await get(upstream(held))

    play(main())


@pytest.mark.parametrize("says", [b"", b"nonsense", b"HTTP/1.1 302 Found\r\ncontent-length: 0\r\n\r\n"])
def test_only_a_2xx_in_time_is_well(says: bytes) -> None:
    async def main() -> None:
        async with backend(Patient(says=says)) as a, probed(a.url) as held:
            await until(lambda: states(held) == ["unhealthy"])
            assert await get(upstream(held)) == b"ok"  # no replica is fit, so it is asked all the same
        async with probed(nowhere()) as held:
            await until(lambda: states(held) == ["unhealthy"])

    play(main())


def test_a_probe_asks_on_the_host_as_it_stands_with_the_backends_own_headers() -> None:
    async def main() -> None:
        one = Patient()
        own = (("authorization", "Bearer x"),)
        async with backend(one) as a, probed(f"{a.url}/base", request_headers=own, path="/p"):
            await until(lambda: one.probes)
            lines = one.probes[0].split(b"\r\n")
            assert lines[0] == b"GET /well HTTP/1.1"
            assert sorted(lines[1:]) == [
                b"authorization: Bearer x", b"host: localhost:%d" % a.port, b"user-agent: turnout-health",
            ]  # fmt: skip

    play(main())


def test_probes_take_no_place_and_make_a_connection_each() -> None:
    async def main() -> None:
        one = Patient()
        async with backend(one) as a, probed(a.url, max_concurrency=1) as held:
            await until(lambda: len(one.probes) >= 3)
            assert a.wires >= 3
            assert upstream(held).in_flight == 0
            assert upstream(held).replicas[0].in_flight == 0
            assert not upstream(held).replicas[0].links

    play(main())


def test_probes_go_on_while_a_backend_stays_the_same_and_end_with_it() -> None:
    async def main() -> None:
        one = Patient(says=ILL)
        async with backend(one) as a:
            described = builders.backend("b", a.url, health_path="/well", health_interval_ms=20, unhealthy_after=1)
            held = Backends(builders.snapshot(described))
            await until(lambda: states(held) == ["unhealthy"])
            held.swap(builders.snapshot(described, revision=4))
            assert states(held) == ["unhealthy"]  # what is known of it is still known
            asked = len(one.probes)
            await until(lambda: len(one.probes) > asked)
            held.swap(builders.snapshot(builders.backend("b", a.url), revision=5))
            assert states(held) == ["fit"]
            await until(lambda: not a.open)
            asked = len(one.probes)
            await asyncio.sleep(0.1)
            assert len(one.probes) == asked
            await held.close()

    play(main())


def test_a_probe_under_way_does_not_hold_up_the_end() -> None:
    async def main() -> None:
        one = Patient(says=b"")
        running: Backend
        async with backend(one) as running, probed(running.url, health_timeout_ms=10_000, health_interval_ms=10_000):
            await until(lambda: one.probes)
        assert running.open == 0

    play(main())
