"""Which method decides: the table, and what a difference says of itself."""

from __future__ import annotations

from itertools import product

import pytest

from policies.statistics.difference import METHODS, Declared, Difference, assignment_of, method_of

DECLARED: tuple[Declared, ...] = ("undeclared", "effect", "maximum")


def test_every_kind_of_chance_and_declaration_has_its_method() -> None:
    seen = set()
    for by_unit, adaptive, paired in product((False, True), repeat=3):
        kind = assignment_of(by_unit=by_unit, adaptive=adaptive, paired=paired)
        seen.add(kind)
        for declared in DECLARED:
            assert (
                method_of(by_unit=by_unit, adaptive=adaptive, paired=paired, declared=declared)
                == METHODS[kind][declared]
            )
    assert seen == set(METHODS)


@pytest.mark.parametrize("declared", DECLARED)
def test_units_that_stay_while_shares_move_are_never_decided(declared: Declared) -> None:
    assert method_of(by_unit=True, adaptive=True, declared=declared) is None


@pytest.mark.parametrize("adaptive", [False, True])
@pytest.mark.parametrize("by_unit", [False, True])
def test_the_same_requests_are_compared_by_pairs_however_they_are_assigned(by_unit: bool, adaptive: bool) -> None:
    assert method_of(by_unit=by_unit, adaptive=adaptive, paired=True) == "paired_e_process"


def test_a_withheld_difference_decides_nothing_whatever_its_p() -> None:
    assert Difference(0.1, 0.05, 0.15, "asymptotic", p=0.001).decides(0.05)
    assert not Difference(0.1, 0.05, 0.15, "asymptotic", p=0.001, withheld="too skewed").decides(0.05)
    assert not Difference(0.1, -0.05, 0.25, "asymptotic", p=0.051).decides(0.05)
