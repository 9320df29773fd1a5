"""A real PostgreSQL beside SQLite: ``store`` runs a test over both.

Rule: the server starts when the first test asks for it and stops at the end; every test has a schema of its own.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest
from hypothesis import HealthCheck, settings

from loadtests import postgresql

# The tests start some hundred interpreters. With this variable, which many containers set, no bytecode is kept: each
# interpreter would compile all of Turnout anew, a fifth of its start.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# How long an example takes depends on the machine alone: the first one with text reads all of Unicode.
settings.register_profile("turnout", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("turnout")


@pytest.fixture(autouse=True)
def umask() -> Iterator[None]:
    """Restore the umask: commands that tests run in this process set it, and later tests must not see that."""
    before = os.umask(0o022)
    os.umask(before)
    yield
    os.umask(before)


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[postgresql.Server]:
    """One server for all tests. It does not wait for the disk; its commits survive its own death all the same."""
    with postgresql.running() as server:
        yield server


@pytest.fixture
def postgresql_url(postgresql_server: postgresql.Server) -> Iterator[str]:
    """An empty PostgreSQL store, as ``gateway.store`` names it."""
    name = postgresql_server.new_schema()
    yield postgresql_server.url(name)
    postgresql_server.drop_schema(name)


@pytest.fixture(params=["sqlite", "postgresql"])
def new_store(request: pytest.FixtureRequest) -> Iterator[Callable[[], str]]:
    """A function that makes an empty store and returns its ``gateway.store``; a SQLite one lies in ``data_dir``."""
    if request.param == "sqlite":
        yield lambda: "sqlite"
        return
    server: postgresql.Server = request.getfixturevalue("postgresql_server")
    made: list[str] = []

    def new() -> str:
        made.append(server.new_schema())
        return server.url(made[-1])

    yield new
    for name in made:
        server.drop_schema(name)


@pytest.fixture
def store(new_store: Callable[[], str]) -> str:
    """An empty store, as ``gateway.store`` names it: the test runs once with SQLite and once with PostgreSQL."""
    return new_store()
