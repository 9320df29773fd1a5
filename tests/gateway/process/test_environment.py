"""``turnout doctor`` names each problem with a hint, and then exits with 1."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import time
from pathlib import Path

import pytest

from gateway.cli import run
from gateway.cli.exits import PROBLEM
from gateway.compiled import build
from gateway.process import environment
from gateway.store import Store
from gateway.store.schema import migrations
from router.config.config import parse
from router.snapshot import Gateway
from tests.gateway.cli.running import write_config


def found(config: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, tuple[str, str]]]:
    """Run it; return the exit code, and for each observation its status and text."""
    code = run(["doctor", "--json", "-c", str(config)])
    answer = json.loads(capsys.readouterr().out)
    assert answer["ok"] == (code == 0)
    return code, {one["name"]: (one["status"], one["said"]) for one in answer["findings"]}


def test_a_machine_that_is_well_has_no_problem(tmp_path: Path, store: str, capsys: pytest.CaptureFixture[str]) -> None:
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    config = write_config(tmp_path, more=f'store = "{store}"\nmax_connections = {files // 2}')
    code, findings = found(config, capsys)
    assert code == 0, findings
    assert findings["store"] == ("ok", "no tables yet; serve makes them")
    assert run(["db", "migrate", "-c", str(config)]) == 0
    capsys.readouterr()
    code, findings = found(config, capsys)
    assert code == 0, findings
    assert findings["store"][1].startswith(f"schema version {migrations.VERSION}, ")
    assert {"build", "sqlite", "fsync", "clock", "open files"} <= set(findings)
    assert {"store", "assignment", "journal", "disk"} <= set(findings)


@pytest.fixture(autouse=True)
def _any_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Accept any fsync time: how fast and how busy this machine's disk is must not matter."""
    monkeypatch.setattr(environment, "TOO_SLOW_FSYNC_MS", float("inf"))


def test_people_get_a_line_each(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(["doctor", "-c", str(write_config(tmp_path))])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines if " ms, at worst " in line] in (["ok"], ["note"], ["problem"])


def test_nothing_is_left_or_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = write_config(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    run(["doctor", "-c", str(config)])
    assert sorted(tmp_path.rglob("*")) == before


def test_it_says_which_build_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, findings = found(write_config(tmp_path), capsys)
    assert findings["build"] == environment.build(build())[1:3]
    assert findings["build"][1].startswith(build())
    assert (environment.build("compiled").status, environment.build("interpreted").status) == ("ok", "note")


@pytest.mark.parametrize(
    ("version", "status"), [((3, 40, 1), "note"), ((3, 51, 2), "note"), ((3, 51, 3), "ok"), ((4, 0, 0), "ok")]
)
def test_the_wal_bug_is_told_of_those_that_have_it(version: tuple[int, ...], status: str) -> None:
    assert environment.sqlite(version, used=True).status == status
    assert environment.sqlite(version, used=False).status == "ok"


def test_a_store_that_cannot_be_reached_needs_a_hand(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = write_config(tmp_path, more='store = "postgresql://turnout@127.0.0.1:9/turnout"')
    code, findings = found(config, capsys)
    assert (code, findings["store"][0]) == (PROBLEM, "problem")


def test_a_newer_store_needs_a_hand(
    tmp_path: Path, store: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def make() -> None:
        await (await Store.open(store, tmp_path / "data")).close()

    asyncio.run(make())
    present = migrations.VERSION
    monkeypatch.setattr(migrations, "VERSION", 0)
    code, findings = found(write_config(tmp_path, more=f'store = "{store}"'), capsys)
    assert code == PROBLEM
    assert findings["store"] == ("problem", f"schema version {present}, this program speaks 0")


def test_a_clock_that_was_set_back_needs_a_hand(tmp_path: Path) -> None:
    (tmp_path / "snapshot.json").touch()
    assert environment.clock(tmp_path).status != "problem"
    os.utime(tmp_path / "snapshot.json", (time.time() + 600,) * 2)
    assert (environment.clock(tmp_path).status, "600 s behind" in environment.clock(tmp_path).said) == ("problem", True)


def test_too_few_open_files_and_a_full_journal_need_a_hand(tmp_path: Path) -> None:
    config = parse(write_config(tmp_path).read_text(), "turnout.toml")
    most = config.gateway.max_connections
    assert [environment.open_files(config, n).status for n in (1_024, most, 10**6)] == ["problem", "note", "ok"]
    gateway = Gateway(max_journal_bytes=1_000)
    assert [environment.journal(gateway, n).status for n in (0, 800, 801)] == ["ok", "ok", "problem"]


def test_a_folder_that_cannot_be_written_needs_a_hand() -> None:
    """No user can create a file there, not even root."""
    assert environment.fsync(Path("/proc/self")).status == "problem"
