"""Sticky units, fixed shares, one look per 100 units: how often equal variants are told apart, and unequal ones."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from math import ceil
from typing import Final

import numpy as np

from loadtests.honesty.cases import Case, Measured, share
from loadtests.honesty.route import Design
from loadtests.honesty.streams import Draw, Revenue, binary, growing, heavy, one_to_twenty, own_rates, rewards, units
from loadtests.honesty.verdicts import first_decisions, joined

#: How many units the A/A experiments run for.
UNITS: Final = 50_000
BATCH: Final = 100

RATE: Final = Design()
MONEY: Final = Design(bounds=None)


def planned(rates: tuple[float, float], part: float) -> int:
    """Return how many units a fixed two-sided test at .05 needs in all for a power of .8 (normal, unpooled)."""
    spread = rates[0] * (1 - rates[0]) / (1 - part) + rates[1] * (1 - rates[1]) / part
    return ceil((1.959964 + 0.841621) ** 2 * spread / (rates[0] - rates[1]) ** 2)


def of_rates(
    rates: tuple[float, float],
    part: float,
    total: int,
    random: np.random.Generator,
    runs: int,
    *,
    batch: int = BATCH,
    only_worse: bool = False,
    design: Design = RATE,
) -> Measured:
    """Return how often a difference of rates is shown within ``total`` units, the last look at all of them."""
    design = replace(design, part=part)
    parts = []
    count = ceil(total / batch)
    for start in range(0, runs, 500):
        looks = binary(random, rates, part, runs=min(500, runs - start), looks=count, batch=total // count)
        parts.append(first_decisions(looks, design, only_worse=only_worse))
    return share(joined(parts).sign != 0)


def of_units(
    draw: Draw, part: float, total: int, random: np.random.Generator, runs: int, *, only_worse: bool = False
) -> Measured:
    """Return how often a difference is shown between users with several requests that ``draw`` makes."""
    stream = units(random, draw, part, runs=runs, looks=total // BATCH, batch=BATCH)
    return share(joined([first_decisions(looks, RATE, only_worse=only_worse) for looks in stream]).sign != 0)


def of_revenue(
    revenue: Revenue,
    part: float,
    total: int,
    random: np.random.Generator,
    runs: int,
    *,
    looks: int = 500,
    only_worse: bool = False,
    design: Design = MONEY,
) -> Measured:
    """Return how often a difference of revenue is shown."""
    design = replace(design, part=part)
    parts = []
    for start in range(0, runs, 250):
        made = revenue.looks(random, part, runs=min(250, runs - start), looks=looks, batch=total // looks)
        parts.append(first_decisions(made, design, only_worse=only_worse))
    return share(joined(parts).sign != 0)


def of_growing(part: float, random: np.random.Generator, runs: int) -> Measured:
    """Return how often equal variants are told apart while 2,000 users come again, to 25 requests each."""
    parts = []
    for start in range(0, runs, 50):
        made = growing(random, 2000, part, runs=min(50, runs - start), looks=250, batch=200)
        parts.append(first_decisions(made, RATE))
    return share(joined(parts).sign != 0)


def _equal_rates() -> list[Case]:
    return [
        Case(
            group,
            f"equal rates called different{words}",
            f"{rate:.1%} both, {part:.0%} share",
            partial(of_rates, (rate, rate), part, UNITS, design=design),
            bound=0.05,
        )
        for group, words, design in (("aa", "", RATE), ("aa-fresh", ", drawn anew", replace(RATE, by_unit=False)))
        for rate in (0.005, 0.01, 0.05, 0.5)
        for part in (0.5, 0.05)
    ]


def _equal_revenue() -> list[Case]:
    return [
        Case(
            group,
            f"equal {kind} called different{words}",
            f"σ {sigma:g}, {part:.0%} share",
            partial(of_revenue, make(sigma), part, UNITS, design=design),
            bound=0.05,
        )
        for group, words, design in (
            ("aa-revenue", "", MONEY),
            ("aa-fresh", ", drawn anew", replace(MONEY, by_unit=False)),
        )
        for kind, make in (("revenue", Revenue), ("capped revenue", Revenue.capped))
        for sigma in (1.0, 1.5, 2.0, 2.5)
        for part in (0.5, 0.05)
        if (design is MONEY and make is Revenue) or sigma in (1.0, 2.5)
    ]


def _equal_users() -> list[Case]:
    whole = [
        Case(
            "aa-users",
            "equal rates of users called different",
            f"{words}, {part:.0%} share",
            partial(of_units, draw, part, UNITS),
            bound=0.05,
        )
        for words, draw in (
            ("1 to 20 requests", rewards(0.3, one_to_twenty)),
            ("geometric² requests", rewards(0.3, heavy)),
            ("geometric² requests, rates of their own", own_rates(heavy)),
        )
        for part in (0.5, 0.05)
    ]
    again = [
        Case(
            "aa-users",
            "equal rates of users called different",
            f"2,000 users come again to 25 requests each, {part:.0%} share",
            partial(of_growing, part),
            bound=0.05,
        )
        for part in (0.5, 0.2)
    ]
    return [*whole, *again]


def _false_worse() -> list[Case]:
    money = [
        Case(
            "b",
            "equal revenue called worse",
            f"σ 1.5, {part:.0%} share",
            partial(of_revenue, Revenue(1.5), part, UNITS, only_worse=True),
            bound=0.05,
        )
        for part in (0.05, 0.1, 0.2)
    ]
    users = Case(
        "c",
        "equal users called worse",
        "geometric² requests, rates of their own, 5% share",
        partial(of_units, own_rates(heavy), 0.05, UNITS, only_worse=True),
        bound=0.05,
    )
    return [*money, users]


def _wrong_winner() -> list[Case]:
    return [
        Case(
            "wrong",
            "the worse of two called better, A/B",
            f"{rates[0]:.0%} vs {rates[1]:.0%}, batches of {batch}",
            partial(of_rates, rates, 0.5, 2 * planned(rates, 0.5), batch=batch, only_worse=True),
            bound=0.05,
        )
        for rates in ((0.01, 0.02), (0.05, 0.06), (0.9, 0.95))
        for batch in (20, 100)
    ]


def _power() -> list[Case]:
    cases = []
    for rates, part, targets in (
        ((0.05, 0.06), 0.5, ((1, 0.45), (2, 0.83))),
        ((0.05, 0.06), 0.05, ((1, 0.45), (2, 0.80))),
        ((0.9, 0.95), 0.5, ((1, 0.45),)),
    ):
        for times, target in targets:
            group = "o" if rates[0] == 0.9 else "power"
            n = planned(rates, part)
            until = f"{'n' if times == 1 else '2n'} ({times * n:,})"
            cases.append(
                Case(
                    group,
                    "a difference found, undeclared",
                    f"{rates[0]:.0%} vs {rates[1]:.0%}, {part:.0%} share, by {until}",
                    partial(of_rates, rates, part, times * n, batch=max(100, n // 500)),
                    sense="at least",
                    bound=target,
                )
            )
    return cases


CASES: Final = (
    *_equal_rates(),
    *_equal_revenue(),
    *_equal_users(),
    *_false_worse(),
    *_wrong_winner(),
    *_power(),
)
