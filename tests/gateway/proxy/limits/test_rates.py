"""A flood of feedback is answered 429, and costs neither other clients nor users' traffic anything."""

from __future__ import annotations

import asyncio
from pathlib import Path

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.journal.segments import FEEDBACK, JOURNAL
from gateway.proxy.limits.rates import BURST_SECONDS, REMEMBERED, Rates
from router.snapshot import Gateway
from tests.gateway.proxy.chain import chain, statuses
from tests.gateway.proxy.payloads import get
from tests.gateway.proxy.stage import play

EVENT = b'{"prediction_id":"0190a1b2-0000-7000-8000-000000000000","metric":"m","value":1}'


def feedback(events: int, *fields: bytes) -> bytes:
    body = b"[" + b",".join([EVENT] * events) + b"]"
    lines = (b"POST /-/feedback HTTP/1.1", b"Host: a", b"Content-Length: %d" % len(body), b"Connection: close", *fields)
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 50), st.floats(0, 5)), max_size=60))
def test_nobody_is_let_in_beyond_the_rate_and_a_burst_and_one_request(sent: list[tuple[str, int, float]]) -> None:
    rates, now = Rates(Gateway(max_feedback_per_second=20, max_feedback_per_second_per_client=10)), 100.0
    taken: dict[str, int] = {}
    for client, events, pause in sent:
        now += pause
        if not rates.wait_seconds(client, now):
            rates.sent(client, events, now)
            taken[client] = taken.get(client, 0) + events
        passed = now - 100 + BURST_SECONDS
        assert all(number <= 10 * passed + 50 for number in taken.values())
        assert sum(taken.values()) <= 20 * passed + 50


def test_who_waited_as_long_as_told_is_let_in() -> None:
    rates = Rates(Gateway(max_feedback_per_second_per_client=10))
    rates.sent("a", 1_000, 50.0)
    wait = rates.wait_seconds("a", 50.0)
    assert wait == 90
    assert rates.wait_seconds("a", 50.0 + wait) == 0
    assert rates.wait_seconds("b", 50.0) == 0


def test_a_rate_that_is_raised_or_lifted_lets_in_at_once_who_waited_for_the_old_one() -> None:
    rates = Rates(Gateway(max_feedback_per_second=10, max_feedback_per_second_per_client=10))
    rates.sent("a", 10_000, 0.0)
    rates.swap(Gateway(max_feedback_per_second=10, max_feedback_per_second_per_client=10))
    assert rates.wait_seconds("a", 0.0) == 990
    rates.swap(Gateway(max_feedback_per_second=0, max_feedback_per_second_per_client=0))
    assert rates.wait_seconds("a", 0.0) == 0


def test_clients_beyond_memory_are_bounded_by_the_rate_of_all() -> None:
    rates = Rates(Gateway(max_feedback_per_second=1_000, max_feedback_per_second_per_client=1))
    for number in range(3 * REMEMBERED):
        rates.sent(str(number), 1, 0.0)
    assert len(rates) <= REMEMBERED
    assert rates.wait_seconds("another", 0.0) > 0


def test_a_flood_from_one_client_gets_429_with_retry_after_and_another_client_is_taken(tmp_path: Path) -> None:
    async def main() -> None:
        gateway = Gateway(max_feedback_per_second_per_client=10, trusted_proxies=("127.0.0.0/8",))
        async with chain(tmp_path, gateway=gateway) as c:
            one, other = b"X-Forwarded-For: 203.0.113.1", b"X-Forwarded-For: 10.9.9.9, 203.0.113.2"
            assert statuses(await c.ask(feedback(200, one))) == (422,)  # refused events count too
            refused = await c.ask(feedback(1, one))
            assert statuses(refused) == (429,)
            assert b"retry-after: 1" in refused
            assert statuses(await c.ask(feedback(1, other))) == (422,)
            assert statuses(await c.get()) == (200,)

    play(main())


def test_a_journal_full_of_feedback_sheds_no_prediction(tmp_path: Path) -> None:
    async def main() -> None:
        gateway = Gateway(max_feedback_journal_bytes=2**20, max_journal_bytes=2**20)
        async with chain(tmp_path, gateway=gateway) as c:
            folder = c.stage.directory / JOURNAL / FEEDBACK
            (folder / "000000000001-00-000000000001-000000.jsonl").write_bytes(b"x" * 2**21)
            assert c.stage.worker is not None
            c.stage.worker._log.measure()
            assert c.stage.worker._log.feedback_full
            assert not c.stage.worker._log.full
            for _ in range(3):
                assert statuses(await c.ask(get(b"Host: a", b"Connection: close"))) == (200,)
            await asyncio.sleep(0)
            assert len(c.stage.rows()) == 3

    play(main())


def test_a_body_that_would_take_long_to_read_is_refused_before_it_is_read(tmp_path: Path) -> None:
    """This holds for feedback and for a route that reads bodies."""

    async def main() -> None:
        async with chain(tmp_path) as c:
            body = b"[" + b"[]," * 200_000 + b"[]]"
            head = b"POST /-/feedback HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"
            answer = await c.ask(head % len(body) + body)
            assert statuses(answer) == (422,)
            assert "detail" in orjson.loads(answer.partition(b"\r\n\r\n")[2])

    play(main())
