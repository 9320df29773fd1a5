"""A Thompson bandit of two variants: false and wrong winners, how soon it decides, and where its traffic goes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from math import inf
from typing import Final, Literal

import numpy as np
from scipy.special import digamma, ndtr, polygamma

from loadtests.honesty.cases import Array, Case, Measured, mean, median, share
from loadtests.honesty.streams import Looks, of_counts
from loadtests.honesty.verdicts import Decided, Design, Plans, first_decisions
from router.outcomes import values
from router.records import Feedback, Prediction
from router.snapshot import Metric

BANDIT: Final = Design(by_unit=False, adaptive=True)

#: The rates of (baseline, variant) in a batch, by when it begins, as a share of the run in [0, 1).
Rates = Callable[[float], tuple[float, float]]


def shares(successes: Array, failures: Array, floor: float) -> Array:
    """Return the variant's share in each run, from the sums of both sides, of the shape (runs, 2).

    P(best) of two Beta posteriors, whose log odds are taken as normal: the traffic of many runs at once. Whatever the
    shares are, the verdict must hold for them; where the plan itself is judged, the product's own makes it.
    """
    a, b = 1 + successes, 1 + failures
    centre = digamma(a) - digamma(b)
    spread = polygamma(1, a) + polygamma(1, b)
    best = ndtr((centre[:, 1] - centre[:, 0]) / np.sqrt(spread.sum(axis=1)))
    found: Array = (1 - 2 * floor) * best + floor
    return found


def played(
    rates: Rates, floor: float, *, requests: int, batch: int, random: np.random.Generator, runs: int
) -> tuple[Looks, Array]:
    """Return looks at the pooled sums after each batch, and the variant's share in each, of shape (runs, batches)."""
    batches = requests // batch
    n, successes = np.zeros((runs, batches, 2)), np.zeros((runs, batches, 2))
    given = np.empty((runs, batches))
    had, won = np.zeros((runs, 2)), np.zeros((runs, 2))
    for at in range(batches):
        given[:, at] = shares(won, had - won, floor)
        variant = random.binomial(batch, given[:, at])
        got = np.stack([batch - variant, variant], axis=1)
        had = had + got
        won = won + random.binomial(got, np.array(rates(at / batches)))
        n[:, at], successes[:, at] = had, won
    return of_counts(n, successes), given


def cycle(low: float, high: float, times: int) -> Rates:
    """Return equal rates that go from ``low`` to ``high`` and back, this often, evenly in log odds."""

    def rates(at: float) -> tuple[float, float]:
        turn = (1 - np.cos(2 * np.pi * times * at)) / 2
        rate = low * (high / low) ** turn
        return rate, rate

    return rates


def constant(baseline: float, variant: float) -> Rates:
    return lambda at: (baseline, variant)


def decided(
    rates: Rates,
    floor: float,
    requests: int,
    random: np.random.Generator,
    runs: int,
    *,
    batch: int = 100,
    only_worse: bool = False,
) -> Decided:
    looks, _ = played(rates, floor, requests=requests, batch=batch, random=random, runs=runs)
    return first_decisions(looks, BANDIT, only_worse=only_worse)


def told_apart(rates: Rates, floor: float, requests: int, random: np.random.Generator, runs: int) -> Measured:
    """Return how often a winner is named."""
    return share(decided(rates, floor, requests, random, runs).sign != 0)


def until_decided(
    rates: Rates, floor: float, requests: int, batch: int, random: np.random.Generator, runs: int
) -> Measured:
    """Return the median number of requests until the verdict, in thousands."""
    found = decided(rates, floor, requests, random, runs, batch=batch)
    return median(np.where(found.sign > 0, (found.look + 1.0) * batch, inf), random, 1000)


def worse_leads(random: np.random.Generator, runs: int) -> Measured:
    """Return how often the worse of 4 and 6 % has more than half of the traffic at the end of ten days.

    Both rates are multiplied by a daily factor of .4 to 4. The product makes the plans, one per 250 requests.
    """
    batch, batches, days = 250, 400, 10
    ended = []
    for _ in range(runs):
        plans, part = Plans(floor=0.02), 0.5
        for at in range(batches):
            factor = 0.4 * 10 ** ((1 - np.cos(2 * np.pi * days * at / batches)) / 2)
            variant = int(random.binomial(batch, part))
            n = (batch - variant, variant)
            won = random.binomial(n, np.array((0.06, 0.04)) * factor)
            part = plans.after(np.array(n, dtype=float), won.astype(float))
        ended.append(part > 0.5)
    return share(ended)


