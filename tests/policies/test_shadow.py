"""Shadow: the primary answers, the shadows get copies."""

from __future__ import annotations

from math import nan

import pytest

from policies import Mirror, Shadow, Weighted
from policies.types import Evidence, SettingProblem
from tests.policies.examples import occasions


def test_the_primary_answers_and_each_shadow_gets_its_share() -> None:
    plan = Shadow(primary="v1", shadows={"v2": 1.0, "v3": 0.1}).plan(Evidence())
    assert plan == Weighted((("v1", 1.0),), mirrors=(Mirror("v2", 1.0), Mirror("v3", 0.1)))
    assert {plan.decide(o).answering for o in occasions(50)} == {("v1",)}


def test_the_primary_is_the_baseline() -> None:
    policy = Shadow(primary="v1", shadows={"v2": 1.0})
    assert (policy.baseline, policy.variants) == ("v1", ("v1", "v2"))
    assert policy.references() == ((("primary",), "v1"), (("shadows", "v2"), "v2"))


@pytest.mark.parametrize(
    ("shadows", "problems"),
    [
        ({}, [SettingProblem(("shadows",), "names no variant, got {}; write at least one, as in { v2 = 1.0 }")]),
        ({"v1": 0.5}, [
            SettingProblem(("shadows", "v1"), '"v1" is the primary and cannot be its own shadow; name another variant'),
        ]),
        ({"v2": 10.0}, [SettingProblem(("shadows", "v2"), "must lie in [0, 1], got 10.0")]),
        ({"v2": nan, "v3": -1}, [
            SettingProblem(("shadows", "v2"), "must lie in [0, 1], got nan"),
            SettingProblem(("shadows", "v3"), "must lie in [0, 1], got -1"),
        ]),
    ],
)  # fmt: skip
def test_every_wrong_setting_is_named(shadows: dict[str, float], problems: list[SettingProblem]) -> None:
    assert list(Shadow(primary="v1", shadows=shadows).problems()) == problems
