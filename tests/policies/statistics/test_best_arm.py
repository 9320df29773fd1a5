"""P(best): exact values, a brute-force twin, and any size of evidence."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from policies.statistics.best_arm import probabilities_best

Posterior = tuple[float, float]


@pytest.mark.parametrize(
    ("posteriors", "expected"),
    [
        ([(1, 1), (2, 1)], (1 / 3, 2 / 3)),
        ([(3, 2), (1, 3)], (31 / 35, 4 / 35)),
        ([(11, 91), (16, 86)], (1 - 0.8532837899339661, 0.8532837899339661)),
        ([(121, 1081), (151, 1051)], (1 - 0.9735704255435289, 0.9735704255435289)),
        ([(3, 2), (1, 3), (4, 3)], (0.523776223776, 0.0496503496503, 0.426573426573)),
        ([(3, 2), (1, 3), (4, 3), (1, 1)], (0.378221778222, 0.0319180819181, 0.289710289710, 0.300149850150)),
        ([(21, 81), (26, 76), (16, 86)], (0.193728320983, 0.782656150058, 0.0236155289592)),
    ],
)
def test_reference_values_to_nine_digits(posteriors: list[Posterior], expected: Sequence[float]) -> None:
    """Exact rationals, or 30 digits."""
    assert probabilities_best(posteriors) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(
    "posteriors",
    [
        [(5, 3), (40, 30), (2, 9)],
        [(0.5, 0.5), (1, 1), (3, 0.7)],
        [(0.2, 4), (0.3, 5)],
        [(2_000, 3_000), (2_050, 3_000), (5, 5)],
    ],
)
def test_it_agrees_with_averaging_over_quantiles(posteriors: list[Posterior]) -> None:
    """P(best) is the mean of the others' distribution functions at the quantiles of a variant's own."""
    betas = [stats.beta(a, b) for a, b in posteriors]
    middles = (np.arange(20_000) + 0.5) / 20_000
    for index, found in enumerate(probabilities_best(posteriors)):
        own = betas[index].ppf(middles)
        others = betas[:index] + betas[index + 1 :]
        assert found == pytest.approx(np.prod([other.cdf(own) for other in others], axis=0).mean(), abs=1e-6)


numbers = st.floats(0.05, 1e7)


@settings(max_examples=60, deadline=None)
@given(posteriors=st.lists(st.tuples(numbers, numbers), min_size=1, max_size=6))
def test_they_sum_to_1_and_follow_the_posteriors_in_any_order(posteriors: list[Posterior]) -> None:
    found = probabilities_best(posteriors)
    assert sum(found) == pytest.approx(1, abs=1e-12)
    assert all(0 <= p <= 1 for p in found)
    assert probabilities_best(posteriors[::-1]) == pytest.approx(found[::-1], abs=1e-9)


@settings(max_examples=30, deadline=None)
@given(a=numbers, b=numbers, count=st.integers(1, 10))
def test_equal_posteriors_share_alike(a: float, b: float, count: int) -> None:
    assert probabilities_best([(a, b)] * count) == pytest.approx([1 / count] * count, abs=1e-9)


@settings(max_examples=30, deadline=None)
@given(one=st.tuples(numbers, numbers), other=st.tuples(numbers, numbers))
def test_the_best_of_two_is_the_worst_of_their_opposites(one: Posterior, other: Posterior) -> None:
    best = probabilities_best([one, other])
    mirrored = probabilities_best([one[::-1], other[::-1]])
    assert best == pytest.approx(mirrored[::-1], abs=1e-9)


@pytest.mark.parametrize("size", [1e6, 1e8, 1e10])
def test_large_evidence_agrees_with_the_normal_law(size: float) -> None:
    gap = np.sqrt(size) / 2
    expected = stats.norm.cdf(gap / (4 * size) / np.sqrt(2 / (8 * size)))
    assert probabilities_best([(size, size), (size + gap, size)])[1] == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize(
    "posteriors", [[(1e9, 1.0), (1.0, 1e9)], [(9e6, 1e6), (1e6, 9e6), (2.0, 300.0)], [(1e6, 2.0)] + [(2.0, 1e6)] * 9]
)
def test_posteriors_far_apart_leave_no_doubt(posteriors: list[Posterior]) -> None:
    found = probabilities_best(posteriors)
    assert found[0] == pytest.approx(1, abs=1e-4)
    assert all(isinstance(p, float) and p >= 0 for p in found)


def test_ten_posteriors_from_ten_to_ten_billion_observations() -> None:
    found = probabilities_best([(10**k + 1, 3 * 10**k + 5) for k in range(1, 11)])
    assert sum(found) == pytest.approx(1, abs=1e-12)


def test_nobody_is_the_best_of_nobody() -> None:
    assert probabilities_best([]) == ()


@pytest.mark.parametrize("posterior", [(0, 1), (1, -1), (float("nan"), 1), (1, float("inf"))])
def test_what_is_no_posterior_is_refused(posterior: Posterior) -> None:
    with pytest.raises(ValueError, match="two positive finite numbers"):
        probabilities_best([posterior])
