"""A/B: fixed shares that sum to 1."""

from __future__ import annotations

from math import nan

import pytest

from policies import AB, Weighted
from policies.types import Evidence, SettingProblem


def test_the_shares_are_the_plan() -> None:
    assert AB(shares={"a": 0.5, "b": 0.5}).plan(Evidence()) == Weighted((("a", 0.5), ("b", 0.5)))
    assert AB(shares={"a": 0.5, "b": 0.5}, sticky=False).plan(Evidence()) == Weighted((("a", 0.5), ("b", 0.5)), False)


def test_no_variant_is_the_natural_baseline() -> None:
    assert AB(shares={"a": 0.5, "b": 0.5}).baseline is None


def test_units_are_counted_when_sticky() -> None:
    assert AB(shares={"a": 0.5, "b": 0.5}).by_unit
    assert not AB(shares={"a": 0.5, "b": 0.5}, sticky=False).by_unit


@pytest.mark.parametrize("shares", [{"a": 0.1, "b": 0.2, "c": 0.7}, {"a": 1 / 3, "b": 2 / 3}, {"a": 1.0, "b": 0.0}])
def test_shares_may_miss_1_by_what_decimals_lose(shares: dict[str, float]) -> None:
    assert AB(shares=shares).problems() == ()


@pytest.mark.parametrize(
    ("shares", "problems"),
    [
        ({}, [SettingProblem(("shares",), "needs at least two variants, got none")]),
        ({"a": 1.0}, [SettingProblem(("shares",), 'needs at least two variants, got "a"')]),
        ({"a": 0.5, "b": 0.4}, [SettingProblem(("shares",), "must sum to 1, got 0.9")]),
        ({"a": 0.5, "b": 0.500000002}, [SettingProblem(("shares",), "must sum to 1, got 1.000000002")]),
        ({"a": nan, "b": 0.5}, [SettingProblem(("shares", "a"), "must lie in [0, 1], got nan")]),
        ({"a": 50.0, "b": -1.0}, [
            SettingProblem(("shares", "a"), "must lie in [0, 1], got 50.0"),
            SettingProblem(("shares", "b"), "must lie in [0, 1], got -1.0"),
        ]),
    ],
)  # fmt: skip
def test_every_wrong_setting_is_named(shares: dict[str, float], problems: list[SettingProblem]) -> None:
    assert list(AB(shares=shares).problems()) == problems
