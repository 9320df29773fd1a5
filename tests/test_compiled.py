"""What may be compiled is there, and is compiled exactly where somebody asked for it."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import tomllib
from importlib.machinery import EXTENSION_SUFFIXES
from importlib.util import find_spec
from pathlib import Path

import pytest

from gateway.compiled import is_compiled
from policies.chance import chance

ROOT = Path(__file__).parent.parent
WHEEL = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
MODULES = [path.removesuffix(".py").replace("/", ".") for path in WHEEL["hooks"]["custom"]["modules"]]


@pytest.mark.parametrize("module", MODULES)
def test_every_module_of_the_list_is_as_the_installation_says(module: str) -> None:
    assert importlib.import_module(module).__file__ is not None
    spec = find_spec(module)
    assert spec is not None
    assert spec.origin is not None
    assert spec.origin.endswith(tuple(EXTENSION_SUFFIXES)) == is_compiled()


def test_what_was_to_be_compiled_is() -> None:
    """``make fast`` tests what it built: a build that fell back to Python must not pass for one that did not."""
    assert is_compiled() == (os.environ.get("TURNOUT_COMPILE") == "1")


def test_nothing_compiled_lies_among_the_sources() -> None:
    """It would be imported in place of the source beside it, whatever became of that."""
    assert [path for package in WHEEL["packages"] for path in (ROOT / package).rglob("*.so")] == []


def test_chance_is_the_same_number_compiled_or_not() -> None:
    """Workers of both kinds may share a data directory: a user must not flicker between them."""
    assert chance("checkout", "user-1", "v2") == 0.5187375222956434


@pytest.mark.interpreted
def test_a_wheel_is_pure_unless_asked_otherwise(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(tmp_path)]
    calm = {name: value for name, value in os.environ.items() if name != "TURNOUT_COMPILE"}
    subprocess.run(build, cwd=ROOT, env=calm, check=True, capture_output=True, timeout=60)
    assert [wheel.name.endswith("-py3-none-any.whl") for wheel in tmp_path.iterdir()] == [True]
