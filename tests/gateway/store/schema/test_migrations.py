"""Tables of a known version are made, migrated or refused, by one process at a time."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import select, text

from gateway.cli import run
from gateway.cli.exits import PROBLEM
from gateway.store import LoggedEvent, Store, StoreError
from gateway.store.counts import plans, tallies
from gateway.store.counts.deltas import Deltas, Sign
from gateway.store.counts.ledger import Seen
from gateway.store.inspect import inspect_store
from gateway.store.schema import migrations, tables
from gateway.store.schema.migrations import Migrated, Step
from tests.gateway.cli.running import write_config

#: The next version, as a later program may have it: running its step twice would fail.
NEXT = migrations.VERSION + 1
ADDED = "ALTER TABLE numbers ADD COLUMN added TEXT"
STEPS = {NEXT: Step("add a column", [ADDED], [ADDED, "CREATE INDEX numbers_added ON numbers (added)"])}

#: A program of that version, which takes its command from its arguments.
PROGRAM = f"""
import sys
from gateway.store.schema import migrations
migrations.VERSION, migrations.STEPS = {NEXT}, {{{NEXT}: migrations.Step("add a column", ["{ADDED}"], ["{ADDED}"])}}
from gateway.cli import run
sys.exit(run(sys.argv[1:]))
"""


def opened(where: str, path: Path) -> Migrated:
    async def run() -> Migrated:
        store = await Store.open(where, path)
        await store.close()
        return store.migrated

    return asyncio.run(run())


def column_added(where: str, path: Path) -> bool:
    async def run() -> bool:
        store = await Store.open(where, path)
        try:
            async with store.begin() as connection:
                assert (await connection.execute(text("SELECT added FROM numbers"))).all() == []
                version = await connection.execute(select(tables.schema_version.c.version))
                return bool(version.scalar_one() == NEXT)
        finally:
            await store.close()

    return asyncio.run(run())


def next_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(migrations, "STEPS", STEPS)
    monkeypatch.setattr(migrations, "VERSION", NEXT)


def test_each_version_after_the_first_has_its_step() -> None:
    assert set(migrations.STEPS) == set(range(2, migrations.VERSION + 1))


def test_tables_are_made_once(tmp_path: Path, store: str) -> None:
    assert opened(store, tmp_path) == Migrated(None, migrations.VERSION)
    assert opened(store, tmp_path) == Migrated(migrations.VERSION, migrations.VERSION)


def test_an_older_schema_is_upgraded_by_the_steps(tmp_path: Path, store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    opened(store, tmp_path)
    next_version(monkeypatch)
    assert opened(store, tmp_path) == Migrated(migrations.VERSION - 1, NEXT)
    assert column_added(store, tmp_path)


def test_a_database_without_signs_gets_them(tmp_path: Path, store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A database of the first version keeps its log of events, and signs are counted from now on."""
    number = next(number for number, step in migrations.STEPS.items() if "signs" in step.what)

    async def story() -> tuple[Migrated, list[LoggedEvent]]:
        older = await Store.open(store, tmp_path)
        async with older.begin() as connection:
            await plans.write_events(connection, [LoggedEvent(1, "config_reloaded", None, "before")])
            for statement in ("DROP TABLE signs", "ALTER TABLE events DROP COLUMN more"):
                await connection.execute(text(statement))
            await connection.execute(tables.schema_version.update(), {"version": number - 1})
        await older.close()
        monkeypatch.setattr(migrations, "VERSION", number)
        newer = await Store.open(store, tmp_path)
        deltas = Deltas()
        deltas.sign(Sign("r", "e", "a", "primary", "failed"), 3, 5)
        async with newer.begin() as connection:
            await tallies.apply(connection, deltas, tallies.TallyCache())
        seen = (await newer.ledger("r", "e")).signs
        assert seen == {("a", "primary", "failed"): Seen(3, 5, 5)}
        happened = await newer.events()
        await newer.close()
        return newer.migrated, happened

    migrated, happened = asyncio.run(story())
    assert migrated == Migrated(number - 1, number)
    assert [one.detail for one in happened] == ["before"]


