"""A token is stored by its hash, is valid until it expires or is revoked, and its making and end are in the log."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from gateway.store import Store, audit, tokens
from gateway.store.schema import migrations
from gateway.store.tokens import MadeToken, TokenRefused
from router.settings.tokens import NamedToken, hashed, valid

NOW = 1_800_000_000_000


def in_store(where: str, path: Path, story: Callable[[Store], Awaitable[None]]) -> None:
    async def run() -> None:
        opened = await Store.open(where, path)
        try:
            await story(opened)
        finally:
            await opened.close()

    asyncio.run(run())


async def create(store: Store, name: str = "ci", **more: Any) -> MadeToken:
    given = {"scope": "read", "expires_ms": None, "who": "ana", "via": "api", "now_ms": NOW} | more
    async with store.begin() as connection:
        return await tokens.create(connection, name=name, **given)


async def revoke(store: Store, name: str) -> None:
    async with store.begin() as connection:
        await tokens.revoke(connection, name, who="bo", via="cli", now_ms=NOW + 1)


async def in_force(store: Store, now_ms: int = NOW) -> tuple[NamedToken, ...]:
    async with store.read() as connection:
        return await tokens.in_force(connection, now_ms)


def test_a_token_is_valid_from_its_making_to_its_end(tmp_path: Path, store: str) -> None:
    async def story(opened: Store) -> None:
        ci, web = await create(opened), await create(opened, "web", scope="feedback", expires_ms=NOW + 10)
        assert [one.name for one in await in_force(opened)] == ["ci", "web"]
        assert [one.name for one in await in_force(opened, NOW + 10)] == ["ci"]
        known = await in_force(opened)
        given = [valid(known, made.token.encode(), NOW) for made in (ci, web)]
        assert [one.scope if one else None for one in given] == ["read", "feedback"]
        assert valid(known, web.token.encode(), NOW + 10) is None
        assert valid(known, ci.token[:-1].encode(), NOW) is None
        assert valid(known, ci.row.sha256.encode(), NOW) is None
        await revoke(opened, "ci")
        assert [one.name for one in await in_force(opened)] == ["web"]
        again = await create(opened)  # the name is free, and the token is another
        assert again.token != ci.token
        async with opened.read() as connection:
            states = [(one.name, one.shown(NOW + 20)["state"]) for one in await tokens.listed(connection)]
            acts = [(one.act, one.who, one.changed) for one in reversed(await audit.listed(connection))]
            assert (await audit.verify(connection)).wrong is None
        assert sorted(states) == [("ci", "revoked"), ("ci", "valid"), ("web", "expired")]
        assert [(act, who) for act, who, _ in acts] == [
            *[("token_created", "ana")] * 2,
            ("token_revoked", "bo"),
            ("token_created", "ana"),
        ]
        assert acts[2][2] == f'token "ci" ({ci.row.prefix}…) of scope read'

    in_store(store, tmp_path, story)


def test_a_token_is_in_no_file(tmp_path: Path) -> None:
    made: list[MadeToken] = []

    async def story(opened: Store) -> None:
        made.append(await create(opened))
        await opened.make_durable()

    in_store("sqlite", tmp_path, story)
    secret = made[0].token.removeprefix(made[0].row.prefix).encode()
    assert len(secret) == 40
    for file in tmp_path.iterdir():
        assert secret not in file.read_bytes()
    assert made[0].row.sha256 == hashed(made[0].token.encode())


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"name": ""}, "the name must begin"),
        ({"name": "a b"}, "the name must begin"),
        ({"name": "a" * 65}, "64 at most"),
        ({"name": "x" * 8_192}, "8,192 characters"),
        ({"name": "a\0"}, "the name must begin"),
        ({"name": "é"}, "the name must begin"),
        ({"name": "ci\n"}, "the name must begin"),
        ({"scope": "root"}, "one of feedback, read, operate, admin"),
        ({"expires_ms": NOW}, "in the future"),
        ({"expires_ms": 2**62}, "before 2100"),
        ({"name": "taken"}, 'there is a token "taken" already'),
    ],
)
def test_what_cannot_be_a_token_is_named(tmp_path: Path, given: dict[str, Any], said: str) -> None:
    async def story(opened: Store) -> None:
        await create(opened, "taken")
        with pytest.raises(TokenRefused, match=said):
            await create(opened, **given)
        with pytest.raises(TokenRefused, match='no token is named "take"; did you mean "taken"'):
            await revoke(opened, "take")
        assert len(await in_force(opened)) == 1

    in_store("sqlite", tmp_path, story)


def test_there_are_not_too_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "MOST", 2)

    async def story(opened: Store) -> None:
        await create(opened, "a")
        await create(opened, "b")
        with pytest.raises(TokenRefused, match="revoke one first"):
            await create(opened, "c")
        await revoke(opened, "a")
        await create(opened, "c")

    in_store("sqlite", tmp_path, story)


def test_the_last_use_is_known_to_the_minute_and_never_goes_back(tmp_path: Path, store: str) -> None:
    async def story(opened: Store) -> None:
        await create(opened)
        for at_ms in (NOW + 59_999, NOW + 125_000, NOW + 61_000):
            async with opened.begin() as connection:
                await tokens.note_used(connection, {"ci": at_ms, "nosuch": at_ms})
        async with opened.read() as connection:
            (found,) = await tokens.listed(connection)
        assert found.used_ms == NOW + 120_000

    in_store(store, tmp_path, story)


def test_a_store_of_before_gets_the_table(tmp_path: Path, store: str) -> None:
    number = next(number for number, step in migrations.STEPS.items() if step.what == "keep named tokens")

    async def story(opened: Store) -> None:
        async with opened.begin() as connection:
            await connection.execute(text("DROP TABLE tokens"))
            for statement in getattr(migrations.STEPS[number], connection.dialect.name):
                await connection.execute(text(statement))
        await create(opened)
        assert len(await in_force(opened)) == 1

    in_store(store, tmp_path, story)
