"""Every experiment, in the order of the table."""

from __future__ import annotations

from typing import Final

from loadtests.honesty import bandit, declared, few, interleaving, ramps, shadows, sticky
from loadtests.honesty.cases import Case

CASES: Final[tuple[Case, ...]] = (
    *sticky.CASES,
    *declared.CASES,
    *bandit.CASES,
    *ramps.CASES,
    *few.CASES,
    *interleaving.CASES,
    *shadows.CASES,
)
