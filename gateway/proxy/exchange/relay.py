"""One variant answers: its answer goes to the client as it comes, or the fallback's does.

Rule: a fallback is asked only while nothing was sent, and never hides who failed: the row stays the intended variant's,
with ``served`` naming whose answer went out.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from time import perf_counter
from typing import Any

from gateway.proxy.exchange.call import BackendCall, call, fault_problem, fault_status, since
from gateway.proxy.exchange.reading import Kept, read_answer, worth_reading
from gateway.proxy.exchange.reply import LEFT, Reply
from gateway.proxy.wire.faults import UpstreamFault


async def relay(reply: Reply, body: bytes | AsyncIterator[bytes]) -> None:
    """Call the variant that was chosen and answer the client; ``body`` must be whole where the route has a fallback."""
    routed = reply.routed
    generation = routed.generation
    variant, fallback = routed.routing.decision.answering[0], routed.routing.route.fallback
    began = perf_counter()
    asked, served = variant, None
    try:
        first = shown = await call(
            generation.answering(variant), routed, generation.dressed(routed.headers, variant), body
        )
        if fallback is not None and first.failed and fallback != variant and isinstance(body, bytes):
            first.close()
            headers = generation.dressed(routed.headers, fallback)
            asked, shown = fallback, await call(generation.answering(fallback), routed, headers, body)
            served = fallback if shown.fault is None else None
    except LEFT as error:
        reply.left((variant,), "primary", error, since(began))
        raise
    routed.waited += perf_counter() - began
    outcome = first.outcome()  # but for the status, which is that of the answer shown
    if served is not None:
        outcome["served"] = served
    own = reply.own(served or variant)
    if shown.fault is not None:
        status = outcome["status"] = fault_status(shown.fault)
        headers, content = fault_problem(shown.fault, asked, shown.detail, named=routed.routing.route.expose_variant)
        outcome["overhead_ms"] = routed.overhead_ms
        reply.send(routed.line(variant, "primary", outcome), status, [*headers, *own], content)
    elif shown.body is not None:
        status = outcome["status"] = shown.status or 502
        if served is None:
            read_answer(outcome, routed, variant, shown, shown.body, reply.counts)
        outcome["overhead_ms"] = routed.overhead_ms
        line = routed.line(variant, "primary", outcome)
        shown.headers.extend(own)
        reply.send(line, status, shown.headers, shown.body, shown.length)
    else:
        try:
            await _stream(reply, variant, shown, outcome, began)
        finally:
            shown.close()


async def _stream(reply: Reply, variant: str, shown: BackendCall, outcome: dict[str, Any], began: float) -> None:
    """Pass an answer on while it arrives: an ``open`` row before its head, a ``close`` row before its end."""
    routed, response, answer = reply.routed, reply.response, shown.answer
    assert answer is not None
    assert shown.status is not None
    outcome |= {"status": shown.status, "overhead_ms": routed.overhead_ms}
    served = outcome.get("served")
    if not reply.open(routed.line(variant, "primary", outcome | {"fault": "incomplete"}, "open")):
        return
    shown.headers.extend(reply.own(served or variant))
    response.start(shown.status, shown.headers, length=answer.length)
    reads = served is None and worth_reading(routed, variant, shown)
    kept = Kept(reads or routed.capturing is not None)
    last, left = b"", answer.length

    def close(fault: str | None) -> None:
        if fault is not None:
            outcome.setdefault("fault", fault)
        if served is None:
            outcome["latency_ms"] = since(began)
        if "fault" not in outcome and reads:
            read_answer(outcome, routed, variant, shown, kept.whole(), reply.counts)
        reply.close(routed.line(variant, "primary", outcome, "close"))

    try:
        async for chunk in answer.chunks():
            kept.add(chunk)
            if left is not None:
                left -= len(chunk)
                if left == 0:  # the last one: it waits for its row
                    last = chunk
                    continue
            await response.write(chunk)
    except UpstreamFault as fault:
        close(fault.fault)
        response.abort()
        if routed.capturing is not None:
            reply.capture(routed.capturing, b"", ())
    except LEFT:
        close("client_gone")
        if routed.capturing is not None:
            reply.capture(routed.capturing, b"", ())
        raise
    else:
        close(None)
        response.finish(last)
        if routed.capturing is not None:
            reply.capture(routed.capturing, kept.whole(), shown.headers)