def share_of_slow(mature: Literal["window", "arrival"], random: np.random.Generator, runs: int) -> Measured:
    """Return the mean share, over ten days, of the variant whose feedback takes 23 h and not 1 h; rates are equal.

    ``router.outcomes`` says what a request is worth at each age; a plan is made every two hours of 400 requests.
    """
    steps, batch, newest = 120, 400, len(_AGES)
    worth = _worths(replace(_CLICK, mature=mature))
    there, value = np.isfinite(worth), np.nan_to_num(worth)
    means = []
    for _ in range(runs):
        plans, part, parts = Plans(floor=0.02), 0.5, []
        sent = np.zeros((steps, 2, 2))  # by step, side, and whether there was a click
        for at in range(steps):
            n = np.array((batch - (variant := int(random.binomial(batch, part))), variant))
            clicks = random.binomial(n, 0.05)
            sent[at] = np.stack([n - clicks, clicks], axis=1)
            recent, older = sent[max(at + 1 - newest, 0) : at + 1][::-1], sent[: max(at + 1 - newest, 0)].sum(axis=0)
            ages = len(recent)
            had = (recent * there[:ages]).sum(axis=(0, 2)) + (older * there[-1]).sum(axis=1)
            won = (recent * value[:ages]).sum(axis=(0, 2)) + (older * value[-1]).sum(axis=1)
            part = plans.of_all(had, won)
            parts.append(part)
        means.append(np.mean(parts))
    return mean(means)


def off_half(mature: Literal["window", "arrival"], random: np.random.Generator, runs: int) -> Measured:
    """Return how far that share is from one half."""
    found = share_of_slow(mature, random, runs)
    return Measured(abs(found.value - 0.5), found.error, found.runs)


_HOUR: Final = 3_600_000
_AGES: Final = range(2, 27, 2)
_CLICK: Final = Metric(
    name="click",
    kind="event",
    score=None,
    better="higher",
    window_ms=24 * _HOUR,
    mature="window",
    missing=0.0,
    fold="any",
    range=None,
    definition="",
)


def _worths(metric: Metric) -> Array:
    """Return the mature value of a request by its age, its side and whether it is clicked; NaN: none yet."""
    found = np.full((len(_AGES), 2, 2), np.nan)
    call = Prediction(
        id="p", at_ms=0, route="r", epoch="", period=1, revision=1, variant="v", model="v", version="1",
        role="primary", reason="request", propensity=0.5, status=200,
    )  # fmt: skip
    for at, age in enumerate(_AGES):
        for side, delay in enumerate((1, 23)):
            for clicked in (0, 1):
                came = clicked and delay <= age
                events = [Feedback("click", 1, delay * _HOUR, prediction_id="p")] if came else []
                for value in values([call], events, metric, closed=age >= 24):
                    if value.mature is not None:
                        found[at, side, clicked] = value.mature
    return found


def _winners() -> list[Case]:
    return [
        Case(
            "a",
            "a false winner, Thompson, rates cycle five times",
            f"{low:.0%} to {high:.0%}, floor .02, 20,000 requests",
            partial(told_apart, cycle(low, high, 5), 0.02, 20_000),
            bound=0.05,
        )
        for low, high in ((0.02, 0.2), (0.03, 0.1))
    ] + [
        Case(
            "wrong",
            "the worse of two called better, Thompson",
            f"{low:.0%} vs {high:.0%}, floor {floor:g}, batches of {batch}",
            partial(_wrong, constant(low, high), floor, 20_000, batch),
            bound=0.05,
        )
        for low, high in ((0.01, 0.02), (0.05, 0.06), (0.9, 0.95))
        for floor in (0.02, 0.1)
        for batch in (20, 100)
    ]


def _wrong(rates: Rates, floor: float, requests: int, batch: int, random: np.random.Generator, runs: int) -> Measured:
    return share(decided(rates, floor, requests, random, runs, batch=batch, only_worse=True).sign != 0)


CASES: Final = (
    *_winners(),
    *(
        Case(
            "g",
            "thousands of requests until the verdict, Thompson (median)",
            f"5% vs 6%, floor {floor:g}",
            partial(until_decided, constant(0.05, 0.06), floor, 600_000, 500),
            bound=bound,
            runs=300,
        )
        for floor, bound in ((0.02, 137), (0.1, 49))
    ),
    Case(
        "cycle",
        "the worse has most traffic at the end",
        "4% vs 6% times .4 to 4 each day, 100,000 requests",
        worse_leads,
        bound=0.05,
        runs=200,
    ),
    Case(
        "delay",
        "mean share of the slower of two equals, less one half",
        "feedback after 1 h and 23 h, window 24 h",
        partial(off_half, "window"),
        bound=0.03,
        runs=400,
    ),
    Case(
        "k",
        "the same",
        'mature = "arrival", missing = 0 (now refused)',
        partial(off_half, "arrival"),
        runs=100,
    ),
)
