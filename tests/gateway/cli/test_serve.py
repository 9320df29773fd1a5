"""serve and demo: the command line passes its options on, and exits with the code that is returned."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import gateway.demo
import gateway.process.supervisor
from gateway.cli import run
from gateway.cli.exits import USAGE
from tests.gateway.cli.running import turnout


def test_a_configuration_that_cannot_be_used_is_not_served(tmp_path: Path) -> None:
    """78 is EX_CONFIG: a service manager need not try again before the file is changed."""
    (tmp_path / "turnout.toml").write_text("[gateway]\nlisten = 5\n")
    done = turnout("serve", cwd=tmp_path)
    assert done.returncode == 78
    assert "turnout.toml:2:10: error: gateway.listen" in done.stderr
    assert "Traceback" not in done.stderr


def test_serve_leaves_with_the_code_of_the_supervisor(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Path] = []

    def serve(path: Path) -> int:
        asked.append(path)
        return 69

    monkeypatch.setattr(gateway.process.supervisor, "serve", serve)
    assert run(["serve", "-c", "some.toml"]) == 69
    assert asked == [Path("some.toml")]


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    calls: list[tuple[Any, ...]] = []

    def demo(seconds: float, rate: float, *, seed: int | None, json_file: Path | None, whole_loop: bool) -> int:
        calls.append((seconds, rate, seed, json_file, whole_loop))
        return 0

    monkeypatch.setattr(gateway.demo, "run", demo)
    return calls


def test_a_demo_takes_what_the_demo_takes_for_granted(shown: list[tuple[Any, ...]]) -> None:
    assert run(["demo"]) == 0
    assert shown == [(gateway.demo.DEFAULT_SECONDS, gateway.demo.DEFAULT_RATE, None, None, False)]


@pytest.mark.parametrize(
    ("text", "seconds"), [("60s", 60.0), ("1.5m", 90.0), ("500ms", 0.5), ("1h", 3600.0), ("20", 20.0)]
)
def test_a_duration_is_a_number_and_a_unit(text: str, seconds: float, shown: list[tuple[Any, ...]]) -> None:
    assert run(["demo", "--for", text, "--rate", "50", "--seed", "3", "--json-file", "out.json"]) == 0
    assert shown == [(seconds, 50.0, 3, Path("out.json"), False)]


@pytest.mark.parametrize("text", ["soon", "", "0s", "-5s", "5 parsecs", "nans", "inf", "1e999s"])
def test_what_is_no_duration_is_wrong_usage(
    text: str, shown: list[tuple[Any, ...]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["demo", f"--for={text}"]) == USAGE
    assert "write it as 60s, 5m or 1h" in capsys.readouterr().err
    assert shown == []
