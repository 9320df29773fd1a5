"""The command as a whole: help, exit codes, options, and how errors end it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from importlib.abc import MetaPathFinder
from pathlib import Path

import pytest

from gateway.cli import commands, exits, run
from tests.gateway.cli.running import turnout, write_config

COMMANDS = (
    "serve",
    "check",
    "doctor",
    "demo",
    "report",
    "events",
    "explain",
    "backup",
    "restore",
    "schema",
    "dashboards",
    "journal",
    "db",
    "audit",
    "token",
)
HEAVY = (
    "numpy",
    "scipy",
    "pydantic",
    "sqlalchemy",
    "starlette",
    "uvicorn",
    "httpx",
    "prometheus_client",
    "jinja2",
    "orjson",
)


def test_help_names_every_command_and_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--help"]) == 0
    text = capsys.readouterr().out
    for command in COMMANDS:
        assert re.search(rf"^  {command}\s", text, re.MULTILINE)
    assert "..." not in text.split("Commands:")[1], "a command's first sentence does not fit"
    for code in ("0", "1", "2", "69", "78", "130"):
        assert re.search(rf"\b{code}\b", text)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([command, "--help"]) == 0
    assert f"turnout {command}" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], ["--version"]])
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    """Shells run the command at every press of TAB, so help must be quick."""
    code = f"import sys; from gateway.cli import run; run({arguments!r}); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert set(HEAVY) & set(done.stdout.splitlines()[-1].split()) == set()


def test_the_version_is_that_of_the_distribution(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0
    assert re.fullmatch(r"turnout \d+\.\d+\.\d+\S*\n", capsys.readouterr().out)


@pytest.mark.parametrize(
    "arguments", [["nothing"], ["--nothing"], ["check", "extra"], ["explain"], ["demo", "--for", "soon"]]
)
def test_wrong_usage_leaves_with_two_and_says_what_is_wrong(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments) == exits.USAGE
    said = capsys.readouterr()
    assert said.out == ""
    assert "Error" in said.err


def test_a_command_nearly_spelled_is_suggested(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["chek"]) == exits.USAGE
    assert "Did you mean 'check'" in capsys.readouterr().err


@pytest.mark.parametrize("before", [True, False])
def test_the_configuration_is_named_before_or_after_the_command(
    before: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(write_config(tmp_path))
    assert run(["-c", path, "check"] if before else ["check", "-c", path]) == 0
    assert capsys.readouterr().out.startswith(f"{path}: valid")


def test_the_configuration_after_the_command_counts(tmp_path: Path) -> None:
    assert run(["-c", str(tmp_path / "missing.toml"), "check", "-c", str(write_config(tmp_path))]) == 0


def test_without_a_name_the_configuration_is_turnout_toml(tmp_path: Path) -> None:
    write_config(tmp_path)
    assert turnout("check", cwd=tmp_path).stdout.startswith("turnout.toml: valid")


def test_a_fault_of_our_own_is_one_line_and_never_a_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(**_: object) -> None:
        raise RuntimeError("the\nflux is gone")

    monkeypatch.delenv("TURNOUT_DEBUG", raising=False)
    monkeypatch.setattr(commands, "app", broken)
    assert run(["check"]) == exits.PROBLEM
    said = capsys.readouterr().err
    assert said.startswith("turnout: error: RuntimeError: the flux is gone\n")
    assert "Traceback" not in said


def test_an_interruption_is_quiet_and_leaves_with_130(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(**_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(commands, "app", interrupted)
    assert run(["check"]) == exits.INTERRUPTED
    assert capsys.readouterr().err == ""


def test_an_interruption_while_it_is_still_loading_is_quiet_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Interrupted(MetaPathFinder):
        def find_spec(self, fullname: str, path: object, target: object = None) -> None:
            if fullname == "gateway.cli.commands":
                raise KeyboardInterrupt

    monkeypatch.delitem(sys.modules, "gateway.cli.commands")
    monkeypatch.setattr(sys, "meta_path", [Interrupted(), *sys.meta_path])
    assert run(["check"]) == exits.INTERRUPTED
    assert capsys.readouterr().err == ""


def test_ctrl_c_while_a_command_waits_leaves_with_130(tmp_path: Path) -> None:
    """The admin port accepts connections and never answers."""
    import socket

    with socket.create_server(("127.0.0.1", 0)) as mute:
        write_config(tmp_path, admin=f"127.0.0.1:{mute.getsockname()[1]}")
        command = [sys.executable, "-c", "from gateway.cli import main; main()", "report"]
        process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        mute.settimeout(30)
        connection, _ = mute.accept()
        with connection:
            time.sleep(0.1)
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (130, "")
    assert "Traceback" not in err


def test_a_reader_that_leaves_early_is_no_news(tmp_path: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    try:
        done = turnout("schema", cwd=tmp_path, capture_output=False, stdout=write, stderr=subprocess.PIPE)
    finally:
        os.close(write)
    assert done.stderr == ""


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize("arguments", ["check", "schema", "explain --route digits --unit u1"])
def test_a_stream_that_was_closed_beforehand_changes_nothing(arguments: str, closed: str, tmp_path: Path) -> None:
    """Scripts that need only the exit code close stdout."""
    write_config(tmp_path)
    command = f'exec "{sys.executable}" -m gateway.cli {arguments} {closed}'
    done = subprocess.run(["/bin/sh", "-c", command], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("arguments", [["check"], ["schema"], ["--help"]])
def test_output_that_cannot_be_written_is_said_in_a_line(arguments: list[str], tmp_path: Path) -> None:
    write_config(tmp_path)
    with open("/dev/full", "wb") as full:
        done = turnout(*arguments, cwd=tmp_path, capture_output=False, stdout=full, stderr=subprocess.PIPE)
    assert (done.returncode, done.stderr) == (exits.PROBLEM, "turnout: error: No space left on device\n")


def test_colours_are_for_terminals(tmp_path: Path) -> None:
    (tmp_path / "turnout.toml").write_text("[gateway]\nlisten = 5\n")
    assert "\x1b" not in turnout("check", cwd=tmp_path).stdout
    assert "\x1b" in turnout("check", cwd=tmp_path, environ={"FORCE_COLOR": "1"}).stdout


@pytest.mark.parametrize(
    ("environ", "coloured"), [({"TERM": "xterm"}, True), ({"TERM": "xterm", "NO_COLOR": "1"}, False)]
)
def test_no_color_is_honoured_on_a_terminal(environ: dict[str, str], coloured: bool, tmp_path: Path) -> None:
    (tmp_path / "turnout.toml").write_text("[gateway]\nlisten = 5\n")
    controller, terminal = os.openpty()
    try:
        turnout("check", cwd=tmp_path, environ=environ, capture_output=False, stdout=terminal, stderr=terminal)
        shown = os.read(controller, 65536).decode()
    finally:
        os.close(controller)
        os.close(terminal)
    assert "error:" in shown
    assert bool(re.search(r"\x1b\[[0-9;]*3[13]m", shown)) == coloured


@pytest.mark.parametrize(
    "arguments",
    [
        ("report", "\udcff"),
        ("report", "r", "--epoch", "\udcff"),
        ("explain", "\udcff", "--unit", "u"),
        ("feedback", "orphans", "--route", "\udcff"),
        ("privacy", "erase", "--unit", "\udcff"),
    ],
)
def test_an_argument_that_is_not_utf_8_is_called_that_and_no_fault_of_ours(
    arguments: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_config(tmp_path)
    assert run([*arguments, "-c", str(config)]) in (1, 2)
    assert "fault of turnout" not in capsys.readouterr().err
