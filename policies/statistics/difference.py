"""What a comparison of two means found, and which method may decide it.

Rule: values and one literal table, no statistics. Every method of comparing two variants ends in a ``Difference``, so
that verdict, sentence and API treat all of them alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

#: How an interval or a test was made. "exact": two exact intervals, one of each mean. "asymptotic": a confidence
#: sequence that holds in the limit of many units. "mixture": the same, tuned to the declared effect. "betting": on the
#: own means of few units. "e_process" and "paired_e_process": bets on each request. "group_sequential": boundaries for
#: a declared maximum.
Method = Literal["exact", "asymptotic", "betting", "e_process", "paired_e_process", "group_sequential", "mixture"]

#: What the operator declared before the data came: nothing, the smallest effect that matters, or the largest number of
#: units (or the last day) of the test.
Declared = Literal["undeclared", "effect", "maximum"]

#: How chance works on a route.
Assignment = Literal["fresh_moving", "fresh_fixed", "sticky_fixed", "sticky_moving", "same_requests"]

#: Which method decides a comparison; None where no method is valid, so that the verdict is withheld.
#:
#: Fresh draws have logged propensities, and a bet against them is exact whatever the rates and the shares do. A sticky
#: unit is drawn once for all its requests, so its values stand together: only sums by unit are valid, and only while
#: the shares do not follow the evidence.
METHODS: Final[Mapping[Assignment, Mapping[Declared, Method | None]]] = {
    "fresh_moving": {"undeclared": "e_process", "effect": "e_process", "maximum": "e_process"},
    "fresh_fixed": {"undeclared": "e_process", "effect": "e_process", "maximum": "group_sequential"},
    "sticky_fixed": {"undeclared": "asymptotic", "effect": "mixture", "maximum": "group_sequential"},
    "sticky_moving": {"undeclared": None, "effect": None, "maximum": None},
    "same_requests": {
        "undeclared": "paired_e_process",
        "effect": "paired_e_process",
        "maximum": "paired_e_process",
    },
}

#: Why a comparison of sticky units is withheld while the shares move with the evidence.
STICKY_MOVING: Final = (
    "units keep their variant while the shares follow the evidence, so neither the requests nor the units were drawn "
    "independently of what came before"
)


@dataclass(frozen=True, slots=True)
class Difference:
    """The variant's mean less the baseline's, and where it lies: [``low``, ``high``].

    ``p`` is an always-valid p-value of "no difference": the probability that it ever falls to α or below, at any look,
    is at most α where there is none. So p ≤ α decides, and it may go into Holm's or Benjamini and Hochberg's procedure.
    Without a test it is 1.

    ``relative`` is the same three numbers divided by the baseline's mean; None where that mean cannot be told from 0.
    ``withheld`` says why no decision may be taken from these numbers; None where one may. ``needs`` is then about how
    many more units the smaller side takes before one may, if that is what is missing. ``described`` is True where the
    band is a description and no interval with a promise: then only ``p`` decides. ``capped`` is the largest share that
    one unit may weigh in the estimate, where that bound changed it.
    """

    difference: float
    low: float
    high: float
    method: Method
    p: float = 1.0
    relative: tuple[float, float, float] | None = None
    withheld: str | None = None
    described: bool = False
    needs: int | None = None
    capped: float | None = None

    def decides(self, alpha: float) -> bool:
        """Return whether there is a difference, with probability of ever saying so without one at most ``alpha``."""
        return self.withheld is None and self.p <= alpha


def assignment_of(*, by_unit: bool, adaptive: bool, paired: bool) -> Assignment:
    """Return how chance works where units (or requests) are drawn, and shares follow the evidence (or do not).

    >>> assignment_of(by_unit=True, adaptive=False, paired=False)
    'sticky_fixed'
    """
    if paired:
        return "same_requests"
    if by_unit:
        return "sticky_moving" if adaptive else "sticky_fixed"
    return "fresh_moving" if adaptive else "fresh_fixed"


def method_of(
    *, by_unit: bool, adaptive: bool = False, paired: bool = False, declared: Declared = "undeclared"
) -> Method | None:
    """Return the method that decides a comparison; None where the verdict is withheld (``STICKY_MOVING`` says why).

    >>> method_of(by_unit=True, declared="effect")
    'mixture'
    >>> method_of(by_unit=False, adaptive=True)
    'e_process'
    """
    return METHODS[assignment_of(by_unit=by_unit, adaptive=adaptive, paired=paired)][declared]
