"""The audit log is one chain, whoever appends, and an alteration of the tables is found."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from gateway.store import Store, audit
from gateway.store.audit import Audited, Checked, Entry, Head
from gateway.store.schema import migrations
from gateway.store.store import FILE
from tests.gateway.control.builders import T0


def in_store(where: str, path: Path, story: Callable[[Store], Awaitable[None]]) -> None:
    async def run() -> None:
        opened = await Store.open(where, path)
        try:
            await story(opened)
        finally:
            await opened.close()

    asyncio.run(run())


def entry(number: int) -> Entry:
    """An entry like others of the same number."""
    body = {"diff": [f"routes.r.share: 0.{number} -> 0.{number + 1}"]}
    return Entry(who="ana", via="api", act="advance", route="r", changed=f"step {number}", why="é better", body=body)


async def append(store: Store, *entries: Entry) -> list[Audited]:
    written = []
    for one in entries:
        async with store.begin() as connection:
            written.append(await audit.append(connection, one, T0))
    return written


async def check(store: Store, *known: Head) -> Checked:
    async with store.read() as connection:
        return await audit.verify(connection, known)


async def alter(store: Store, statement: str, **values: Any) -> None:
    async with store.begin() as connection:
        await connection.execute(text(statement), values)


def test_an_entry_is_listed_as_it_was_appended(tmp_path: Path, store: str) -> None:
    async def story(opened: Store) -> None:
        first, second = await append(opened, entry(1), Entry(who="ci", via="cli", act="token_created", body={"n": 1}))
        async with opened.read() as connection:
            assert await audit.listed(connection) == [second, first]
            assert await audit.listed(connection, before=2) == [first]
            assert await audit.listed(connection, route="r") == [first]
            assert await audit.listed(connection, act="token_created") == [second]
            assert await audit.listed(connection, 1) == [second]
        assert first.shown["body"] == entry(1).body
        assert await check(opened) == Checked(2, Head(2, second.hash))

    in_store(store, tmp_path, story)


def test_an_empty_log_fits(tmp_path: Path, store: str) -> None:
    async def story(opened: Store) -> None:
        assert await check(opened) == Checked(0, Head())

    in_store(store, tmp_path, story)


def test_an_entry_of_a_transaction_that_fails_was_never_there(tmp_path: Path, store: str) -> None:
    async def story(opened: Store) -> None:
        await append(opened, entry(1))
        with contextlib.suppress(ZeroDivisionError):
            async with opened.begin() as connection:
                await audit.append(connection, entry(2), T0)
                raise ZeroDivisionError
        (third,) = await append(opened, entry(3))
        assert third.number == 2
        assert await check(opened) == Checked(2, Head(2, third.hash))

    in_store(store, tmp_path, story)


def test_nodes_that_append_at_once_write_one_chain(tmp_path: Path, postgresql_url: str) -> None:
    """Each node has a connection of its own; without the lock two would give the same number."""

    async def story() -> None:
        nodes = [await Store.open(postgresql_url, tmp_path) for _ in range(4)]
        try:
            await asyncio.gather(*(append(node, *map(entry, range(10))) for node in nodes))
            found = await check(nodes[0])
            assert (found.entries, found.wrong) == (40, None)
        finally:
            for node in nodes:
                await node.close()

    asyncio.run(story())


def test_postgresql_s_clock_dates_an_entry(tmp_path: Path, postgresql_url: str) -> None:
    async def story(opened: Store) -> None:
        (written,) = await append(opened, entry(1))
        assert written.at_ms > T0 + 10_000

    in_store(postgresql_url, tmp_path, story)


def test_every_byte_that_changes_is_found_at_its_entry(tmp_path: Path) -> None:
    """Each byte of each column of the middle one of three entries, also to what is no UTF-8."""
    columns = ("at_ms", "who", "via", "act", "route", "changed", "why", "body", "hash")

    async def story(opened: Store) -> None:
        await append(opened, *map(entry, range(1, 4)))
        with sqlite3.connect(tmp_path / FILE, isolation_level=None) as raw:
            tried = 0
            for column in columns:
                (was,) = raw.execute(f"SELECT {column} FROM audit WHERE number = 2").fetchone()
                whole = str(was).encode()
                for at, bit in ((at, 1 << at % 8) for at in range(len(whole))):
                    wrong = whole[:at] + bytes([whole[at] ^ bit]) + whole[at + 1 :]
                    kind = "INTEGER" if column == "at_ms" and wrong.isdigit() else "TEXT"
                    raw.execute(f"UPDATE audit SET {column} = CAST(? AS {kind}) WHERE number = 2", (wrong,))
                    found = await check(opened)
                    assert (found.at, found.entries) == (2, 1), (column, wrong)
                    tried += 1
                raw.execute(f"UPDATE audit SET {column} = ? WHERE number = 2", (was,))
            assert tried > 100
        assert (await check(opened)).wrong is None

    in_store("sqlite", tmp_path, story)


ALTERATIONS = [
    ("a text that is nothing", "UPDATE audit SET why = NULL WHERE number = 2", 2),
    ("nothing that is a text", "UPDATE audit SET route = '' WHERE number = 3", 3),
    ("two columns shifted", "UPDATE audit SET who = who || via, via = '' WHERE number = 2", 2),
    ("the first removed", "DELETE FROM audit WHERE number = 1", 1),
    ("one in the middle removed", "DELETE FROM audit WHERE number = 2", 2),
    ("the last removed", "DELETE FROM audit WHERE number = 4", 4),
    ("all removed", "DELETE FROM audit", 1),
    ("one removed, the rest renumbered", "DELETE FROM audit WHERE number = 1; UPDATE audit SET number = number - 1", 1),
    (
        "two that changed places",
        "UPDATE audit SET number = 9 WHERE number = 2; UPDATE audit SET number = 2 WHERE number = 3;"
        "UPDATE audit SET number = 3 WHERE number = 9",
        2,
    ),
    (
        "one repeated at the end",
        "INSERT INTO audit SELECT 5, at_ms, who, via, act, route, changed, why, body, hash FROM audit WHERE number = 4",
        5,
    ),
    (
        "one put before the first",
        "INSERT INTO audit SELECT 0, at_ms, who, via, act, route, changed, why, body, hash FROM audit WHERE number = 1",
        1,
    ),
    ("the head set back", "UPDATE audit_head SET number = 3", 4),
    ("another hash in the head", "UPDATE audit_head SET hash = ''", 4),
]


@pytest.mark.parametrize(("statements", "at"), [one[1:] for one in ALTERATIONS], ids=[one[0] for one in ALTERATIONS])
def test_what_was_written_by_hand_is_found(tmp_path: Path, statements: str, at: int) -> None:
    async def story(opened: Store) -> None:
        written = await append(opened, *map(entry, range(1, 5)))
        for statement in statements.split(";"):
            await alter(opened, statement)
        found = await check(opened, Head(4, written[-1].hash))
        assert found.wrong is not None
        assert found.at == at

    in_store("sqlite", tmp_path, story)


def test_a_removed_head_is_found_also_later(tmp_path: Path, store: str) -> None:
    async def story(opened: Store) -> None:
        await append(opened, entry(1))
        await alter(opened, "DELETE FROM audit_head")
        assert (await check(opened)).wrong == "the head (table audit_head) was removed"
        await append(opened, entry(2))
        assert (await check(opened)).at == 2

    in_store(store, tmp_path, story)


@pytest.mark.parametrize("number", [0, 1, 7])
def test_an_altered_head_keeps_nothing_from_being_appended(tmp_path: Path, store: str, number: int) -> None:
    async def story(opened: Store) -> None:
        await append(opened, entry(1), entry(2))
        await alter(opened, "UPDATE audit_head SET number = :number, hash = 'x'", number=number)
        await append(opened, entry(3))
        assert (await check(opened)).at == 3

    in_store(store, tmp_path, story)


def test_the_last_entries_are_missed_only_without_a_head_that_is_kept_elsewhere(tmp_path: Path, store: str) -> None:
    async def story(opened: Store) -> None:
        first, second = await append(opened, entry(1), entry(2))
        await alter(opened, "DELETE FROM audit WHERE number = 2")
        await alter(opened, "UPDATE audit_head SET number = 1, hash = :hash", hash=first.hash)
        assert (await check(opened)).wrong is None
        assert (await check(opened, Head(2, second.hash))).at == 2
        await append(opened, entry(3))  # in the place of what was removed
        assert (await check(opened)).wrong is None
        assert (await check(opened, Head(2, second.hash))).at == 2

    in_store(store, tmp_path, story)


HOSTILE = ["a\0b", "x" * 8_192, "\ud800", "a\n\x1b[31m", "\u202e", "'; DROP TABLE audit; --", "𝕏" * 2_000, ""]


def test_an_identifier_of_any_content_is_taken_and_bounded(tmp_path: Path, store: str) -> None:
    async def story(opened: Store) -> None:
        for one in HOSTILE:
            given = Entry(who=one, via=one, act=one, route=one, changed=one, why=one, body={one: one})
            (written,) = await append(opened, given)
            texts = [text for text in written if isinstance(text, str)]
            assert all(len(text.encode()) <= audit.MOST_BODY_BYTES for text in texts)
            assert not any(bad in "".join(texts) for bad in ("\0", "\n", "\x1b", "\u202e"))
            assert json.loads(written.body)
        assert (await check(opened)).wrong is None

    in_store(store, tmp_path, story)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(st.characters(), max_size=3), inner, max_size=3)
    ),
    max_leaves=6,
)


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(st.text(st.characters(), max_size=3), values, max_size=3), st.text(st.characters(), max_size=20))
def test_any_body_fits_its_hash_when_it_is_read_again(body: dict[str, Any], who: str) -> None:
    written = (1, T0, audit.cleaned(who), "api", "act", None, "", None, audit._body(body))
    stored = json.loads(json.dumps(written))
    assert audit.digest(stored, "") == audit.digest(written, "")
    json.loads(written[-1])
    written[-1].encode()


def test_a_body_that_is_too_long_is_cut_and_says_so() -> None:
    cut = json.loads(audit._body({"diff": ["\u00e9" * 100_000]}))
    assert (cut["cut"], cut["bytes"]) == (True, 200_013)


def test_a_store_of_before_gets_the_log(tmp_path: Path, store: str) -> None:
    number = next(number for number, step in migrations.STEPS.items() if step.what == "keep who did what")

    async def story(opened: Store) -> None:
        for statement in ("DROP TABLE audit", "DROP TABLE audit_head"):
            await alter(opened, statement)
        async with opened.begin() as connection:
            for statement in getattr(migrations.STEPS[number], connection.dialect.name):
                await connection.execute(text(statement))
        await append(opened, entry(1), entry(2))
        assert (await check(opened)).entries == 2

    in_store(store, tmp_path, story)
