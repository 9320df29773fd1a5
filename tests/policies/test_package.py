"""The package: what importing it loads, and that the examples in its docstrings run."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import subprocess
import sys

import pytest

import policies

MODULES = [module.name for module in pkgutil.walk_packages(policies.__path__, "policies.")]


def test_importing_and_deciding_loads_neither_numpy_nor_scipy() -> None:
    """Workers import this package and carry traffic: the standard library and a hash, no more."""
    program = (
        "import sys, policies, policies.statistics, policies.statistics.latency\n"
        "plan = policies.Weighted((('a', 0.5), ('b', 0.5)))\n"
        "plan.decide(policies.Occasion('s', None, 'r'))\n"
        "print(sorted({'numpy', 'scipy', 'asyncio', 'logging', 'random', 'socket'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_in_the_documentation_are_true(name: str) -> None:
    assert doctest.testmod(importlib.import_module(name)).failed == 0


def test_there_are_modules_to_check() -> None:
    assert {"policies.thompson", "policies.statistics.sequential"} <= set(MODULES)
