"""The vocabulary: tallies add and subtract as their units do."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from policies.types import EMPTY, Evidence, Tally

units = st.lists(st.tuples(st.integers(-5, 5), st.integers(0, 5)).map(lambda u: (float(u[0]), float(u[1]))))


def test_a_tally_of_three_units_by_hand() -> None:
    assert Tally.of_units([(2, 3), (-1, 1), (0, 2)]) == Tally(
        n=3,
        m=1,
        m2=5,
        d=6,
        d2=14,
        md=5,
        positive=1,
        negative=1,
        d_max=3,
        m3=7,
        m2d=13,
        md2=17,
        d3=36,
        distinct=3,
    )


def test_a_unit_without_values_counts_for_nothing() -> None:
    assert Tally.of_unit(0, 0) == EMPTY
    assert EMPTY.mean is None


@given(units, units)
def test_tallies_add_as_their_units_do(some: list[tuple[float, float]], others: list[tuple[float, float]]) -> None:
    assert Tally.of_units(some) + Tally.of_units(others) == Tally.of_units(others + some)


@given(units, units)
def test_what_was_added_can_be_taken_away(some: list[tuple[float, float]], others: list[tuple[float, float]]) -> None:
    left = Tally.of_units(some) + Tally.of_units(others) - Tally.of_units(others)
    expected = Tally.of_units(some)
    assert replace(left, d_max=0.0) == replace(expected, d_max=0.0)
    assert left.d_max >= expected.d_max


def test_evidence_of_an_unknown_variant_is_empty() -> None:
    assert Evidence().tally("nobody", "clicks") == EMPTY
