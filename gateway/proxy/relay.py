"""One variant answers: its answer goes to the client as it comes, or the fallback's does.

Rule: a fallback is asked only while nothing was sent, and never hides who failed: the row stays the intended variant's,
with ``served`` naming whose answer went out.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from time import perf_counter
from typing import Any, cast

from gateway.proxy.calls import Call, call, fault_problem, fault_status, since
from gateway.proxy.case import Case
from gateway.proxy.headers import end_to_end
from gateway.proxy.reading import Kept, read_answer, worth_reading
from gateway.proxy.reply import LEFT, Reply
from gateway.proxy.upstream import UpstreamFault


async def relay(reply: Reply, body: bytes | AsyncIterator[bytes]) -> None:
    """Call the variant that was chosen and answer the client; ``body`` must be whole where the route has a fallback."""
    case = reply.case
    variant, fallback = case.routing.decision.answering[0], case.routing.route.fallback
    began = perf_counter()
    asked, served = variant, None
    try:
        first = shown = await _call(case, variant, body)
        if first.failed and fallback is not None and fallback != variant and isinstance(body, bytes):
            first.close()
            asked, shown = fallback, await _call(case, fallback, body)
            served = fallback if shown.fault is None else None
    except LEFT as error:
        reply.left((variant,), "primary", error, since(began))
        raise
    case.waited_ms += since(began)
    outcome = {"fault": first.fault, "served": served, "latency_ms": first.latency_ms}
    own = reply.own(served or variant)
    if shown.fault is not None:
        headers, content = fault_problem(shown.fault, asked, shown.detail)
        row = case.row(variant, "primary", **outcome, status=fault_status(shown.fault), overhead_ms=case.overhead_ms)
        reply.send((row,), fault_status(shown.fault), headers + own, content)
    elif shown.body is not None:
        if served is None:
            reading = read_answer(case, variant, shown.status, shown.headers, shown.body, reply.counts)
            outcome |= reading.fields()
        row = case.row(variant, "primary", **outcome, status=shown.status, overhead_ms=case.overhead_ms)
        reply.send((row,), shown.status or 502, end_to_end(shown.headers) + own, shown.body)
    else:
        try:
            await _stream(reply, variant, shown, outcome, began)
        finally:
            shown.close()


async def _call(case: Case, variant: str, body: bytes | AsyncIterator[bytes]) -> Call:
    generation = case.generation
    return await call(generation.answering(variant), case, generation.dressed(case.headers, variant), body)


async def _stream(reply: Reply, variant: str, shown: Call, outcome: dict[str, Any], began: float) -> None:
    """Pass an answer on while it arrives: an ``open`` row before its head, a ``close`` row before its end."""
    case, response, answer = reply.case, reply.response, shown.answer
    assert answer is not None
    assert shown.status is not None
    outcome |= {"status": shown.status, "overhead_ms": case.overhead_ms}
    served = outcome["served"]
    if not reply.open(case.row(variant, "primary", **outcome | {"fault": "incomplete"})):
        return
    response.start(shown.status, end_to_end(shown.headers) + reply.own(served or variant), length=answer.length)
    kept = Kept(served is None and worth_reading(case, variant, shown.status, shown.headers))
    last, left = b"", answer.length

    def close() -> None:
        if served is None:
            outcome["latency_ms"] = since(began)
        if outcome["fault"] is None and kept.wanted:
            reading = read_answer(case, variant, shown.status, shown.headers, kept.whole(), reply.counts)
            outcome.update(reading.fields())
        reply.close(case.row(variant, "primary", **outcome))

    try:
        async with aclosing(cast("AsyncGenerator[bytes, None]", answer.chunks())) as chunks:
            async for chunk in chunks:
                kept.add(chunk)
                if left is not None:
                    left -= len(chunk)
                    if left == 0:  # the last one: it waits for its row
                        last = chunk
                        continue
                await response.write(chunk)
    except UpstreamFault as fault:
        outcome["fault"] = outcome["fault"] or fault.fault
        close()
        response.abort()
    except LEFT:
        outcome["fault"] = outcome["fault"] or "client_gone"
        close()
        raise
    else:
        close()
        response.finish(last)
