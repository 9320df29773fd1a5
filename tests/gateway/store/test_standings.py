"""What moves by itself is stored by kind and name, the newest alone."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from gateway.store import Store
from gateway.store.schema import migrations, tables
from gateway.store.standings import Stood, forget_standings, read_standing, read_standings, write_standings


def test_the_newest_body_of_a_name_is_what_is_stored(tmp_path: Path, store: str) -> None:
    async def story() -> None:
        opened = await Store.open(store, tmp_path)
        first: dict[str, dict[str, Any]] = {"b": {"step": 1}, "a": {"é": [None]}}
        for at_ms, bodies in ((1, first), (2, {"b": {"step": 2}})):
            async with opened.change() as connection:
                await write_standings(connection, "route", bodies, at_ms)
                await write_standings(connection, "trigger", {"b": {"of": "another kind"}}, at_ms)
        async with opened.read() as connection:
            found = await read_standings(connection, "route")
            assert list(found.items()) == [("a", Stood({"é": [None]}, 1)), ("b", Stood({"step": 2}, 2))]
            assert await read_standing(connection, "trigger", "b") == Stood({"of": "another kind"}, 2)
            assert await read_standing(connection, "slot", "b") is None
        async with opened.change() as connection:
            await forget_standings(connection, "route", ["b", "nobody"])
        async with opened.read() as connection:
            assert list(await read_standings(connection, "route")) == ["a"]
            assert list(await read_standings(connection, "trigger")) == ["b"]
        await opened.close()

    asyncio.run(story())


def test_a_database_without_standings_gets_them(tmp_path: Path, store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    number = next(number for number, step in migrations.STEPS.items() if "stand" in step.what)
    monkeypatch.setattr(migrations, "VERSION", number)

    async def story() -> dict[str, Stood]:
        older = await Store.open(store, tmp_path)
        async with older.begin() as connection:
            await connection.execute(text("DROP TABLE standings"))
            await connection.execute(tables.schema_version.update(), {"version": number - 1})
        await older.close()
        newer = await Store.open(store, tmp_path)
        async with newer.change() as connection:
            await write_standings(connection, "route", {"r": {"number": 1}}, 5)
            found = await read_standings(connection, "route")
        await newer.close()
        return found

    assert asyncio.run(story()) == {"r": Stood({"number": 1}, 5)}
