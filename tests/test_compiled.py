"""The wheel is compiled where a C compiler is, says so where it is not, and a source tree never is."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from importlib.machinery import EXTENSION_SUFFIXES
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from gateway.compiled import build
from policies.chance import chance

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
WHEEL = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]
MODULES = [path.removesuffix(".py").replace("/", ".") for path in WHEEL["hooks"]["custom"]["modules"]]


@pytest.mark.parametrize("module", MODULES)
def test_every_module_of_the_list_is_as_the_installation_says(module: str) -> None:
    assert importlib.import_module(module).__file__ is not None
    spec = find_spec(module)
    assert spec is not None
    assert spec.origin is not None
    assert spec.origin.endswith(tuple(EXTENSION_SUFFIXES)) == (build() == "compiled")


def test_what_was_to_be_compiled_is() -> None:
    """``make fast`` tests what it built: a build that fell back to Python must not pass for one that did not."""
    assert build() == ("compiled" if os.environ.get("TURNOUT_COMPILE") == "1" else "interpreted")


def test_nothing_compiled_lies_among_the_sources() -> None:
    """It would be imported in place of the source beside it, even after an edit of the source."""
    assert [path for package in WHEEL["packages"] for path in (ROOT / package).rglob("*.so")] == []


def test_chance_is_the_same_number_compiled_or_not() -> None:
    """Workers of both kinds may share a data directory: a user must not flicker between them."""
    assert chance("checkout", "user-1", "v2") == 0.5187375222956434


@pytest.fixture
def hook() -> ModuleType:
    """The build's own module; where the compiled wheel is tested it is not there."""
    spec = spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The environment of a machine that has a compiler and headers."""
    compiler = tmp_path / "cc"
    compiler.touch(0o755)
    (tmp_path / "Python.h").touch()
    monkeypatch.setattr(sysconfig, "get_path", lambda _: str(tmp_path))
    return {"PATH": str(tmp_path), "CC": "cc -pthread"}


@pytest.mark.interpreted
def test_it_compiles_wherever_a_compiler_and_headers_are(
    hook: ModuleType, machine: dict[str, str], tmp_path: Path
) -> None:
    assert hook.hindrance(machine) is None
    assert hook.hindrance({**machine, "TURNOUT_COMPILE": ""}) is None
    assert hook.hindrance({**machine, "CC": "no-such-compiler"}) == 'there is no C compiler "no-such-compiler"'
    assert hook.hindrance({**machine, "TURNOUT_COMPILE": "0"}) == "TURNOUT_COMPILE=0"
    (tmp_path / "Python.h").unlink()
    assert "Python.h" in hook.hindrance(machine)
    assert hook.hindrance({**machine, "TURNOUT_COMPILE": "1"}) is None  # so the build fails
    with pytest.raises(ValueError, match='must be 0 or 1, got "yes"'):
        hook.hindrance({"TURNOUT_COMPILE": "yes"})


def started(hook: ModuleType, version: str = "standard") -> dict[str, Any]:
    """Begin a build; return its build data."""
    table = {"modules": ["gateway/journal/seal.py"]}
    data: dict[str, Any] = {"pure_python": True, "force_include": {}}
    building = hook.Compiling(str(ROOT), table, None, None, "", "wheel")
    building.initialize(version, data)
    building.finalize(version, data, "")
    return data


@pytest.mark.interpreted
@pytest.mark.parametrize("error", [SystemExit("a type that does not fit"), OSError("cc: no space left")])
def test_a_compiler_that_fails_gives_pure_python_aloud_unless_compiled_was_asked_for(
    hook: ModuleType,
    machine: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(hook, "compiled", fail)
    for name, value in machine.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("TURNOUT_COMPILE", "")
    assert started(hook)["pure_python"]
    said = capsys.readouterr().err
    assert f"this wheel is pure Python and needs more CPU per request: compiling failed: {error}" in said
    monkeypatch.setenv("TURNOUT_COMPILE", "1")
    with pytest.raises(type(error)):
        started(hook)


@pytest.mark.interpreted
def test_what_is_compiled_makes_the_wheel_one_of_this_machine(
    hook: ModuleType, machine: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hook, "compiled", lambda root, modules, folder: {"gateway/seal.so": folder / "seal.so"})
    monkeypatch.setenv("TURNOUT_COMPILE", "1")
    data = started(hook)
    assert (data["pure_python"], data["infer_tag"]) == (False, True)
    assert [*data["force_include"].values()] == ["gateway/seal.so"]
    assert started(hook, "editable")["pure_python"], "a source tree is never compiled"


@pytest.mark.interpreted
def test_an_isolated_build_gets_the_compiler_only_where_it_is_of_use(
    hook: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    building = hook.Compiling(str(ROOT), {}, None, None, "", "wheel")
    monkeypatch.setenv("TURNOUT_COMPILE", "1")
    assert any(one.startswith("mypy[mypyc]") for one in building.dependencies())
    monkeypatch.setenv("TURNOUT_COMPILE", "0")
    assert building.dependencies() == []


@pytest.mark.interpreted
def test_a_wheel_without_a_compiler_is_pure_and_says_why_and_the_sources_make_the_same(tmp_path: Path) -> None:
    environment = {**os.environ, "CC": "no-such-compiler", "TURNOUT_COMPILE": ""}

    def made(target: str, root: Path) -> tuple[Path, str]:
        folder = tmp_path / f"{target} of {root.name}"
        command = [sys.executable, "-m", "hatchling", "build", "--target", target, "--directory", str(folder)]
        said = subprocess.run(
            command, cwd=root, env=environment, check=True, capture_output=True, text=True, timeout=60
        ).stderr
        (file,) = folder.iterdir()
        return file, said

    wheel, said = made("wheel", ROOT)
    assert wheel.name.endswith("-py3-none-any.whl")
    assert 'this wheel is pure Python and needs more CPU per request: there is no C compiler "no-such-compiler"' in said
    with tarfile.open(made("sdist", ROOT)[0]) as sources:
        sources.extractall(tmp_path, filter="data")
    (unpacked,) = tmp_path.glob("turnout-*")
    assert contents(made("wheel", unpacked)[0]) == contents(wheel)
    assert {*WHEEL["hooks"]["custom"]["modules"]} <= {*contents(wheel)}


def contents(wheel: Path) -> dict[str, int]:
    """The checksum of every file of a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        return {one.filename: one.CRC for one in archive.infolist()}


def test_a_release_has_a_compiled_wheel_for_every_python_from_the_lowest_on() -> None:
    built = PROJECT["tool"]["cibuildwheel"]
    lowest = int(PROJECT["project"]["requires-python"].removeprefix(">=3."))
    assert built["build"] == [f"cp3{minor}-*" for minor in range(lowest, 15)]
    assert built["environment"] == {"TURNOUT_COMPILE": "1"}
    assert "compiled" in built["test-command"]
