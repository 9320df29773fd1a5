"""Named tokens as they are stored: by their hash, and never themselves.

Rule: making and revoking one is in the audit log, in the same transaction. A row is never removed: who did something is
still known when the token is not valid any more. A name is that of one token at a time.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from sqlalchemy import bindparam, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.nearest import unknown
from gateway.store import audit
from gateway.store.audit import Entry
from gateway.store.schema import sql
from gateway.store.schema.access_tables import tokens
from router.settings.tokens import BEGINS, RANKS, NamedToken, Scope, hashed

#: The most tokens that are valid at once: each request with a token is compared with all of them.
MOST: Final = 1_000

MINUTE_MS: Final = 60_000

#: Bytes of chance in a token, of which the first are shown in lists.
_BYTES: Final = 24
_SHOWN: Final = len(BEGINS) + 8
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}", re.ASCII)
#: 2100: whoever needs a longer one leaves the expiry out.
_LATEST_MS: Final = 4_102_444_800_000


class TokenRefused(ValueError):
    """A token cannot be made or revoked; the message says why."""


class StoredToken(NamedTuple):
    """A row of ``tokens``."""

    prefix: str
    name: str
    scope: Scope
    sha256: str
    made_ms: int
    made_by: str
    expires_ms: int | None
    revoked_ms: int | None
    used_ms: int | None

    def shown(self, now_ms: int) -> dict[str, Any]:
        """The same as plain JSON values, without the hash, and with its state."""
        expired = self.expires_ms is not None and now_ms >= self.expires_ms
        state = "revoked" if self.revoked_ms is not None else "expired" if expired else "valid"
        return {name: value for name, value in self._asdict().items() if name != "sha256"} | {"state": state}


class MadeToken(NamedTuple):
    """The token itself, which is kept nowhere, and its row."""

    token: str
    row: StoredToken


async def create(
    connection: AsyncConnection, *, name: str, scope: str, expires_ms: int | None, who: str, via: str, now_ms: int
) -> MadeToken:
    """Make a token. Raises TokenRefused."""
    if not _NAME.fullmatch(name):
        form = 'must begin with a letter or "_" and go on with letters, digits, "_", "-" and ".", 64 at most'
        raise TokenRefused(f"the name {form}; got {audit.cleaned(name, 64)!r}")
    if scope not in RANKS:
        raise TokenRefused(f"the scope must be one of {', '.join(RANKS)}; got {audit.cleaned(str(scope), 64)!r}")
    if expires_ms is not None and not now_ms < expires_ms <= _LATEST_MS:
        raise TokenRefused("the token must expire in the future, and before 2100, or never")
    valid = await in_force(connection, now_ms)
    if any(one.name == name for one in valid):
        raise TokenRefused(f'there is a token "{name}" already: revoke it first, or choose another name')
    if len(valid) >= MOST:
        raise TokenRefused(f"{MOST:,} tokens are valid, which is the most there may be: revoke one first")
    token = f"{BEGINS}{secrets.token_hex(_BYTES)}"
    row = StoredToken(
        token[:_SHOWN],
        name,
        scope,
        hashed(token.encode()),
        now_ms,
        audit.cleaned(who),
        expires_ms,
        None,
        None,
    )
    await sql.insert(connection, tokens, [row])
    await _audit(connection, "token_created", row, who, via, now_ms)
    return MadeToken(token, row)


async def revoke(connection: AsyncConnection, name: str, *, who: str, via: str, now_ms: int) -> StoredToken:
    """Revoke the token of this name, and return it. Raises TokenRefused if no valid one has it."""
    found = [one for one in await listed(connection) if one.revoked_ms is None]
    named = [one for one in found if one.name == name]
    if not named:
        raise TokenRefused(unknown("token", audit.cleaned(name, 64), [one.name for one in found]))
    for one in named:
        await connection.execute(_REVOKE, {"b_prefix": one.prefix, "b_now": now_ms})
    await _audit(connection, "token_revoked", named[0], who, via, now_ms)
    return named[0]._replace(revoked_ms=now_ms)


async def listed(connection: AsyncConnection) -> list[StoredToken]:
    """Return every token, the newest first."""
    return [StoredToken(*row) for row in await connection.execute(_ALL)]


async def in_force(connection: AsyncConnection, now_ms: int) -> tuple[NamedToken, ...]:
    """Return the tokens that are neither revoked nor expired, by name."""
    rows = await connection.execute(_VALID, {"now": now_ms})
    return tuple(
        NamedToken(name=row.name, scope=row.scope, sha256=row.sha256, expires_ms=row.expires_ms) for row in rows
    )


async def note_used(connection: AsyncConnection, used_ms: Mapping[str, int]) -> None:
    """Store in which minute tokens were last used, by name."""
    rows = [{"b_name": name, "b_used": at_ms - at_ms % MINUTE_MS} for name, at_ms in used_ms.items()]
    if rows:
        await connection.execute(_USE, rows)


async def _audit(connection: AsyncConnection, act: str, row: StoredToken, who: str, via: str, now_ms: int) -> None:
    body = {"name": row.name, "scope": row.scope, "prefix": row.prefix, "expires_ms": row.expires_ms}
    changed = f'token "{row.name}" ({row.prefix}…) of scope {row.scope}'
    await audit.append(connection, Entry(who=who, via=via, act=act, changed=changed, body=body), now_ms)


_ALL: Final = select(tokens).order_by(tokens.c.made_ms.desc(), tokens.c.prefix)
_VALID: Final = (
    select(tokens.c.name, tokens.c.scope, tokens.c.sha256, tokens.c.expires_ms)
    .where(tokens.c.revoked_ms.is_(None), or_(tokens.c.expires_ms.is_(None), tokens.c.expires_ms > bindparam("now")))
    .order_by(tokens.c.name, tokens.c.prefix)
)
_REVOKE: Final = update(tokens).where(tokens.c.prefix == bindparam("b_prefix")).values(revoked_ms=bindparam("b_now"))
_USE: Final = (
    update(tokens)
    .where(
        tokens.c.name == bindparam("b_name"),
        tokens.c.revoked_ms.is_(None),
        or_(tokens.c.used_ms.is_(None), tokens.c.used_ms < bindparam("b_used")),
    )
    .values(used_ms=bindparam("b_used"))
)
