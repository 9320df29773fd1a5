"""What is measured of rollouts: false rollbacks, harmful promotions, and how long harm takes to be found."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from statistics import NormalDist
from typing import Final

import numpy as np

from loadtests.honesty.cases import Case, Measured, median, share
from loadtests.rollouts.play import Ended, play
from loadtests.rollouts.traffic import CALLS, OFTEN, Whole
from loadtests.rollouts.world import Array, World
from policies.rollouts.ladder import Stage
from policies.rollouts.rollout import Rollout

MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000

#: Lists of steps of about seven days each: the one of the docs, one in a hurry, and one that only waits.
LADDERS: Final = {
    "shadow, 1, 10, 50, 100 %": (
        Stage(shadow=1.0, hold=HOUR, pairs=500, agreement=0.9),
        Stage(share=0.01, hold=30 * MINUTE, units=200),
        Stage(share=0.1, hold=DAY),
        Stage(share=0.5, hold=4 * DAY, clean=("correct",)),
        Stage(share=1.0, hold=DAY),
    ),
    "5, 20, 50, 100 %, in a hurry": (
        Stage(share=0.05, hold=10 * MINUTE),
        Stage(share=0.2, hold=HOUR),
        Stage(share=0.5, hold=6 * DAY, clean=("failures", "correct")),
        Stage(share=1.0, hold=DAY),
    ),
    "50, 90, 100 %": (
        Stage(share=0.5, hold=3 * DAY),
        Stage(share=0.9, hold=3 * DAY, clean=("correct",)),
        Stage(share=1.0, hold=DAY),
    ),
}

#: A step list for how soon harm is found: all of it in one step, half of the traffic.
HALF: Final = (Stage(share=0.5, hold=7 * DAY), Stage(share=1.0, hold=HOUR))


def fixed_sample(
    rates: tuple[float, float], bound: float, *, sticky: bool, alpha: float = 0.05, power: float = 0.8
) -> float:
    """Return how many calls of each a fixed one-sided test needs to show that the difference is beyond the bound."""
    z = NormalDist().inv_cdf(1 - alpha) + NormalDist().inv_cdf(power)
    each, often = (CALLS, OFTEN) if sticky else (CALLS[:1], np.ones(1))
    return z * z * sum(_variance(rate, each, often) for rate in rates) / (rates[1] - rates[0] - bound) ** 2


def _variance(rate: float, each: Whole, often: Array) -> float:
    """Return the variance per call of a unit's failures less ``rate`` of its calls; half of them are whole units'."""
    single = rate / 2 / (1 - rate / 2)
    calls, squares = float(often @ each), float(often @ each**2)
    apart = (1 - rate / 2) * (calls * single * (1 - single) + squares * single**2)
    return (rate / 2 * squares + apart - squares * rate**2) / calls


def ended(world: World, steps: tuple[Stage, ...], random: np.random.Generator, runs: int) -> list[Ended]:
    """Play so many rollouts."""
    policy = Rollout(stable="old", candidate="new", steps=steps, sticky=world.sticky)
    return [play(random, world, policy) for _ in range(runs)]


def how_often(
    what: Callable[[Ended], bool], world: World, steps: tuple[Stage, ...], random: np.random.Generator, runs: int
) -> Measured:
    return share([what(one) for one in ended(world, steps, random, runs)])


def seconds(world: World, steps: tuple[Stage, ...], unit: float, random: np.random.Generator, runs: int) -> Measured:
    """Return the median time to the rollback, as a multiple of ``unit``; infinite where there was none."""
    found = [one.seconds if one.rolled_back else np.inf for one in ended(world, steps, random, runs)]
    return median(found, random, unit)


def _healthy() -> list[Case]:
    return [
        Case(
            "healthy",
            "healthy rollouts rolled back",
            f"{name}; {'sticky users' if world.sticky else 'drawn anew'}{words}",
            partial(how_often, lambda one: one.rolled_back, world, steps),
            bound=0.01,
            runs=300 if words or world.sticky else 1000,
        )
        for name, steps in LADDERS.items()
        for world, words in (
            (World(), ""),
            (World(sticky=True), ""),
            (World(restarts_a_step=1.0), ", restarts early in each step"),
        )
    ]


def _harmful() -> list[Case]:
    worse = (0.9, 0.86)  # the bound is two points
    return [
        Case(
            "harmful",
            "promoted to all, though quality is worse by twice the margin",
            f"{name}; {'sticky users' if sticky else 'drawn anew'}",
            partial(
                how_often,
                lambda one: one.promoted,
                World(sticky=sticky, correct=worse),
                steps,
            ),
            bound=0.05,
            runs=300 if sticky else 1000,
        )
        for name, steps in LADDERS.items()
        for sticky in (False, True)
    ]


def _soon() -> list[Case]:
    calm = {"outages_a_week": 0.0, "restarts": False, "client_errors": (0.0, 0.0), "steady": True}
    cases = []
    for sticky in (False, True):
        words = "sticky users" if sticky else "drawn anew"
        n = fixed_sample((0.05, 0.08), 0.01, sticky=sticky)
        world = World(rate=50.0, sticky=sticky, failures=(0.05, 0.08), **calm)  # type: ignore[arg-type]
        cases.append(
            Case(
                "soon",
                "median time to the rollback ÷ that of a fixed test",
                f"5 → 8 % failures, 50/50 of 50 calls/s, bound 1 point; {words}",
                partial(seconds, world, HALF, n / 25),
                bound=2.0,
                runs=500,
            )
        )
        for rate, part in ((50.0, 0.5), (10.0, 0.5), (500.0, 0.01)):
            units = rate * part / (float(CALLS @ OFTEN) if sticky else 1)
            world = World(rate=rate, sticky=sticky, failures=(0.05, 1.0), **calm)  # type: ignore[arg-type]
            steps = (Stage(share=part, hold=HOUR), Stage(share=1.0, hold=HOUR))
            cases.append(
                Case(
                    "soon",
                    "median seconds to the rollback",
                    f"5 → 100 % failures, {part:.0%} of {rate:.0f} calls/s, {units:.0f} units/s; {words}",
                    partial(seconds, world, steps, 1.0),
                    bound=2.0 if units >= 5 else None,
                    runs=500,
                )
            )
    return cases


CASES: Final = (*_healthy(), *_harmful(), *_soon())
