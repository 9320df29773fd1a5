"""Compile the modules that pyproject.toml lists into the wheel, wherever that is possible.

``TURNOUT_COMPILE=1``: the wheel is compiled, or the build fails. ``0``: the wheel is pure Python. Not set: it is
compiled where a C compiler and Python's headers are, else it is pure Python, and the build says why. An editable
installation is never compiled, and nothing is written into the source tree: a compiled module beside its source would
still be imported after the source was edited.
"""

from __future__ import annotations

import os
import platform
import shlex
import shutil
import sysconfig
import tempfile
from collections.abc import Mapping
from contextlib import chdir
from pathlib import Path
from typing import Any, Final

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

#: Without the configuration of `make check`, and without errors about modules that are not compiled: the imports of the
#: control plane and of the extras are not installed here.
_LENIENT: Final = ("--config-file=", "--ignore-missing-imports", "--follow-imports=silent")

VARIABLE: Final = "TURNOUT_COMPILE"

#: The compiler, and what the compiled modules import: they are type-checked, and a name whose type is unknown compiles
#: to slower code. A compiler of a major version that was never tried could refuse the sources.
REQUIREMENTS: Final = ("mypy[mypyc]>=1.18,<3", "httptools", "orjson", "uvloop", "xxhash")


class Compiling(BuildHookInterface):  # type: ignore[type-arg]
    """Builds the modules that the hook's table in pyproject.toml lists."""

    def dependencies(self) -> list[str]:
        return [] if hindrance(os.environ) else list(REQUIREMENTS)

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "editable":
            return
        required = os.environ.get(VARIABLE) == "1"
        if reason := hindrance(os.environ):
            self._say(reason)
            return
        self._folder = Path(tempfile.mkdtemp(prefix="turnout-"))
        try:
            built = compiled(Path(self.root), self.config["modules"], self._folder)
        except (Exception, SystemExit) as error:  # mypyc ends with SystemExit
            if required:
                raise
            self._say(f"compiling failed: {error}")
            return
        build_data["pure_python"] = False
        build_data["infer_tag"] = True
        build_data["force_include"].update({str(path): name for name, path in built.items()})

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        if folder := getattr(self, "_folder", None):
            shutil.rmtree(folder)

    def _say(self, reason: str) -> None:
        self.app.display_warning(f"turnout: this wheel is pure Python and needs more CPU per request: {reason}")


def hindrance(environment: Mapping[str, str]) -> str | None:
    """Return why nothing is compiled in this environment; None where compiling is to be tried.

    Raises ValueError for a ``TURNOUT_COMPILE`` that is neither 0, 1 nor empty.
    """
    wanted = environment.get(VARIABLE, "")
    if wanted not in ("", "0", "1"):
        raise ValueError(f'{VARIABLE} must be 0 or 1, got "{wanted}"')
    if wanted == "1":
        return None
    if wanted == "0":
        return f"{VARIABLE}=0"
    if platform.python_implementation() != "CPython":
        return f"{platform.python_implementation()} is not CPython"
    # The compiler that setuptools would choose.
    command = environment.get("CC") or sysconfig.get_config_var("CC") or "cc"
    if shutil.which(shlex.split(command)[0], path=environment.get("PATH")) is None:
        return f'there is no C compiler "{command}"'
    header = Path(sysconfig.get_path("include"), "Python.h")
    return None if header.exists() else f"Python's headers are not installed: no {header}"


def compiled(root: Path, modules: list[str], folder: Path) -> dict[str, Path]:
    """Compile modules under ``root``, named by their paths there; return the files by their places in a wheel."""
    from mypyc.build import mypycify
    from setuptools import Distribution

    with chdir(root):
        extensions = mypycify(
            [*_LENIENT, *modules],
            opt_level="2",
            debug_level="0",
            group_name="turnout",
            target_dir=str(folder / "c"),
        )
        command = Distribution({"name": "turnout", "ext_modules": extensions}).get_command_obj("build_ext")
        command.build_lib, command.build_temp = str(folder / "lib"), str(folder / "o")
        command.ensure_finalized()
        command.run()
    return {os.path.relpath(path, folder / "lib"): Path(path) for path in command.get_outputs()}
