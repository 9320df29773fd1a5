"""The gateway's own paths on the data port: ``POST /-/feedback``, ``GET /-/livez``, ``GET /-/readyz``, ``OPTIONS *``.

Rule: feedback is acknowledged when it is durable and not before. A body is taken whole or refused whole, and what is
refused is in the journal as a number, so that the events that were sent always add up. A page of another site may send
feedback only if ``feedback_origins`` names it: a browser sends a request for any page that its user opens.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from ipaddress import ip_network
from math import ceil
from time import monotonic
from typing import Final

import orjson

from gateway.files.secret import is_one_of
from gateway.journal.feedback_appender import FeedbackAppender, JournalFailed
from gateway.proxy.client.backends import Backends
from gateway.proxy.exchange.reply import refuse
from gateway.proxy.feedback.validate import NotEvents, read_events
from gateway.proxy.limits.new_units import client_of
from gateway.proxy.limits.rates import Rates
from gateway.proxy.log.counters import Counts
from gateway.proxy.log.predictions import Log
from gateway.proxy.log.worker_series import FEEDBACK_REJECTED, FEEDBACK_TOKEN_USES, JOURNAL_REFUSED
from gateway.proxy.server.accept import METHODS
from gateway.proxy.server.request import Request
from gateway.proxy.server.response import Response
from gateway.proxy.wire.headers import Header, field
from gateway.proxy.wire.problem_details import problem
from router.records import Feedback, feedback_line
from router.router import Router
from router.settings.tokens import valid
from router.snapshot import Snapshot

#: How the gateway's own paths begin; no route's can.
OWN_PATHS: Final = ("/-/", "*")
#: A thousand events with room to spare; the operator's max_body_bytes is for models.
MAX_BODY_BYTES: Final = 2**20

_JSON: Final = [(b"content-type", b"application/json")]
#: The answer to a browser's preflight request, which comes before JSON or a token.
_PREFLIGHT: Final = (
    (b"access-control-allow-methods", b"POST"),
    (b"access-control-allow-headers", b"content-type, authorization"),
    (b"access-control-max-age", b"600"),
)


class OwnPaths:
    """Handles the gateway's own paths. ``ready`` is False once the worker drains."""

    def __init__(
        self,
        router: Router,
        backends: Backends,
        journal: FeedbackAppender,
        log: Log,
        counts: Counts,
        now_ns: Callable[[], int],
    ) -> None:
        self._router = router
        self._backends = backends
        self._journal = journal
        self._log = log
        self._counts = counts
        self._now_ns = now_ns
        self._rates = Rates(router.snapshot.gateway)
        self.ready = True
        self.swap(router.snapshot)

    def swap(self, snapshot: Snapshot) -> None:
        """Go by these settings and tokens from now on."""
        gateway = snapshot.gateway
        self._named = tuple(token for token in snapshot.tokens if token.scope == "feedback")
        self._proxies = tuple(map(ip_network, gateway.trusted_proxies))
        self._rates.swap(gateway)

    async def __call__(self, request: Request, response: Response) -> None:
        match request.path:
            case "/-/feedback":
                cors = self._cors(request)
                if cors is None:
                    # It is only counted: with a line for each refused request any web page could fill the journal.
                    self._counts.add(FEEDBACK_REJECTED, reason="origin")
                    refuse(response, 403, "Forbidden", "feedback_origins does not name the origin of this page")
                elif cors and request.method == "OPTIONS":
                    response.send(204, [*cors, *_PREFLIGHT], b"")
                elif _allowed(request, response, b"POST"):
                    await self._feedback(request, response, cors)
            case "/-/livez":
                if _allowed(request, response, b"GET", b"HEAD"):
                    response.send(200, _JSON, b'{"status":"alive"}')
            case "/-/readyz":
                if _allowed(request, response, b"GET", b"HEAD"):
                    status, word = (200, b"ready") if self.ready else (503, b"draining")
                    response.send(status, _JSON, b'{"status":"%b"}' % word)
            case "*":
                response.send(204, [(b"allow", METHODS)], b"")
            case _:
                refuse(response, 404, "Not Found", f"{request.path} is none of the gateway's own paths")

    def _cors(self, request: Request) -> tuple[Header, ...] | None:
        """Return the CORS fields of the answer, or None for a page that may not send feedback.

        There are none for the gateway's own pages, and for clients that are no browsers.
        """
        origin = request.header("origin")
        if origin is None:
            return ()
        if origin.lower() in self._router.snapshot.gateway.feedback_origins:
            return (
                (b"access-control-allow-origin", origin.encode()),
                (b"access-control-allow-credentials", b"true"),  # navigator.sendBeacon always asks for that
                (b"vary", b"origin"),
            )
        return () if origin.partition("://")[2].lower() == (request.header("host") or "").lower() else None

    async def _feedback(self, request: Request, response: Response, cors: tuple[Header, ...]) -> None:
        client = client_of(request, self._proxies)
        if self._turned_away(request, response, client, cors):
            return None
        body = request.whole() if request.complete else await _body(request)
        self._rates.sent(client, 1, monotonic())
        if body is None or len(body) > MAX_BODY_BYTES:
            self._reject(1, "too_large")
            detail = f"a body of feedback has at most {MAX_BODY_BYTES:,} bytes"
            return refuse(response, 413, "Content Too Large", detail, *cors)
        try:
            events, problems, count = read_events(body, self._router.snapshot, self._now_ns() // 1_000_000)
        except NotEvents as error:
            self._reject(error.count, "not_events")
            return refuse(response, 422, "Unprocessable Content", str(error), *cors)
        self._rates.sent(client, max(0, count - 1), monotonic())
        if problems:
            self._reject(count, "invalid")
            detail = f"{_number(len(problems), 'problem')} in {_number(count, 'event')}; nothing is stored"
            errors = [{"index": found.index, "detail": found.detail} for found in problems]
            headers, content = problem(422, "Unprocessable Content", detail, errors=errors)
            return response.send(422, [*headers, *cors], content)
        try:
            await self._append(events)
        except JournalFailed as error:
            self._counts.add(JOURNAL_REFUSED)
            return refuse(response, 503, "Service Unavailable", str(error), (b"retry-after", b"1"), *cors)
        return response.send(202, [*_JSON, *cors], orjson.dumps({"accepted": len(events)}))

    def _turned_away(self, request: Request, response: Response, client: str, cors: tuple[Header, ...]) -> bool:
        """Refuse feedback without the token, or beyond the rates, before its body is read; return whether it was."""
        if not self._may_send(_bearer(request)):
            self._counts.add(FEEDBACK_REJECTED, reason="unauthorized")
            detail = "feedback needs the token: Authorization: Bearer …"
            refuse(response, 401, "Unauthorized", detail, (b"www-authenticate", b"Bearer"), *cors)
            return True
        wait = self._rates.wait_seconds(client, monotonic())
        if not wait:
            return False
        self._counts.add(FEEDBACK_REJECTED, reason="rate")  # counted as one event, since the body is not read
        detail = "more feedback than max_feedback_per_second, or max_feedback_per_second_per_client, lets in"
        refuse(response, 429, "Too Many Requests", detail, (b"retry-after", b"%d" % ceil(wait)), *cors)
        return True

    def _may_send(self, given: bytes | None) -> bool:
        """Return whether feedback is taken with this token: of the file, or a named one; or without any."""
        in_file = self._backends.current.feedback_tokens
        if in_file is None and not self._router.snapshot.gateway.feedback_token_required:
            return True
        named = valid(self._named, given, self._now_ns() // 1_000_000)
        if named is not None:
            self._counts.add(FEEDBACK_TOKEN_USES, token=named.name)
        return named is not None or is_one_of(given, in_file or ())

    async def _append(self, events: Sequence[Feedback]) -> None:
        """Write events into the journal, and return once they are durable. Raises JournalFailed."""
        if self._log.feedback_full:
            raise JournalFailed("the journal is full")
        if events:
            lines = b"".join(map(feedback_line, events))
            # In a task: it has a deadline.
            await asyncio.get_running_loop().create_task(self._journal.append(lines))
            self._log.grew(len(lines))

    def _reject(self, events: int, reason: str) -> None:
        self._counts.add(FEEDBACK_REJECTED, events, reason=reason)
        self._log.rejected(events, self._now_ns() // 1_000_000)


async def _body(request: Request) -> bytes | None:
    """Return the body, or None as soon as it is known to be too long."""
    if (request.content_length or 0) > MAX_BODY_BYTES:
        return None
    body = bytearray()
    async for chunk in request.chunks():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            return None
    return bytes(body)


def _allowed(request: Request, response: Response, *methods: bytes) -> bool:
    if request.method.encode() in methods:
        return True
    allow = b", ".join(methods)
    refuse(response, 405, "Method Not Allowed", f"{request.path} takes {allow.decode()}", (b"allow", allow))
    return False


def _bearer(request: Request) -> bytes | None:
    scheme, _, given = (field(request.headers, b"authorization") or b"").partition(b" ")
    return given.strip() if scheme.lower() == b"bearer" else None


def _number(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
