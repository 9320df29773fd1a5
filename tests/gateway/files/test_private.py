"""Only the user that Turnout runs as can read the files of a data directory."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from gateway.cli import run
from gateway.files.private import narrow
from tests.gateway.cli.running import write_config


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def older(data_dir: Path) -> Path:
    """Make a directory as earlier releases left it, with a file of another program in it."""
    (data_dir / "journal" / "feedback").mkdir(parents=True)
    files = ("turnout.db", "turnout.db-wal", "snapshot.json", "journal/feedback/a.jsonl", "supervisor.pid", "mine.toml")
    for name in files:
        (data_dir / name).write_text("")
    for path in (data_dir, *data_dir.rglob("*")):
        path.chmod(0o777 if path.is_dir() else 0o664)
    return data_dir


def test_what_older_releases_left_open_is_narrowed_and_nothing_else(tmp_path: Path) -> None:
    data_dir = older(tmp_path / "data")
    outside = tmp_path / "outside"
    outside.write_text("")
    outside.chmod(0o644)
    (data_dir / "turnout.db.lock").symlink_to(outside)
    assert narrow(data_dir) == []
    modes = {str(path.relative_to(data_dir)): mode(path) for path in data_dir.rglob("*") if not path.is_symlink()}
    assert modes.pop("mine.toml") == 0o664
    assert {name: oct(found) for name, found in modes.items() if found & 0o077} == {}
    assert (mode(data_dir), mode(data_dir / "journal"), mode(data_dir / "turnout.db")) == (0o700, 0o700, 0o600)
    assert mode(outside) == 0o644


def test_what_belongs_to_somebody_else_is_named_and_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mounted volume often does."""
    data_dir = older(tmp_path / "data")
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    left = narrow(data_dir)
    assert left[0] == str(data_dir)
    assert str(data_dir / "snapshot.json") in left
    assert mode(data_dir) == 0o777


def test_a_directory_for_everybody_is_left_for_everybody(tmp_path: Path) -> None:
    tmp_path.chmod(0o1777)
    assert narrow(tmp_path) == [str(tmp_path)]
    assert mode(tmp_path) == 0o1777


def test_commands_leave_nothing_open_either(tmp_path: Path) -> None:
    config = write_config(tmp_path)
    os.umask(0)
    assert run(["db", "migrate", "-c", str(config)]) == 0
    assert run(["assignment", "rotate", "-c", str(config)]) == 0
    made = [tmp_path / "data", *(tmp_path / "data").rglob("*")]
    assert len(made) > 2
    assert {str(path): oct(mode(path)) for path in made if mode(path) & 0o077} == {}
