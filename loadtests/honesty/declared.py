"""What declaring gains: the power of a test whose size, effect or maximum was said before the data came."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from math import sqrt
from typing import Final

import numpy as np

from gateway.report.methods import LOOKS
from loadtests.honesty.cases import Case, Measured, share
from loadtests.honesty.route import Design
from loadtests.honesty.sticky import MONEY, RATE, of_rates, of_revenue, planned
from loadtests.honesty.streams import Revenue, binary
from loadtests.honesty.verdicts import at_look
from router.settings.declared import DeclaredTest

RATES: Final = (0.05, 0.06)
EFFECT: Final = RATES[1] - RATES[0]
PLANNED: Final = planned(RATES, 0.5)


#: Which share of all units is there at each look, in percent: as planned; or, with a declared end, where traffic grows
#: tenfold until then, or almost ends after the first look.
EVEN: Final = (20, 40, 60, 80, 100)
GROWING: Final = (4, 12, 28, 58, 100)
ENDING: Final = (80, 90, 96, 98, 100)

#: What both rates are multiplied by, in parts of the test.
ONCE: Final = (1.0,)
WEEKLY: Final = (0.2, 0.2, 0.2, 1.8, 1.8) * 2
RISING: Final = (0.2, 0.2, 0.2, 0.2, 1.8)


def of_maximum(
    rates: tuple[float, float],
    random: np.random.Generator,
    runs: int,
    *,
    relative: bool,
    known: tuple[int, ...] = EVEN,
    world: tuple[float, ...] = (1.0,),
) -> Measured:
    """Return how often a test that ends at the planned number finds a difference, at its planned looks.

    Both rates are multiplied by each part of ``world`` for an equal part of the units.

    ``relative``: divided by how often a test that is looked at only once, at the end, does on the same data.
    """
    course = np.repeat(world, 50 // len(world))[:, None] * np.array(rates)
    looks = binary(random, course, 0.5, runs=runs, looks=50, batch=PLANNED // 50)
    places, fractions = [of // 2 - 1 for of in known], list(LOOKS)
    scores = looks.scores()[:, places]
    found = np.zeros(runs, dtype=bool)
    for run in range(runs):
        for at in np.flatnonzero(np.abs(scores[run]) >= 1.8):
            if at_look([looks.pair(run, place) for place in places[: at + 1]], RATE, fractions[: at + 1]):
                found[run] = True
                break
    if not relative:
        return share(found)
    fixed = np.abs(scores[:, -1]) >= 1.96
    ratio = found.mean() / fixed.mean()
    error = float((found - ratio * fixed).std(ddof=1) / fixed.mean() / sqrt(runs))
    return Measured(float(ratio), error, runs)


def _tests() -> list[tuple[str, DeclaredTest, tuple[tuple[int, float], ...]]]:
    return [
        ("expected units declared", DeclaredTest(expected_units=PLANNED), ((1, 0.50), (2, 0.83))),
        ("effect declared", DeclaredTest(smallest_effect=EFFECT), ((1, 0.60), (2, 0.89))),
    ]


def _power() -> list[Case]:
    return [
        Case(
            group,
            f"a difference found, {words}{kind}",
            f"5% vs 6%, 50% share, by {'n' if times == 1 else '2n'} ({times * PLANNED:,})",
            partial(of_rates, RATES, 0.5, times * PLANNED, design=replace(RATE, test=test, by_unit=by_unit)),
            sense="at least",
            bound=bound if by_unit else None,
        )
        for group, kind, by_unit in (("power", "", True), ("power-fresh", ", drawn anew", False))
        for words, test, targets in [
            *([] if by_unit else [("undeclared", DeclaredTest(), ((1, 0.0), (2, 0.0)))]),
            *[each for each in _tests() if by_unit or each[1].smallest_effect],
        ]
        for times, bound in targets
    ]


def _equal() -> list[Case]:
    found = [
        Case(
            "aa-declared",
            f"equal rates called different, {words}",
            f"5% both, {part:.0%} share, by {4 * PLANNED:,}",
            partial(of_rates, (0.05, 0.05), part, 4 * PLANNED, design=replace(RATE, test=test, by_unit=by_unit)),
            bound=0.05,
        )
        for part in (0.5, 0.05)
        for words, test, by_unit in (
            *((words, test, True) for words, test, _ in _tests()),
            ("effect declared, drawn anew", DeclaredTest(smallest_effect=EFFECT), False),
        )
    ]
    rate = 0.05
    return [
        *found,
        *(
            Case(
                "aa-declared",
                "equal rates called different, maximum declared",
                f"5% both, 50% share{words}",
                partial(of_maximum, (rate, rate), relative=False, known=known, world=world),
                bound=0.05,
                runs=4000,
            )
            for words, known, world in (
                ("", EVEN, ONCE),
                (", traffic grows tenfold until the end", GROWING, ONCE),
                (", traffic almost ends after the first look", ENDING, ONCE),
                (", each week twice from 1% to 9%", EVEN, WEEKLY),
                (", from 1% to 9% in the last fifth", EVEN, RISING),
                (", from 9% to 1% after the first fifth", EVEN, RISING[::-1]),
            )
        ),
    ]


def _revenue() -> list[Case]:
    cases = []
    for sigma in (1.0, 1.5):
        sold = Revenue.capped(sigma, (0.05, 0.055))
        (mean, variance), (other, more) = sold.moments(0), sold.moments(1)
        n = round((1.959964 + 0.841621) ** 2 * 2 * (variance + more) / (other - mean) ** 2)
        design: Design = replace(MONEY, test=DeclaredTest(smallest_effect=other - mean), cap=sold.cap)
        for times, bound in ((1, None), (2, 0.80)):
            cases.append(
                Case(
                    "power-revenue",
                    "10% more buyers found, capped revenue, effect declared",
                    f"σ {sigma:g}, 50% share, by {'n' if times == 1 else '2n'} ({times * n:,})",
                    partial(of_revenue, sold, 0.5, times * n, looks=200, design=design),
                    sense="at least",
                    bound=bound,
                )
            )
    return cases


CASES: Final = (
    *_equal(),
    *_power(),
    Case(
        "o",
        "a difference found, effect declared",
        f"90% vs 95%, 50% share, by n ({planned((0.9, 0.95), 0.5):,})",
        partial(
            of_rates,
            (0.9, 0.95),
            0.5,
            planned((0.9, 0.95), 0.5),
            design=replace(RATE, test=DeclaredTest(smallest_effect=0.05)),
        ),
        sense="at least",
        bound=0.55,
    ),
    *(
        Case(
            "power",
            "a difference found, maximum declared ÷ fixed test",
            f"5% vs 6%, 50% share, planned looks by n ({PLANNED:,}){words}",
            partial(of_maximum, RATES, relative=True, known=known),
            sense="at least",
            bound=0.93,
            runs=2000,
        )
        for words, known in (("", EVEN), (", traffic grows tenfold", GROWING))
    ),
    *_revenue(),
)
