"""The layers of the code, checked by reading every module's imports and by importing what the request path imports."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("policies", "router", "gateway")

#: Everything a worker runs. ``python -m gateway.proxy`` must cost what it needs and nothing else.
WORKER_SIDE = ("gateway.proxy", "gateway.journal", "router.router", "router.snapshot", "policies")
FORBIDDEN_IN_WORKERS = {
    "numpy",
    "scipy",
    "sqlalchemy",
    "pydantic",
    "prometheus_client",
    "httpx",
    "starlette",
    "uvicorn",
    "rich",
    "typer",
}

#: What reaches outside the process, reads the clock or draws random numbers. ``time`` and ``random`` make a decision
#: unrepeatable.
IMPURE = {
    "aiosqlite",
    "asyncio",
    "http",
    "httptools",
    "httpx",
    "io",
    "logging",
    "multiprocessing",
    "os",
    "pathlib",
    "random",
    "secrets",
    "shutil",
    "signal",
    "socket",
    "sqlalchemy",
    "sqlite3",
    "ssl",
    "starlette",
    "subprocess",
    "sys",
    "tempfile",
    "threading",
    "time",
    "urllib.request",
    "uvicorn",
    "uvloop",
    "uuid",
    "watchfiles",
}
#: Reading the operator's file is what router.config is for; it belongs to the control plane and says so.
IMPURITY_GRANTED = {
    "router/config/config.py": {"os", "pathlib"},
    "router/config/diagnostics.py": {"pathlib"},
}
IMPURE_CALLS = {"open", "print", "input", "exec", "eval"}

#: Numbers live in one place.
NUMERIC = {"numpy", "scipy"}


def modules(*packages: str) -> Iterator[tuple[str, ast.Module]]:
    """Every module of the packages, as (path from the root, syntax tree)."""
    for package in packages:
        yield from parsed(package)


@cache
def parsed(package: str) -> list[tuple[str, ast.Module]]:
    paths = sorted((ROOT / package).rglob("*.py"))
    return [(path.relative_to(ROOT).as_posix(), ast.parse(path.read_text(), str(path))) for path in paths]


def imports(tree: ast.AST) -> set[str]:
    """The dotted names of every module imported anywhere below ``tree``, whether or not it runs at import time."""
    found = set[str]()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute here"
            found.add(node.module or "")
    return found


def at_import_time(tree: ast.Module) -> set[str]:
    """The imports that run when the module is imported: those outside functions, classes and TYPE_CHECKING."""
    found = set[str]()
    for node in tree.body:
        inside = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        typing_only = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        if not inside and not typing_only:
            found |= imports(node)
    return found


def tops(names: set[str]) -> set[str]:
    return {name.partition(".")[0] for name in names}


@pytest.mark.parametrize(("package", "above"), [("policies", {"router", "gateway"}), ("router", {"gateway"})])
def test_a_layer_never_imports_the_one_above_it(package: str, above: set[str]) -> None:
    """policies ← router ← gateway: a decision can be understood, tested and replayed without the shell around it."""
    for path, tree in modules(package):
        assert not tops(imports(tree)) & above, path


def test_nothing_imports_the_tests_or_the_loadtests() -> None:
    for path, tree in modules(*PACKAGES):
        assert not tops(imports(tree)) & {"tests", "loadtests"}, path


def test_policies_and_router_are_pure() -> None:
    """No I/O, no clock, no chance but hashing: the same request and snapshot give the same decision for ever."""
    for path, tree in modules("policies", "router"):
        names = imports(tree)
        assert (names | tops(names)) & IMPURE <= IMPURITY_GRANTED.get(path, set()), path
        if path not in IMPURITY_GRANTED:
            calls = {n.func.id for n in ast.walk(tree) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)}
            assert not calls & IMPURE_CALLS, path


def test_policies_and_router_keep_no_state_of_their_own() -> None:
    """A ``global`` statement is the sign of a module that remembers."""
    for path, tree in modules("policies", "router"):
        assert not any(isinstance(node, ast.Global) for node in ast.walk(tree)), path


def test_numpy_and_scipy_live_in_the_statistics_alone() -> None:
    """Workers import the policies; what plans and reports compute must not be paid for by every request's process."""
    for path, tree in modules("policies", "router", "gateway"):
        if not path.startswith(("policies/statistics/", "gateway/demo/")):
            assert not tops(imports(tree)) & NUMERIC, path


