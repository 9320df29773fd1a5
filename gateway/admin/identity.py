"""Who sends a request to the admin port, and what the sender may do.

Rule: a user that a proxy names counts only from an address in ``trusted_proxies``; from any other it is ignored,
counted and logged. A token is compared with all there are, each in constant time. Where the settings ask for neither
user nor token, everyone may do everything, and nobody is known.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import Final

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import Scope as Request

from gateway.admin.json_errors import problem
from gateway.files.secret import SecretMissing, TokenFile, is_one_of
from router.settings.tokens import MOST_USER, Scope, valid
from router.snapshot import Gateway, Snapshot

logger = logging.getLogger(__name__)

#: Ignored users are logged at most so often.
SAID_SECONDS: Final = 60.0

_CHALLENGE: Final = {"www-authenticate": 'Basic realm="turnout", charset="UTF-8", Bearer realm="turnout"'}


@dataclass(frozen=True, slots=True)
class Identity:
    """``who`` is a user, or "token" and its name; "" where nobody was asked for, and so nobody is known.

    ``word`` is what refusals call the token.
    """

    who: str
    scope: Scope
    word: str = ""


ANYBODY: Final = Identity("", "admin")


class Identities:
    """Says who sends a request. ``now_ms`` is the clock.

    ``on_ignored`` is called for each user that is ignored, ``on_used`` with the name of each named token and the time.
    """

    def __init__(
        self,
        on_ignored: Callable[[], None] = lambda: None,
        on_used: Callable[[str, int], None] = lambda name, at_ms: None,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self._changing = TokenFile()
        self._reading = TokenFile()
        self._now_ms = now_ms
        self._on_ignored = on_ignored
        self._on_used = on_used
        self._said_at: float | None = None

    def of(self, snapshot: Snapshot, request: Request, headers: Headers) -> Identity | Response:
        """Return who sends a request, or the refusal of one that had to say so."""
        gateway, client = snapshot.gateway, request.get("client")
        if gateway.trusted_user_header is not None and gateway.trusted_user_header in headers:
            if client is not None and _is_among(client[0], gateway.trusted_proxies):
                return _user(gateway, headers.getlist(gateway.trusted_user_header))
            self._ignore(gateway.trusted_user_header, "" if client is None else client[0])
        given = credential(headers.get("authorization", ""))
        now_ms = self._now_ms()
        named = valid(snapshot.tokens, given, now_ms)
        if named is not None:
            self._on_used(named.name, now_ms)
            return Identity(f"token {named.name}", named.scope, f'the token "{named.name}"')
        if not asks(gateway):
            return ANYBODY
        return self._of_file(gateway, given)

    def _of_file(self, gateway: Gateway, given: bytes | None) -> Identity | Response:
        changing = _read(self._changing, gateway.admin_token_file)
        reading = _read(self._reading, gateway.admin_read_token_file)
        changes, reads = is_one_of(given, changing), is_one_of(given, reading)
        if changes:
            line = 1 + sum(index for index, one in enumerate(changing) if is_one_of(given, (one,)))
            return Identity(f"token {line} of admin_token_file", "admin", "this token")
        if reads:
            return Identity("token of admin_read_token_file", "read", "this token")
        if not changing and gateway.admin_token_file is not None:
            return problem(503, "the admin token file cannot be read, so nobody is let in")
        which = "the admin token" if gateway.admin_token_file is not None else "a token"
        detail = f"this needs {which}, as Authorization: Bearer TOKEN or as the password of Basic"
        return problem(401, detail, headers=_CHALLENGE)

    def _ignore(self, header: str, address: str) -> None:
        self._on_ignored()
        now = time.monotonic()
        if self._said_at is None or now - self._said_at > SAID_SECONDS:
            self._said_at = now
            logger.warning("%s from %s is ignored: trusted_proxies does not name that address", header, address)


def asks(gateway: Gateway) -> bool:
    """Return whether the admin port asks who somebody is."""
    return (
        gateway.admin_token_file is not None or gateway.admin_token_required or gateway.trusted_user_header is not None
    )


def _user(gateway: Gateway, named: list[str]) -> Identity | Response:
    """Return the user that a proxy names: as one value, once."""
    user = named[0].strip()
    with contextlib.suppress(UnicodeDecodeError):
        user = user.encode("latin-1").decode()  # as it was sent, if that is UTF-8
    if len(named) > 1 or not 0 < len(user) <= MOST_USER or not user.isprintable() or user.startswith("token "):
        return problem(403, f"{gateway.trusted_user_header} must name one user, in at most {MOST_USER} characters")
    scopes = dict(gateway.trusted_users)
    scope = scopes.get(user) or scopes.get("*")
    if scope is None or user == "*":
        return problem(403, f'"{user}" may do nothing here: trusted_users has no such user, and no "*"')
    return Identity(user, scope, f'"{user}"')


def _is_among(address: str, networks: tuple[str, ...]) -> bool:
    try:
        known = ip_address(address)
    except ValueError:
        return False
    mapped = getattr(known, "ipv4_mapped", None)
    return any((mapped or known) in ip_network(one) for one in networks)


def _read(file: TokenFile, path: str | None) -> tuple[bytes, ...]:
    """Return the tokens of a file; none if there is no file or it cannot be read: then no token is valid."""
    if path is None:
        return ()
    try:
        return file.read(path)
    except SecretMissing as error:
        logger.error("tokens cannot be read: %s", error)
        return ()


def credential(authorization: str) -> bytes | None:
    """Return the token in an Authorization header, None if it has none in a scheme that is known here."""
    scheme, _, rest = authorization.partition(" ")
    if scheme.lower() == "bearer":
        return rest.strip().encode()
    if scheme.lower() != "basic":
        return None
    try:
        _, separator, password = base64.b64decode(rest.strip(), validate=True).partition(b":")
    except (binascii.Error, ValueError):
        return None
    return password if separator else None
