"""Compile the request path into the wheel, if TURNOUT_COMPILE=1 asks for it; else the wheel is pure Python.

Rule: what was asked for is what is built, or the build fails. Nothing is written into the source tree: a compiled
module beside its source would go on being imported while somebody edits that.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import chdir
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class Compiling(BuildHookInterface):  # type: ignore[type-arg]
    """Builds the modules that the hook's table in pyproject.toml lists."""

    def dependencies(self) -> list[str]:
        # Those of the request path too: it is type-checked, and code whose imports are unknown compiles to slower code.
        return ["mypy[mypyc]>=1.18", "httptools", "orjson", "pydantic", "uvloop", "xxhash"] if self._wanted() else []

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "editable" or not self._wanted():
            return
        self._folder = Path(tempfile.mkdtemp(prefix="turnout-"))
        built = compiled(Path(self.root), self.config["modules"], self._folder)
        build_data["pure_python"] = False
        build_data["infer_tag"] = True
        build_data["force_include"].update({str(path): name for name, path in built.items()})

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        if folder := getattr(self, "_folder", None):
            shutil.rmtree(folder)

    def _wanted(self) -> bool:
        return os.environ.get("TURNOUT_COMPILE") == "1"


def compiled(root: Path, modules: list[str], folder: Path) -> dict[str, Path]:
    """Compile modules under ``root``, named by their paths there; return the files by their places in a wheel."""
    from mypyc.build import mypycify
    from setuptools import Distribution

    with chdir(root):
        extensions = mypycify(
            modules, opt_level="2", debug_level="0", group_name="turnout", target_dir=str(folder / "c")
        )
        command = Distribution({"name": "turnout", "ext_modules": extensions}).get_command_obj("build_ext")
        command.build_lib, command.build_temp = str(folder / "lib"), str(folder / "o")
        command.ensure_finalized()
        command.run()
    return {os.path.relpath(path, folder / "lib"): Path(path) for path in command.get_outputs()}
