"""freeze and unfreeze on the node: with nothing running, and with a file that is not valid any more."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest

from gateway.cli import run
from gateway.files.overrides import OVERRIDES, frozen, read_overrides
from gateway.files.published import SNAPSHOT, publish
from tests.router.builders import SMALL, snapshot_of


@pytest.fixture
def node(tmp_path: Path) -> Path:
    """A data directory in which nothing runs, with the configuration beside it."""
    config = f'[gateway]\ndata_dir = "{tmp_path}"\nadmin = "127.0.0.1:1"\n{SMALL}'
    (tmp_path / "turnout.toml").write_text(config)
    publish(tmp_path / SNAPSHOT, snapshot_of(config))
    return tmp_path


def turnout(node: Path, *arguments: str) -> int:
    return run([*arguments, "-c", str(node / "turnout.toml")])


def test_a_route_is_frozen_and_unfrozen_with_nothing_running(node: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert turnout(node, "freeze", "digits", "--to", "v2", "--why", "it lies") == 0
    assert "digits is frozen to v2" in capsys.readouterr().out
    [act] = read_overrides(node).values()
    assert (act.to, act.why, act.via, act.recorded) == ("v2", "it lies", "file", False)
    assert act.who.endswith("by the command line")
    assert turnout(node, "unfreeze", "digits") == 0
    assert frozen(read_overrides(node)) == {}
    assert turnout(node, "unfreeze", "digits") == 1
    assert "digits is not frozen" in capsys.readouterr().err


def test_explain_says_that_a_route_is_frozen(node: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert turnout(node, "explain", "digits", "--unit", "u1") == 0
    assert "frozen" not in capsys.readouterr().out
    assert turnout(node, "freeze", "digits", "--to", "v2") == 0
    capsys.readouterr()
    assert turnout(node, "explain", "digits", "--unit", "u1") == 0
    assert "every request goes to v2, until `turnout unfreeze`" in capsys.readouterr().out


def test_all_routes_are_frozen_to_their_baselines(node: Path) -> None:
    assert turnout(node, "freeze", "--all") == 0
    assert frozen(read_overrides(node)) == {"digits": "v1"}
    assert turnout(node, "unfreeze", "--all") == 0
    assert frozen(read_overrides(node)) == {}


def test_a_dry_run_says_what_would_happen_and_writes_nothing(node: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert turnout(node, "freeze", "digits", "--to", "v2", "--dry-run", "--json") == 0
    assert orjson.loads(capsys.readouterr().out)["frozen"] == {"digits": "v2"}
    assert not (node / OVERRIDES).exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("digits", "--to", "v3"), 'no variant is named "v3"'),
        (("digit", "--to", "v1"), 'did you mean "digits"'),
    ],
)
def test_what_is_not_there_is_refused(
    node: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], said: str
) -> None:
    assert turnout(node, "freeze", *arguments) == 1
    assert said in capsys.readouterr().err
    assert not (node / OVERRIDES).exists()


@pytest.mark.parametrize("arguments", [(), ("digits",), ("--all", "--to", "v1"), ("digits", "--all")])
def test_what_is_half_said_is_wrong_usage(node: Path, arguments: tuple[str, ...]) -> None:
    assert turnout(node, "freeze", *arguments) == 2


def test_a_configuration_that_is_not_valid_any_more_stops_nobody(node: Path) -> None:
    text = (node / "turnout.toml").read_text()
    (node / "turnout.toml").write_text(text + "\n[nonsense]\n")
    assert turnout(node, "freeze", "digits", "--to", "v2") == 0
    (node / "turnout.toml").write_text("[[[")
    assert turnout(node, "freeze", "digits", "--to", "v1") == 1
    assert turnout(node, "freeze", "digits", "--to", "v1", "--data-dir", str(node)) == 0
    assert frozen(read_overrides(node)) == {"digits": "v1"}


def test_where_no_gateway_runs_it_says_where_to_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["freeze", "--all", "--data-dir", str(tmp_path / "nowhere")]) == 1
    assert "so run it on the node" in capsys.readouterr().err
