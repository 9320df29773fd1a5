"""Canary: the share is raised, and no unit moves back."""

from __future__ import annotations

from math import inf, nan

import pytest

from policies import Canary
from policies.types import Evidence, SettingProblem
from tests.policies.examples import occasions


def canary_units(share: float) -> set[str | None]:
    plan = Canary(stable="v1", candidate="v2", share=share).plan(Evidence())
    return {o.unit for o in occasions(5_000) if plan.decide(o).answering == ("v2",)}


@pytest.mark.parametrize(("before", "after"), [(0.0, 0.05), (0.05, 0.2), (0.2, 1.0)])
def test_raising_the_share_never_sends_a_unit_back(before: float, after: float) -> None:
    """Operators ramp canaries in steps; a user must not flicker between models."""
    assert canary_units(share=before) < canary_units(share=after)


def test_a_share_of_0_holds_the_candidate_back_and_1_completes_it() -> None:
    assert len(canary_units(share=0.0)) == 0
    assert len(canary_units(share=1.0)) == 5_000


def test_a_share_of_0_still_names_the_candidate_among_the_shares() -> None:
    assert Canary(stable="v1", candidate="v2", share=0.0).plan(Evidence()).shares == {"v1": 1.0, "v2": 0.0}


def test_stable_is_the_baseline_and_units_are_counted_when_sticky() -> None:
    assert Canary(stable="v1", candidate="v2", share=0.1).baseline == "v1"
    assert Canary(stable="v1", candidate="v2", share=0.1).by_unit
    assert not Canary(stable="v1", candidate="v2", share=0.1, sticky=False).by_unit


@pytest.mark.parametrize("share", [-0.01, 1.01, 5.0, nan, inf])
def test_a_share_outside_0_to_1_is_a_problem(share: float) -> None:
    problems = Canary(stable="v1", candidate="v2", share=share).problems()
    assert problems == (SettingProblem(("share",), f"must lie in [0, 1], got {share}"),)


def test_all_problems_are_named_at_once() -> None:
    problems = Canary(stable="v1", candidate="v1", share=2.0).problems()
    assert problems == (
        SettingProblem(("candidate",), 'must differ from stable, got "v1" for both; name the new variant'),
        SettingProblem(("share",), "must lie in [0, 1], got 2.0"),
    )
