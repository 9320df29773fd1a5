"""Sums are exact: a term that is added and subtracted again leaves no trace, in any order."""

from __future__ import annotations

from fractions import Fraction
from math import inf, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.exact import plus, rounded, total

numbers = st.one_of(
    st.floats(-1e30, 1e30), st.sampled_from([0.1, 0.2, 1e15, -1e15, 1e30, 5e-324, -0.0, 2.0**53]), st.floats(-10, 10)
)


@given(terms=st.lists(numbers, max_size=12).flatmap(st.permutations))
def test_a_sum_has_one_form_and_it_is_exact(terms: list[float]) -> None:
    exact = total(terms)
    assert sum(map(Fraction, exact)) == sum(map(Fraction, terms))
    assert exact == total(sorted(terms))
    assert rounded(exact) == float(sum(map(Fraction, terms)))
    step: tuple[float, ...] = ()
    for term in terms:
        step = plus(step, term)
    assert step == exact


@given(kept=st.lists(numbers, max_size=6), gone=st.lists(numbers, max_size=6))
def test_what_is_taken_away_leaves_nothing(kept: list[float], gone: list[float]) -> None:
    assert total([*kept, *gone, *(-one for one in gone)]) == total(kept)


@pytest.mark.parametrize("term", [inf, -inf, nan])
def test_what_is_not_finite_is_no_term(term: float) -> None:
    with pytest.raises((ValueError, OverflowError)):
        total([1.0, term])
