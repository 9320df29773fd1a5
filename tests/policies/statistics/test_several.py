"""Families of comparisons: Holm and Benjamini-Hochberg as one level each, against their textbook definitions."""

from __future__ import annotations

from itertools import permutations, product
from math import nan

import pytest

from policies.statistics.several import benjamini_hochberg_level, holm_level

#: Adjusted p-values of the example in the reference text.
EXAMPLE = (0.01, 0.04, 0.03, 0.005)
HOLM = (0.03, 0.06, 0.06, 0.02)
BENJAMINI_HOCHBERG = (0.02, 0.04, 0.04, 0.02)


@pytest.mark.parametrize("alpha", [0.005, 0.0199, 0.021, 0.031, 0.0401, 0.0599, 0.061])
def test_the_claims_are_those_of_the_adjusted_p_values(alpha: float) -> None:
    for order in permutations(range(4)):
        ps = [EXAMPLE[i] for i in order]
        holm, hochberg = holm_level(ps, alpha), benjamini_hochberg_level(ps, alpha)
        assert [p <= holm for p in ps] == [HOLM[i] <= alpha for i in order]
        assert [p <= hochberg for p in ps] == [BENJAMINI_HOCHBERG[i] <= alpha for i in order]


def stepwise(ps: list[float], alpha: float) -> tuple[set[int], set[int]]:
    """The claims of both procedures, word for word as they were published."""
    order, m = sorted(range(len(ps)), key=lambda i: ps[i]), len(ps)
    holm = set[int]()
    for rank, i in enumerate(order):
        if ps[i] > alpha / (m - rank):
            break
        holm.add(i)
    last = max((rank for rank, i in enumerate(order, 1) if ps[i] <= rank * alpha / m), default=0)
    return holm, set(order[:last])


def test_both_procedures_claim_what_their_steps_claim() -> None:
    for ps in product((0.001, 0.012, 0.0167, 0.02, 0.026, 0.04, 0.5), repeat=3):
        holm, hochberg = holm_level(ps, 0.05), benjamini_hochberg_level(ps, 0.05)
        claimed = {i for i, p in enumerate(ps) if p <= holm}, {i for i, p in enumerate(ps) if p <= hochberg}
        assert claimed == stepwise(list(ps), 0.05)


def test_one_comparison_is_held_to_alpha_and_nothing_to_any() -> None:
    for level in (holm_level, benjamini_hochberg_level):
        assert level([0.03], 0.05) == 0.05
        assert level([], 0.05) == 0.05
        assert level([nan, 0.2], 0.05) == 0.025
