"""The audit log: what people and the controller did, each entry chained to the one before by its hash.

Rule: entries are appended in the transaction of what they tell of, and never changed or removed. ``append`` locks the
head until the commit, so that several nodes write one chain; it belongs at the end of a transaction, after every other
lock. An alteration of the tables never keeps it from appending: ``verify`` finds the alteration.

What ``verify`` finds: any entry that was changed, removed, inserted, moved or repeated, from the first on. The last
entries, removed together with the head's row set back, are missed without a head that is kept elsewhere: each node
keeps one in ``data_dir`` (``HEAD_FILE``), and an operator may keep what ``verify`` returned. Nothing finds that whoever
can write both the database and every such copy has written the whole chain anew.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, NamedTuple

import orjson
from sqlalchemy import bindparam, func, select, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.files.regular import read_regular
from gateway.store.fleet.lease import NOW_MS
from gateway.store.schema import sql
from gateway.store.schema.access_tables import audit, audit_head

#: In ``data_dir``: the number and the hash of the last entry that this node has seen.
HEAD_FILE: Final = "audit.head"

#: The most characters of a text, and bytes of a body as JSON: what is longer is cut, and says so.
MOST_CHARACTERS: Final = 1_000
MOST_BODY_BYTES: Final = 2**15

#: The most entries in one answer.
MOST_LISTED: Final = 1_000

_HASH: Final = re.compile("[0-9a-f]{64}")
_PAGE: Final = 500
_BELOW_ALL: Final = -(2**63)
_NAME: Final = "audit"
_HEAD: Final = select(audit_head.c.number, audit_head.c.hash).where(audit_head.c.name == _NAME)
_SET_HEAD: Final = (
    update(audit_head).where(audit_head.c.name == _NAME).values(number=bindparam("b_number"), hash=bindparam("b_hash"))
)
_NEWEST: Final = select(func.max(audit.c.number))
#: Never written as they are: control characters, halves of surrogate pairs, and marks that turn the reading direction.
_UNPRINTABLE: Final = frozenset({"Cc", "Cs", "Cf", "Zl", "Zp"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """Something that was done. ``via`` is how it was asked for, ``changed`` a sentence, ``body`` plain JSON values."""

    who: str
    via: str
    act: str
    route: str | None = None
    changed: str = ""
    why: str | None = None
    body: Mapping[str, Any] = field(default_factory=dict)


class Audited(NamedTuple):
    """An entry as it is stored; ``body`` is JSON, ``hash`` 64 hex digits."""

    number: int
    at_ms: int
    who: str
    via: str
    act: str
    route: str | None
    changed: str
    why: str | None
    body: str
    hash: str

    @property
    def shown(self) -> dict[str, Any]:
        """The same as plain JSON values."""
        try:
            body = orjson.loads(self.body)
        except (ValueError, TypeError):  # it was altered
            body = str(self.body)
        return {**self._asdict(), "body": body}


class Head(NamedTuple):
    """The number and the hash of an entry; of none, 0 and nothing."""

    number: int = 0
    hash: str = ""

    def __str__(self) -> str:
        return f"{self.number}:{self.hash}"


class Checked(NamedTuple):
    """What ``verify`` found: how many entries fit, the last of them, and what is wrong (None: nothing).

    ``at`` is the number of the first entry that does not fit, None if what is wrong is not at an entry.
    """

    entries: int
    head: Head
    wrong: str | None = None
    at: int | None = None


async def append(connection: AsyncConnection, entry: Entry, now_ms: int) -> Audited:
    """Append an entry in the caller's transaction, and return it as it is stored.

    ``now_ms`` is the caller's clock; on PostgreSQL the database's is used, which all nodes share. Texts of any length
    and content are taken: they are cut, and control characters are written as escapes.
    """
    await sql.ensure(connection, audit_head, [(_NAME, 0, "")])
    number, before = (await connection.execute(_HEAD.with_for_update())).one()
    # Greater than every number there is: an altered head must not keep anything from being appended.
    number = max(number, (await connection.execute(_NEWEST)).scalar() or 0) + 1
    if connection.dialect.name == "postgresql":
        now_ms = (await connection.execute(select(NOW_MS))).scalar_one()
    content = (
        number,
        now_ms,
        cleaned(entry.who),
        cleaned(entry.via),
        cleaned(entry.act),
        None if entry.route is None else cleaned(entry.route),
        cleaned(entry.changed),
        None if entry.why is None else cleaned(entry.why),
        _body(entry.body),
    )
    written = Audited(*content, hash=digest(content, before))
    await sql.insert(connection, audit, [written])
    await connection.execute(_SET_HEAD, {"b_number": number, "b_hash": written.hash})
    return written


def digest(content: Sequence[Any], before: str) -> str:
    """Return the hash of an entry: SHA-256 of the JSON list of its columns but the hash, and the hash before.

    JSON keeps the columns apart, and a number, a text and nothing. Raises TypeError for what no column holds.
    """
    return sha256(orjson.dumps([*content, before])).hexdigest()


async def head(connection: AsyncConnection) -> Head:
    """Return the head as it is stored."""
    found = (await connection.execute(_HEAD)).first()
    return Head() if found is None else Head(*found)


async def hash_of(connection: AsyncConnection, number: int) -> str | None:
    """Return the hash of an entry, None if there is no such entry."""
    found: str | None = (await connection.execute(select(audit.c.hash).where(audit.c.number == number))).scalar()
    return found


def head_of(text: str) -> Head:
    """Return the head that ``str`` wrote. Raises ValueError if it is none."""
    number, colon, digits = text.strip().partition(":")
    if not (colon and number.isascii() and number.isdigit() and len(number) < 19 and _HASH.fullmatch(digits)):
        raise ValueError("must be the number of an entry, a colon and its hash of 64 hex digits")
    return Head(int(number), digits)


def read_head(path: Path) -> Head:
    """Return the head in a file, that of no entry if there is no such file or it holds none."""
    try:
        return head_of(read_regular(path).decode("ascii", "replace"))
    except (OSError, ValueError):
        return Head()


async def listed(
    connection: AsyncConnection,
    limit: int = MOST_LISTED,
    *,
    before: int | None = None,
    route: str | None = None,
    act: str | None = None,
) -> list[Audited]:
    """Return entries, the newest first: those with a number below ``before``, of a route, or of an act."""
    query = select(audit).order_by(audit.c.number.desc()).limit(min(limit, MOST_LISTED))
    for column, value in ((audit.c.route, route), (audit.c.act, act)):
        if value is not None:
            query = query.where(column == value)
    if before is not None:
        query = query.where(audit.c.number < before)
    return [Audited(*row) for row in await connection.execute(query)]


async def verify(connection: AsyncConnection, known: Sequence[Head] = ()) -> Checked:
    """Return whether every entry fits the one before, and the last the head.

    ``known`` are heads that were kept elsewhere: the log must contain each of them.
    """
    found, wanted = Head(), {one.number: one.hash for one in known if one.number}
    while True:
        rows = await _page(connection, found.number or _BELOW_ALL)
        if not rows:
            break
        for row in rows:
            wrong = row if isinstance(row, str) else _misfit(row, found)
            if wrong is None and wanted.get(row[0], row[-1]) != row[-1]:
                wrong = f"entry {row[0]} is not the one that was known here: the log was written anew"
            if wrong is not None:
                return Checked(found.number, found, wrong, found.number + 1)
            found = Head(row[0], row[-1])
    return _ended(found, await _stored_head(connection), wanted)


def _misfit(row: Any, before: Head) -> str | None:
    """Say why an entry does not follow the one before; None if it does."""
    number = row[0]
    if number != before.number + 1:
        return f"entry {before.number + 1} is missing: entry {number} follows entry {before.number}"
    try:
        fits = row[-1] == digest(row[:-1], before.hash)
    except TypeError:
        fits = False
    if fits:
        return None
    return f"entry {number} was altered, or does not follow the one before: its hash does not fit"


def _ended(found: Head, stored: Head | None, wanted: Mapping[int, str]) -> Checked:
    """Judge the end of a chain whose entries fit."""
    after = f"the log ends at entry {found.number}"
    furthest = max(wanted, default=0)
    if furthest > found.number:
        lost = f"{after}, and entry {furthest} was known here: entries were removed, or an older copy was restored"
        return Checked(found.number, found, lost, found.number + 1)
    if stored is None and found.number:
        return Checked(found.number, found, "the head (table audit_head) was removed")
    if stored is not None and stored != found:
        at = found.number + 1 if stored.number > found.number else found.number
        return Checked(found.number, found, f"{after}, and its head names entry {stored.number} or another hash", at)
    return Checked(found.number, found)


async def _page(connection: AsyncConnection, after: int) -> list[Any]:
    """Return the next entries as rows; one that the driver cannot read is a sentence instead."""
    query = select(audit).where(audit.c.number > after).order_by(audit.c.number).limit(_PAGE)
    try:
        return [tuple(row) for row in (await connection.execute(query)).all()]
    except (SQLAlchemyError, UnicodeDecodeError, ValueError):
        return await _one_by_one(connection, after)


async def _one_by_one(connection: AsyncConnection, after: int) -> list[Any]:
    numbers = select(audit.c.number).where(audit.c.number > after).order_by(audit.c.number).limit(_PAGE)
    found: list[Any] = []
    for number in [row[0] for row in (await connection.execute(numbers)).all()]:
        try:
            found.append(tuple((await connection.execute(select(audit).where(audit.c.number == number))).one()))
        except (SQLAlchemyError, UnicodeDecodeError, ValueError):
            return [*found, f"entry {number} was altered: it cannot be read"]
    return found


async def _stored_head(connection: AsyncConnection) -> Head | None:
    try:
        found = (await connection.execute(_HEAD)).first()
        return None if found is None else Head(*found)
    except (SQLAlchemyError, UnicodeDecodeError, ValueError):
        return Head(-1, "it cannot be read")


def cleaned(text: str, most: int = MOST_CHARACTERS) -> str:
    r"""Return a text as it may be stored and shown: cut, and with escapes for what does not print.

    >>> cleaned("a\0b\n"), cleaned("x" * 50, 10)
    ('a\\x00b\\n', 'xxxxxxxxxx… (50 characters)')
    """
    shown = "".join(
        one.encode("unicode_escape").decode() if unicodedata.category(one) in _UNPRINTABLE else one
        for one in text[:most]
    )
    return shown if len(text) <= most else f"{shown}… ({len(text):,} characters)"


def _body(body: Mapping[str, Any]) -> str:
    """Return a body as JSON, of at most ``MOST_BODY_BYTES`` and some words, with escapes for what does not print."""
    try:
        text = orjson.dumps(body, default=str, option=orjson.OPT_NON_STR_KEYS).decode()
    except (TypeError, ValueError, RecursionError):  # half a surrogate pair, a number of more than 64 bits, too deep
        text = orjson.dumps({"unreadable": cleaned(ascii(body))}).decode()
    whole = text.encode()
    if len(whole) > MOST_BODY_BYTES:
        begins = cleaned(whole[: MOST_BODY_BYTES // 2].decode(errors="ignore"), MOST_BODY_BYTES)
        cut = {"cut": True, "bytes": len(whole), "sha256": sha256(whole).hexdigest(), "begins": begins}
        text = orjson.dumps(cut).decode()
    return "".join(_in_json(one) if unicodedata.category(one) in _UNPRINTABLE else one for one in text)


def _in_json(character: str) -> str:
    """Return a character as JSON escapes it, above U+FFFF as a pair: in JSON such a one stands in a text alone."""
    return json.dumps(character)[1:-1]
