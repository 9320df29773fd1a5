"""Single: one variant."""

from __future__ import annotations

from policies import Single, Weighted
from policies.types import Evidence


def test_its_variant_answers_and_is_the_baseline() -> None:
    policy = Single(variant="v1")
    assert policy.plan(Evidence()) == Weighted((("v1", 1.0),))
    assert (policy.baseline, policy.references()) == ("v1", ((("variant",), "v1"),))
