"""Several variants answer: their ranked lists are merged into one, inside the first ranker's answer.

Rule: the client is never worse off than without merging. If the lists cannot be merged, one answer is passed on as it
is and the failure is counted; if a ranker fails, the others' lists are merged. Each ranker leaves one ``draft`` row,
and all of them are written together.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Final

from gateway.proxy.exchange.call import BackendCall, call, plain_body, read_answer
from gateway.proxy.exchange.reply import LEFT, Reply, fault_problem, fault_status
from gateway.proxy.exchange.routed import RoutedRequest, since
from gateway.proxy.log.worker_series import MERGE_FAILURES
from gateway.proxy.wire.headers import Header, Headers
from policies.plans import TeamDraft
from router.extract import MISSING, UNREADABLE, decode_json
from router.merge import merge

#: Fields that ask for a part of an answer, an encoded one or none at all: such answers cannot be merged.
_UNASKED: Final = frozenset(
    {
        b"accept-encoding",
        b"if-match",
        b"if-modified-since",
        b"if-none-match",
        b"if-range",
        b"if-unmodified-since",
        b"range",
    }
)
_IDENTITY: Final[Header] = (b"accept-encoding", b"identity")
#: Fields of the first ranker's answer that describe its body, which the merged one replaces.
_OF_THE_BODY: Final = frozenset(
    {
        b"accept-ranges",
        b"content-digest",
        b"content-encoding",
        b"content-length",
        b"content-md5",
        b"digest",
        b"etag",
        b"last-modified",
        b"repr-digest",
    }
)


@dataclass(frozen=True, slots=True)
class _Shown:
    """The answer for the client: whose it is, and if lists were merged, the ids shown and those of each ranker."""

    call: BackendCall
    body: bytes | None
    headers: Headers
    variants: tuple[str, ...]
    items: tuple[tuple[str, ...] | None, ...]
    merged: tuple[str, ...] | None = None
    served: str | None = None
    unmerged: str | None = None


async def draft(reply: Reply, plan: TeamDraft, body: bytes) -> None:
    """Call every ranker at once, merge their answers, and answer the client."""
    routed = reply.routed
    began = perf_counter()
    try:
        calls = await _calls(routed, plan.rankers, body)
        shown = _merged(reply, plan, calls) or _passed(plan, calls)
        if shown is None or shown.call.failed:
            shown = await _fallback(routed, plan, body) or shown or _shown(plan, calls, 0)
    except LEFT as error:
        reply.left(plan.rankers, "draft", error, since(began))
        raise
    own = reply.own(*shown.variants)
    headers: Headers
    if shown.call.fault is not None:
        status = fault_status(shown.call.fault)
        named = routed.routing.route.expose_variant
        headers, content = fault_problem(shown.call.fault, shown.variants[0], shown.call.detail, named=named)
    else:
        status, headers, content = shown.call.status or 502, shown.headers, shown.body or b""
    reply.send(_rows(reply, plan, calls, shown, status), status, [*headers, *own], content)


async def _calls(routed: RoutedRequest, rankers: Sequence[str], body: bytes) -> list[BackendCall]:
    asked = [header for header in routed.headers if header[0].lower() not in _UNASKED]
    asked.append(_IDENTITY)
    generation = routed.generation
    began = perf_counter()
    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(
                call(generation.answering(name), routed, generation.dressed(asked, name), body, whole=True)
            )
            for name in rankers
        ]
    # They run side by side, so the time waited is not the sum of theirs. Merging is the gateway's own work.
    routed.waited += perf_counter() - began
    return [task.result() for task in tasks]


def _merged(reply: Reply, plan: TeamDraft, calls: Sequence[BackendCall]) -> _Shown | None:
    """Merge the answers of the rankers that succeeded; None if none did."""
    if not any(came.succeeded for came in calls):
        return None
    result = merge(plan, reply.routed.routing.occasion, [_document(came) for came in calls])
    envelope = calls[result.first]
    headers: Headers = envelope.headers
    if result.body is None:
        reason = result.reason or "one_answer"
        reply.counts.add(MERGE_FAILURES, route=reply.routed.routing.route.name, reason=reason)
        shown = _shown(plan, calls, result.first)
        return shown if result.reason is None else replace(shown, unmerged=result.reason)
    headers = [header for header in headers if header[0].lower() not in _OF_THE_BODY]
    drafted = tuple(name for name, items in zip(plan.rankers, result.items, strict=True) if items is not None)
    return _Shown(envelope, result.body, headers, drafted, result.items, result.shown)


def _document(came: BackendCall) -> object:
    if not came.succeeded:
        return MISSING
    plain = None if came.body is None else plain_body(came.body, came.headers)
    return UNREADABLE if plain is None else decode_json(plain)


def _passed(plan: TeamDraft, calls: Sequence[BackendCall]) -> _Shown | None:
    """No ranker succeeded: return the first answer that blames the client (4xx), else the first answer."""
    answered = [index for index, came in enumerate(calls) if came.fault is None]
    if not answered:
        return None
    return _shown(plan, calls, min(answered, key=lambda index: calls[index].failed))


def _shown(plan: TeamDraft, calls: Sequence[BackendCall], index: int) -> _Shown:
    """Return one ranker's answer, as it is."""
    came = calls[index]
    return _Shown(came, came.body, came.headers, (plan.rankers[index],), (None,) * len(calls))


async def _fallback(routed: RoutedRequest, plan: TeamDraft, body: bytes) -> _Shown | None:
    """Every ranker failed: ask the fallback, if there is one that is no ranker. None if it does not answer either."""
    name = routed.routing.route.fallback
    if name is None or name in plan.rankers:
        return None
    (came,) = await _calls(routed, (name,), body)
    if came.fault is not None:
        return None
    return _Shown(came, came.body, came.headers, (name,), (None,) * len(plan.rankers), None, name)


def _rows(reply: Reply, plan: TeamDraft, calls: Sequence[BackendCall], shown: _Shown, status: int) -> bytes:
    routed = reply.routed
    overhead_ms = routed.overhead_ms
    rows: list[bytes] = []
    for name, came, items in zip(plan.rankers, calls, shown.items, strict=True):
        # The client did not see the status of a ranker that answered with an error, but the row has to have it.
        seen = came.status if (came.status or 0) >= 400 else status
        outcome = came.outcome() | {"status": seen, "overhead_ms": overhead_ms}
        if shown.served is not None:
            outcome["served"] = shown.served
        if items is not None:
            outcome["items"] = items
            if came is shown.call and shown.merged is not None:
                outcome["shown"] = shown.merged
        if shown.unmerged is not None:
            outcome["wrong"] = (f"unmerged:{shown.unmerged}",)
        read_answer(outcome, routed, name, came, came.body, reply.counts)
        rows.append(routed.line(name, "draft", outcome))
    return b"".join(rows)