def test_planning_imports_its_statistics_inside_the_function() -> None:
    for path, tree in modules("policies"):
        if not path.startswith("policies/statistics/"):
            statistics = {name for name in at_import_time(tree) if name.startswith("policies.statistics")}
            assert not statistics, path


@pytest.mark.parametrize("module", WORKER_SIDE)
def test_the_request_path_imports_nothing_of_the_control_plane(module: str) -> None:
    """Checked in a fresh interpreter, so that indirect imports count as well."""
    code = (
        "import importlib, pkgutil, sys\n"
        f"package = importlib.import_module({module!r})\n"
        f"names = [m.name for m in pkgutil.walk_packages(getattr(package, '__path__', []), {module!r} + '.')]\n"
        "names = [n for n in names if '.statistics' not in n and not n.endswith('.__main__')]\n"
        "[importlib.import_module(name) for name in names]\n"
        "print('\\n'.join(sys.modules))\n"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT).stdout
    loaded = set(found.split())
    assert not tops(loaded) & FORBIDDEN_IN_WORKERS
    assert not {name for name in loaded if name.startswith(("gateway.control", "gateway.store", "gateway.admin"))}
    assert not {name for name in loaded if name.startswith("router.config")}


def test_the_controller_starts_without_what_few_routes_need() -> None:
    """Scipy, and the client of webhooks, were a quarter of its start."""
    code = "import sys, gateway.control.__main__; print(*sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT).stdout
    assert not tops(set(found.split())) & {"scipy", "httpx", "rich", "typer"}


def test_a_policys_kind_is_named_nowhere_but_in_its_own_file() -> None:
    """Adding a policy is one file and one name; an ``if kind == …`` elsewhere would make it two.

    The demo writes a config as an operator would, so there the kinds are named.
    """
    import policies

    kinds = {policy.kind: Path(sys.modules[policy.__module__].__file__ or "").name for policy in policies.POLICIES}
    for path, tree in modules(*PACKAGES):
        if path.startswith("gateway/demo/"):
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Compare | ast.MatchValue):
                literals = {n.value for n in ast.walk(node) if isinstance(n, ast.Constant) and isinstance(n.value, str)}
                foreign = {kind for kind in literals & kinds.keys() if not path.endswith(f"policies/{kinds[kind]}")}
                # "shadow" is a role of a call as well, and there it is meant.
                assert not foreign - {"shadow"}, f"{path}:{node.lineno if isinstance(node, ast.expr) else ''} {foreign}"


def test_a_score_is_named_nowhere_but_in_its_own_file() -> None:
    """Adding a score is one class and one name; one that is named elsewhere would make it two.

    Docstrings may name one, as an example; the demo writes a config as an operator would.
    """
    from router.scores import SCORES

    names = {score.name for score in SCORES}
    for path, tree in modules(*PACKAGES):
        if path == "router/scores.py" or path.startswith("gateway/demo/"):
            continue
        prose = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in prose:
                # A word of English counts only where it stands alone or in quotes.
                said = {name for name in names if name == node.value or f'"{name}"' in node.value}
                said |= {name for name in names if "_" in name and name in node.value}
                assert not said, f"{path}:{node.lineno} names {said}"


def test_every_module_says_what_lives_in_it() -> None:
    for path, tree in modules(*PACKAGES, "loadtests", "tests"):
        if path.endswith("__init__.py") and not tree.body:
            continue
        assert ast.get_docstring(tree), path


def test_every_folder_of_tests_is_a_package() -> None:
    """Without ``__init__.py`` a runner may take ``tests/policies`` for ``policies``."""
    for path in (ROOT / "tests").rglob("*.py"):
        assert (path.parent / "__init__.py").exists(), path


def test_the_architecture_page_names_real_files() -> None:
    """A codemap that names deleted files is worse than none."""
    page = (ROOT / "ARCHITECTURE.md").read_text()
    named = set(re.findall(r"`([\w./-]+?(?:\.py|\.md|\.toml|/|\.json))`", page))
    assert len(named) > 20
    for name in sorted(named):
        assert (ROOT / name).exists(), name


def test_the_architecture_page_names_every_package() -> None:
    page = (ROOT / "ARCHITECTURE.md").read_text()
    packages = {path.parent.relative_to(ROOT).as_posix() for p in PACKAGES for path in (ROOT / p).rglob("__init__.py")}
    for package in sorted(packages):
        assert f"`{package}/" in page, package
