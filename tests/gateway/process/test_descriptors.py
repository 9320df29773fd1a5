"""Clients get the descriptors that the journal and the backends do not need."""

from __future__ import annotations

import resource
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.process import descriptors
from router.snapshot import Gateway
from tests.gateway.proxy.builders import backend

ONE = backend("one", "http://127.0.0.1:1", max_concurrency=256)


@pytest.mark.parametrize(("limit", "expected"), [(1_024, 512), (4_096, 3_392), (65_536, 10_000)])
def test_a_worker_takes_as_many_connections_as_there_are_descriptors_for(limit: int, expected: int) -> None:
    assert descriptors.connections(Gateway(), [ONE], limit) == expected


@given(st.integers(256, 10**6), st.integers(1, 50_000), st.integers(1, 5_000), st.integers(1, 20))
def test_with_every_client_there_and_more_turned_away_the_reserve_is_left(
    limit: int, most: int, concurrency: int, many: int
) -> None:
    gateway = Gateway(max_connections=most)
    backends = [backend(str(n), "http://127.0.0.1:1", max_concurrency=concurrency) for n in range(many)]
    taken = descriptors.connections(gateway, backends, limit)
    left = limit - taken - descriptors.refused(limit)
    assert 1 <= taken <= most
    assert left >= 64 + min(taken - 1, many * concurrency), "each client has one call at a time"


def test_serve_raises_the_soft_limit_to_the_hard_one() -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    code = (
        "import resource; from gateway.process.descriptors import hard_limit, raise_limit; "
        "resource.setrlimit(resource.RLIMIT_NOFILE, (200, resource.getrlimit(resource.RLIMIT_NOFILE)[1])); "
        "assert raise_limit() == hard_limit(); print(resource.getrlimit(resource.RLIMIT_NOFILE)[1])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=20)
    assert ran.stdout.strip() == str(hard), ran.stderr
