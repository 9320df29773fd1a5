"""Hundreds of clients that are slow on purpose cost the others nothing, and lose their connections."""

from __future__ import annotations

import asyncio
from pathlib import Path

from router.snapshot import Gateway
from tests.gateway.proxy.chain import Chain, chain, statuses
from tests.gateway.proxy.payloads import get, post
from tests.gateway.proxy.stage import play

SLOW = 500


async def drip(c: Chain, number: int) -> tuple[int, ...]:
    """Send a head that never ends, or a body, a byte at a time and each in time for the limit between bytes."""
    async with c.client() as client:
        head = post(b"Content-Length: 100000") if number % 2 else b"GET /slow HTTP/1.1\r\nHost: a\r\nX: "
        await client.send(head)
        answer = asyncio.create_task(client.rest())
        while not answer.done():
            await asyncio.wait((answer,), timeout=0.3)
            client.writer.write(b"x")
        return statuses(await answer)


async def ask_on(c: Chain, over: asyncio.Event) -> int:
    """Ask one request after the other; return how many were answered."""
    answered = 0
    async with c.client() as client:
        while not over.is_set():
            await client.send(get(b"Host: a", target=b"/normal"))
            assert statuses(await client.answer()) == (200,)
            answered += 1
    return answered


def test_500_slow_clients_are_closed_on_their_deadline_and_every_other_request_succeeds(tmp_path: Path) -> None:
    limits = Gateway(header_timeout_ms=1_500, body_timeout_ms=1_500, min_body_bytes_per_second=500)

    async def main() -> None:
        async with chain(tmp_path, gateway=limits, max_concurrency=SLOW + 10) as c:
            over = asyncio.Event()
            normal = [asyncio.create_task(ask_on(c, over)) for _ in range(4)]
            answered = await asyncio.gather(*(drip(c, number) for number in range(SLOW)))
            over.set()
            assert min(await asyncio.gather(*normal)) > 0
            assert answered == [(408,)] * SLOW
            # No slow request was ever whole, so none of them was a request.
            assert {request.line for request in c.seen} == {b"GET /normal HTTP/1.1"}

    play(main())