def test_a_step_that_fails_leaves_the_version_before(
    tmp_path: Path, store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened(store, tmp_path)
    wrong = [ADDED, "ALTER TABLE nobody ADD COLUMN added TEXT"]
    with monkeypatch.context() as newer:
        newer.setattr(migrations, "STEPS", {NEXT: Step("go wrong", wrong, wrong)})
        newer.setattr(migrations, "VERSION", NEXT)
        with pytest.raises(StoreError, match="nobody"):
            opened(store, tmp_path)
    assert opened(store, tmp_path) == Migrated(migrations.VERSION, migrations.VERSION)
    next_version(monkeypatch)
    assert column_added(store, tmp_path)


def test_a_newer_schema_is_refused_and_left_alone(tmp_path: Path, store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as newer:
        next_version(newer)
        opened(store, tmp_path)
    with pytest.raises(StoreError, match=f"schema version {NEXT}; this program knows versions up to"):
        opened(store, tmp_path)
    assert asyncio.run(inspect_store(store, tmp_path)).version == NEXT


def test_processes_that_migrate_at_once_do_it_once(tmp_path: Path, store: str) -> None:
    config = write_config(tmp_path, more=f'store = "{store}"')
    opened(store, tmp_path / "data")
    command = [sys.executable, "-c", PROGRAM, "db", "migrate", "-c", str(config)]
    started = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path)
        for _ in range(3)
    ]
    ended = [(process.communicate(timeout=60), process.returncode) for process in started]
    said = [out for (out, _), code in ended if code == 0]
    assert sum("brought from" in out for out in said) == 1, ended
    if store == "sqlite":  # a process that starts while another has the file open says so
        assert all("another controller" in err for (_, err), code in ended if code)
    else:
        assert len(said) == 3, ended


def test_the_command_line_says_how_the_tables_stand(
    tmp_path: Path, store: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = str(write_config(tmp_path, more=f'store = "{store}"'))

    def status() -> tuple[int, str, list[int]]:
        code = run(["db", "status", "--json", "-c", config])
        found = json.loads(capsys.readouterr().out)
        return code, found["state"], [step["version"] for step in found["steps"]]

    monkeypatch.chdir(tmp_path)
    assert status() == (PROBLEM, "empty", [migrations.VERSION])
    assert run(["db", "migrate", "-c", config]) == 0
    assert "made" in capsys.readouterr().out
    assert status() == (0, "current", [])
    with monkeypatch.context() as newer:
        next_version(newer)
        assert status() == (PROBLEM, "behind", [NEXT])
        assert run(["db", "migrate", "-c", config]) == 0
        assert f"brought from {NEXT - 1} up" in capsys.readouterr().out
    assert status() == (PROBLEM, "newer", [])
    assert run(["db", "migrate", "-c", config]) == PROBLEM
    assert "run the newer program" in capsys.readouterr().err
    assert run(["db", "status", "-c", config]) == PROBLEM
    assert "run the newer program" in capsys.readouterr().out


def test_status_looks_beside_a_store_that_is_open(tmp_path: Path, new_store: Callable[[], str]) -> None:
    where = new_store()

    async def story() -> None:
        store = await Store.open(where, tmp_path)
        try:
            async with store.begin():
                found = await inspect_store(where, tmp_path)
            assert (found.state, found.size_bytes > 0) == ("current", True)
        finally:
            await store.close()

    asyncio.run(story())


def test_a_store_that_cannot_be_reached_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = write_config(tmp_path, more='store = "postgresql://turnout@127.0.0.1:9/turnout"')
    for command in ("status", "migrate"):
        assert run(["db", command, "-c", str(config)]) == PROBLEM
        assert capsys.readouterr().err.startswith("turnout: error: the store cannot be")
