"""What is published is read back whole, and damage is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.rollouts.standing import Standing
from policies.types import Evidence
from router.compile import compile_snapshot
from router.config.config import load
from router.snapshot import Gateway, KnownRoutes, Snapshot, decode, encode
from tests.router.builders import snapshot_of

EXAMPLE = Path(__file__).parents[2] / "config.example.toml"


def example() -> Snapshot:
    config = load(EXAMPLE)
    return compile_snapshot(config, previous=None, evidence=lambda *_: Evidence(), now_ms=1_700_000_000_000, revision=3)


def test_what_is_encoded_decodes_to_the_same() -> None:
    assert decode(encode(example())) == example()
    assert decode(encode(snapshot_of())) == snapshot_of()
    trusting = replace(example(), gateway=Gateway(trusted_proxies=("10.0.0.0/8",)))
    assert decode(encode(trusting)) == trusting


def test_a_snapshot_from_before_tests_guardrails_and_caps_is_read() -> None:
    value = orjson.loads(encode(snapshot_of()))
    for route in value["routes"]:
        assert (route.pop("test"), route.pop("guardrails")) == (None, [])
    for metric in value["metrics"]:
        assert metric.pop("cap") is None
    assert decode(orjson.dumps(value)) == snapshot_of()


def test_a_snapshot_from_before_standings_is_read_and_one_with_a_standing_too() -> None:
    value = orjson.loads(encode(snapshot_of()))
    assert all(route.pop("standing") == {} for route in value["routes"])
    assert decode(orjson.dumps(value)) == snapshot_of()
    route = replace(snapshot_of().routes["digits"], standing=Standing(number=3, held={"v2": "out"}))
    moved = replace(snapshot_of(), routes={"digits": route})
    assert decode(encode(moved)) == moved


def test_what_is_decoded_is_made_of_values_that_cannot_change() -> None:
    route = decode(encode(example())).routes["digits"]
    assert hash(
        (route.methods, route.headers, route.features, route.mirrors, route.variants, route.test, route.guardrails)
    )


def test_another_format_is_refused_and_named() -> None:
    value = orjson.loads(encode(snapshot_of()))
    with pytest.raises(ValueError, match="format 99"):
        decode(orjson.dumps({**value, "format": 99}))


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"{}", b"null", b'{"format": 1}', b"\xff", b"[" * 3000])
def test_what_is_no_snapshot_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        decode(data)


@given(st.data())
def test_a_damaged_snapshot_is_refused_or_read(data: st.DataObject) -> None:
    """A worker keeps its snapshot if the new one cannot be decoded, which only ValueError tells it."""
    value = orjson.loads(encode(snapshot_of()))
    here: object = value
    for _ in range(data.draw(st.integers(1, 4))):
        if not isinstance(here, dict | list) or not here:
            break
        at = data.draw(st.sampled_from(list(here) if isinstance(here, dict) else list(range(len(here)))))
        inner = here[at]
        if data.draw(st.booleans()) or not isinstance(inner, dict | list):
            here[at] = data.draw(st.sampled_from([None, 1, "x", [], {}, [1], [[]], {"a": 1}]))
        here = inner
    try:
        decode(orjson.dumps(value))
    except ValueError as error:
        message = str(error)
    else:
        return
    assert message


def test_a_route_that_a_new_snapshot_says_the_same_of_is_not_made_anew() -> None:
    """A bandit changes one of 500 routes every second, and the worker that decodes them answers requests meanwhile."""
    known: KnownRoutes = {}
    first = decode(encode(example()), known)
    name = next(iter(first.routes))
    moved = replace(first, revision=9, routes={**first.routes, name: replace(first.routes[name], revision=9)})
    second = decode(encode(moved), known)
    assert second == moved
    assert [one for one in second.routes if second.routes[one] is not first.routes[one]] == [name]
    assert known.keys() == second.routes.keys()
