"""report: the admin port's reports as tables and as JSON, and the error when no admin port answers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from rich.console import Console

from gateway.cli import run
from gateway.cli.exits import PROBLEM
from gateway.cli.remote.report import reachable
from gateway.cli.report_tables import of_route
from gateway.report import report
from tests.gateway.admin.fake import Control, control
from tests.gateway.admin.samples import filled_control
from tests.gateway.cli.running import admin_port, turnout, write_config
from tests.ports import free_port


def asked(fake: Control, folder: Path, *arguments: str, more: str = "") -> int:
    with admin_port(fake) as address:
        return run(["report", *arguments, "-c", str(write_config(folder, admin=address, more=more))])


def test_all_routes_are_shown_with_their_sentences(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert asked(control(), tmp_path) == 0
    text = capsys.readouterr().out
    assert "new gets 15.0 points more right than old" in text
    assert "Of the 60 users with a preference by click, 67% prefer new over old" in text or "search" in text
    assert "70.0%" in text
    assert "2,000 joined · 3 waiting" in text


def test_one_route_can_be_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert asked(control(), tmp_path, "digits") == 0
    text = capsys.readouterr().out
    assert "digits" in text
    assert "shadowed" not in text


def test_as_json_it_is_the_answer_of_the_api(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fake = control()
    assert asked(fake, tmp_path, "digits", "--json") == 0
    assert json.loads(capsys.readouterr().out) == report(fake.snapshot, fake.books["digits"])
    assert asked(fake, tmp_path, "--json") == 0
    assert [one["route"] for one in json.loads(capsys.readouterr().out)["routes"]] == ["digits", "shadowed", "search"]


def test_a_pipe_gets_plain_rows(tmp_path: Path) -> None:
    with admin_port(control()) as address:
        write_config(tmp_path, admin=address)
        text = turnout("report", cwd=tmp_path).stdout
    assert "\x1b" not in text
    assert not set("─│┌╭━┃") & set(text)
    assert all(line == line.rstrip() or len(line) < 160 for line in text.splitlines())


@pytest.mark.parametrize("width", [100, 80])
def test_every_table_fits_a_terminal(width: int) -> None:
    fake = filled_control()
    for ledger in fake.books.values():
        console = Console(width=width, force_terminal=True, color_system=None, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
        with console.file:
            console.print(of_route(report(fake.snapshot, ledger)))
            text = console.export_text()
        assert "…" not in text
        assert max(map(len, text.splitlines())) <= width


def test_a_gateway_that_does_not_run_is_said_with_what_would_help(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    free = free_port()
    path = write_config(tmp_path, admin=f"127.0.0.1:{free}")
    assert run(["report", "-c", str(path)]) == PROBLEM
    said = capsys.readouterr()
    assert said.out == ""
    assert f"turnout: error: the admin port at http://127.0.0.1:{free} cannot be reached" in said.err
    assert f"turnout serve -c {path}" in said.err


def test_a_port_that_only_the_gateway_knows_cannot_be_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["report", "-c", str(write_config(tmp_path, admin="127.0.0.1:0"))]) == PROBLEM
    assert 'gateway.admin is "127.0.0.1:0", any free port' in capsys.readouterr().err


def test_the_token_comes_from_its_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    token = tmp_path / "token"
    token.write_text("s3cret\n")
    fake = control(admin_token_file=str(token))
    more = f'admin_token_file = "{token}"'
    assert asked(fake, tmp_path, "digits", more=more) == 0
    assert asked(fake, tmp_path, "digits") == PROBLEM
    assert "the admin port wants a token" in capsys.readouterr().err
    other = tmp_path / "other"
    other.write_text("guess")
    assert asked(fake, tmp_path, "digits", more=f'admin_token_file = "{other}"') == PROBLEM
    assert "does not take the token" in capsys.readouterr().err


def test_a_token_file_that_cannot_be_read_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert asked(control(), tmp_path, more='admin_token_file = "/nowhere/token"') == PROBLEM
    assert "no admin token: /nowhere/token cannot be read: No such file or directory" in capsys.readouterr().err


def test_what_the_admin_port_refuses_is_said_in_its_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fake = control()
    assert asked(fake, tmp_path, "digit") == PROBLEM
    assert 'no route is named "digit"; did you mean "digits"?' in capsys.readouterr().err
    fake.store_ready = False
    assert asked(fake, tmp_path) == PROBLEM
    assert "traffic goes on" in capsys.readouterr().err


def test_a_file_that_is_not_valid_names_no_port_to_ask(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "turnout.toml"
    path.write_text("[gateway]\nadmin = 5\n")
    assert run(["report", "-c", str(path)]) == PROBLEM
    said = capsys.readouterr()
    assert said.out == ""
    assert f"{path}:2:9: error: gateway.admin" in said.err


def test_an_address_that_means_every_interface_is_asked_on_loopback() -> None:
    assert reachable("0.0.0.0:9090") == "127.0.0.1:9090"
    assert reachable("[::]:9090") == "[::1]:9090"
    assert reachable("10.0.0.7:9090") == "10.0.0.7:9090"
