"""Named tokens: who one belongs to, what it may do and until when. Only its hash is known here.

Rule: a token is random enough that its plain SHA-256 cannot be turned back. All are compared, each in constant time.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from typing import Final, Literal

#: What a token may do: send feedback, and nothing else; see; act on routes; everything.
Scope = Literal["feedback", "read", "operate", "admin"]

#: On the admin port each of these may do what those before it may; "feedback" is for the data port alone.
RANKS: Final[dict[Scope, int]] = {"feedback": 0, "read": 1, "operate": 2, "admin": 3}

#: The most characters of a user's name in ``trusted_user_header``.
MOST_USER: Final = 200

#: How every token begins, so that scanners of leaked secrets can find one.
BEGINS: Final = "turnout_"


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedToken:
    """A token that is not revoked; ``sha256`` is its hash in hex, ``expires_ms`` None for one that does not expire."""

    name: str
    scope: Scope
    sha256: str
    expires_ms: int | None = None


def hashed(token: bytes) -> str:
    """Return the hash that a token is known by."""
    return sha256(token).hexdigest()


def valid(tokens: Iterable[NamedToken], given: bytes | None, now_ms: int) -> NamedToken | None:
    """Return the token that was given, None if it is none of these or has expired."""
    if given is None or not given.startswith(BEGINS.encode()):
        return None
    name, found = hashed(given), None
    for token in tokens:
        if hmac.compare_digest(name, token.sha256) and (token.expires_ms is None or now_ms < token.expires_ms):
            found = token
    return found
