"""Sticky units, fixed shares, one look per 100 units: how often equal variants are told apart, and unequal ones."""

from __future__ import annotations

from functools import partial
from math import ceil
from typing import Final

import numpy as np

from loadtests.honesty.cases import Case, Measured, share
from loadtests.honesty.route import Design
from loadtests.honesty.streams import Draw, binary, heavy, one_to_twenty, own_rates, revenue, rewards, units
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
    parts = []
    count = ceil(total / batch)
    for start in range(0, runs, 500):
        looks = binary(random, rates, part, runs=min(500, runs - start), looks=count, batch=total // count)
        parts.append(first_decisions(looks, design, only_worse=only_worse))
    return share(joined(parts).sign != 0)


def of_units(
    draw: Draw,
    part: float,
    total: int,
    random: np.random.Generator,
    runs: int,
    *,
    only_worse: bool = False,
    design: Design,
) -> Measured:
    """Return how often a difference is shown between units that ``draw`` makes."""
    stream = units(random, draw, part, runs=runs, looks=total // BATCH, batch=BATCH)
    decided = [first_decisions(looks, design, only_worse=only_worse) for looks in stream]
    return share(joined(decided).sign != 0)


def _equal_rates() -> list[Case]:
    return [
        Case(
            "aa",
            "equal rates called different",
            f"{rate:.1%} both, {part:.0%} share",
            partial(of_rates, (rate, rate), part, UNITS),
            bound=0.05,
        )
        for rate in (0.005, 0.01, 0.05, 0.5)
        for part in (0.5, 0.05)
    ]


def _equal_revenue() -> list[Case]:
    return [
        Case(
            "aa-revenue",
            "equal revenue called different",
            f"σ {sigma:g}, {part:.0%} share",
            partial(of_units, revenue(sigma), part, UNITS, design=MONEY),
            bound=0.05,
        )
        for sigma in (1.0, 1.5, 2.0, 2.5)
        for part in (0.5, 0.05)
    ]


def _equal_users() -> list[Case]:
    return [
        Case(
            "aa-users",
            "equal rates of users called different",
            f"{words}, {part:.0%} share",
            partial(of_units, rewards((0.3, 0.3), requests), part, UNITS, design=RATE),
            bound=0.05,
        )
        for words, requests in (("1 to 20 requests", one_to_twenty), ("geometric² requests", heavy))
        for part in (0.5, 0.05)
    ]


def _false_worse() -> list[Case]:
    money = [
        Case(
            "b",
            "equal revenue called worse",
            f"σ 1.5, {part:.0%} share",
            partial(of_units, revenue(1.5), part, UNITS, only_worse=True, design=MONEY),
            bound=0.05,
        )
        for part in (0.05, 0.1, 0.2)
    ]
    users = Case(
        "c",
        "equal users called worse",
        "geometric² requests, rates of their own, 5% share",
        partial(of_units, own_rates(heavy), 0.05, UNITS, only_worse=True, design=RATE),
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
                    partial(of_rates, rates, part, times * n),
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
