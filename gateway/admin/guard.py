"""Which requests the admin port answers, and which headers every answer has.

Rule: one ASGI layer around everything. It fails closed: with a token file that cannot be read, every request is
refused.

- With ``admin_token_file``, ``admin_token_required`` or ``trusted_user_header`` every path needs a token or a user
  (``identity``) except ``/livez`` and ``/readyz``: ``/metrics`` too, since labels name routes and models, unless
  ``metrics_open`` says otherwise. What each request needs is a table (``scopes``). A token of ``admin_read_token_file``
  reads and changes nothing. A token is sent as ``Authorization: Bearer``, or as the password of Basic with any user
  name, which is what browsers can ask for. The files are read again when they change, so tokens can be rotated without
  a restart.
- At most ``MOST_REQUESTS`` are under way at once; one more gets 503, and health is answered all the same. At most
  ``AT_A_TIME`` handlers run at once, and none for a client that hung up while it waited: recording runs on the same
  loop, and many requests must not delay it.
- Bound to loopback, only requests to a loopback name are answered: a web page that points its own name at 127.0.0.1
  (DNS rebinding) gets 421. For a proxy with a name of its own, bind to another address, with a token.
- A POST from another site's page (``Sec-Fetch-Site``, else ``Origin``) gets 403: browsers send Basic by themselves.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from ipaddress import ip_address
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.admin.identity import Identities
from gateway.admin.json_errors import problem
from gateway.admin.scopes import SAFE_METHODS, needed
from router.settings.tokens import RANKS
from router.snapshot import Snapshot

logger = logging.getLogger(__name__)

OPEN_PATHS: Final = frozenset({"/livez", "/readyz"})
#: Requests under way at once, not counting health checks.
MOST_REQUESTS: Final = 64
#: How many handlers run at once, each until its answer begins.
AT_A_TIME: Final = 4

#: Pages may load their own style sheet and images, and nothing else: no script, no frame, no other host.
HEADERS: Final = {
    "content-security-policy": "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}

#: The keys in a request's scope for who sent it ("": that is not known) and what the sender may do.
WHO: Final = "turnout.who"
SCOPE: Final = "turnout.scope"

_WHAT_DOES: Final = {
    "operate": "a token of admin_token_file does, or one with the scope operate",
    "admin": "a token of admin_token_file does, or one with the scope admin",
}


class Guard:
    """Wraps an ASGI app. ``snapshot`` gives what is in force, asked at each request."""

    def __init__(self, app: ASGIApp, snapshot: Callable[[], Snapshot], identities: Identities) -> None:
        self._app = app
        self._snapshot = snapshot
        self.identities = identities
        self._under_way = 0
        self._turns = asyncio.Semaphore(AT_A_TIME)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False
        turn = contextlib.ExitStack()

        async def send_guarded(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                turn.close()  # from here on the answer waits for its client, and not for this loop
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        self._under_way += 1
        try:
            answer: ASGIApp = self._refusal(scope) or self._app
            if answer is self._app and scope["path"] not in OPEN_PATHS:
                await self._turns.acquire()
                turn.callback(self._turns.release)
                if scope["method"] in {"GET", "HEAD"} and await _is_gone(receive):
                    return
            await answer(scope, receive, send_guarded)
        except ClientDisconnect:
            pass
        except Exception as error:
            # One line: an operator needs to know what failed and where, a client only that something did.
            logger.error(
                "admin request failed: %s %s: %s: %s", scope["method"], scope["path"], type(error).__name__, error
            )
            logger.debug("admin request failed", exc_info=True)
            if not started:
                await problem(500, "this is a fault of the gateway; its log says more")(scope, receive, send_guarded)
        finally:
            turn.close()
            self._under_way -= 1

    def _refusal(self, scope: Scope) -> Response | None:
        snapshot, headers = self._snapshot(), Headers(scope=scope)
        gateway = snapshot.gateway
        host = headers.get("host", "")
        if is_loopback(hostname(gateway.admin)) and not is_loopback(hostname(host)):
            detail = f'this port answers to localhost and 127.0.0.1, not to "{host[:100]}"'
            return problem(421, detail, title="Misdirected Request")
        if scope["path"] in OPEN_PATHS:
            return None
        if self._under_way > MOST_REQUESTS:
            return problem(503, f"{MOST_REQUESTS} requests are under way", headers={"retry-after": "1"})
        if not (gateway.metrics_open and scope["path"] == "/metrics"):
            refused = self._unauthorised(snapshot, scope, headers)
            if refused is not None:
                return refused
        if scope["method"] not in SAFE_METHODS and _is_cross_site(headers, host):
            return problem(403, "a page of another site may not change anything here")
        return None

    def _unauthorised(self, snapshot: Snapshot, scope: Scope, headers: Headers) -> Response | None:
        needs = needed(scope["method"], scope["path"])
        if needs == "signed":
            return None
        found = self.identities.of(snapshot, scope, headers)
        if isinstance(found, Response):
            return found
        scope[WHO], scope[SCOPE] = found.who, found.scope
        if RANKS[found.scope] >= RANKS[needs]:
            return None
        if found.scope == "read":
            return problem(403, f"{found.word} reads and changes nothing; {_WHAT_DOES[needs]}")
        return problem(403, f"{found.word} has the scope {found.scope}, and this needs {needs}")


async def _is_gone(receive: Receive) -> bool:
    """Return whether the client of a request without a body has hung up."""
    for _ in range(2):  # the first message says that there is no body
        asking = asyncio.ensure_future(receive())
        await asyncio.wait((asking,), timeout=0.001)
        if not asking.done():
            asking.cancel()
            return False
        if asking.result()["type"] == "http.disconnect":
            return True
    return False


def hostname(authority: str) -> str:
    """Return the host of ``host:port``, lower-case, IPv6 without its brackets.

    >>> hostname("[::1]:9090"), hostname("LOCALHOST"), hostname("127.0.0.1:9090")
    ('::1', 'localhost', '127.0.0.1')
    """
    if authority.startswith("["):
        return authority[1:].partition("]")[0].lower()
    return authority.rpartition(":")[0].lower() if authority.count(":") == 1 else authority.lower()


def is_loopback(host: str) -> bool:
    """Return whether the name or address is of the loopback interface."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _is_cross_site(headers: Headers, host: str) -> bool:
    """Return whether another site's page sent this request; clients other than browsers send neither header."""
    site = headers.get("sec-fetch-site")
    if site is not None:
        return site not in {"same-origin", "none"}
    origin = headers.get("origin")
    return origin is not None and origin.partition("://")[2].lower() != host.lower()
