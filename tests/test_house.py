"""The structure of the packages, checked by reading every import: small enough to read, and no cycle of imports.

A package is a room. Imports for annotations alone count: a reader of a file has to know what they name.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator, Mapping, Set
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGES = ("policies", "router", "gateway")

MOST_FILES = 12
MOST_LINES = 400
MOST_IN_CYCLES = 4


@cache
def modules() -> Mapping[str, Path]:
    """Every module by its dotted name; a package is named like its ``__init__``."""
    found = {}
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            found[name.removesuffix(".__init__")] = path
    return found


@cache
def tree(name: str) -> ast.Module:
    return ast.parse(modules()[name].read_text())


@cache
def imports(name: str) -> frozenset[str]:
    """The modules of ours that a module imports, wherever in it."""
    found = set[str]()
    for node in ast.walk(tree(name)):
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                found.add(inner if inner in modules() else node.module)
        elif isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
    return frozenset(found & modules().keys())


def room(name: str) -> str:
    return name if modules()[name].name == "__init__.py" else name.rpartition(".")[0]


def cycles(arrows: Mapping[str, Set[str]]) -> Iterator[frozenset[str]]:
    """The groups of nodes that reach one another."""
    left = {node: set(to) & arrows.keys() for node, to in arrows.items()}
    while True:
        try:
            TopologicalSorter(left).prepare()
        except CycleError as error:
            some = error.args[1][0]
        else:
            return
        cycle = frozenset(reached(some, left) & {node for node in left if some in reached(node, left)})
        yield cycle
        left = {node: to - cycle for node, to in left.items() if node not in cycle}


def reached(node: str, arrows: Mapping[str, Set[str]]) -> set[str]:
    found, waiting = set[str](), [node]
    while waiting:
        for to in arrows[waiting.pop()] - found:
            found.add(to)
            waiting.append(to)
    return found


def test_no_cycle_of_imports_leaves_a_room_and_those_within_one_are_small() -> None:
    for cycle in cycles({name: imports(name) for name in modules()}):
        assert len({room(name) for name in cycle}) == 1, sorted(cycle)
        assert len(cycle) <= MOST_IN_CYCLES, sorted(cycle)


def test_a_room_can_be_taken_in_at_a_glance_and_a_file_read_in_one_go() -> None:
    files = defaultdict(list)
    for name, path in modules().items():
        if path.name != "__init__.py":
            files[room(name)].append(name)
        assert len(path.read_text().splitlines()) < MOST_LINES, name
    assert {name: len(inside) for name, inside in files.items() if len(inside) > MOST_FILES} == {}


def test_no_two_modules_of_the_gateway_share_a_name() -> None:
    """But a room and the file that is its heart, and a command and what it shows."""
    named = defaultdict(list)
    for name in modules():
        if name.startswith("gateway.") and not name.startswith("gateway.cli.") and not name.endswith(".__main__"):
            named[name.rpartition(".")[2]].append(name)
    for base, names in named.items():
        heart = [name for name in names if not name.endswith(f".{base}.{base}")]
        assert len(heart) == 1, names


def test_no_two_public_classes_share_a_name() -> None:
    named = defaultdict(list)
    for name in modules():
        for node in tree(name).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                named[node.name].append(name)
    assert {name: places for name, places in named.items() if len(places) > 1} == {}
