"""A Thompson bandit of two variants: false and wrong winners, how soon it decides, and where its traffic goes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from math import inf
from typing import Final, Literal

import numpy as np
from scipy.special import digamma, logit, ndtr, polygamma

from loadtests.honesty.cases import Array, Case, Measured, mean, median, share
from loadtests.honesty.verdicts import LEAST_SCORE, Decided, Plans, fresh_band, fresh_decision, fresh_stretch
from policies.types import StretchTallies
from router.compile import STEP
from router.outcomes import values
from router.records import Feedback, Prediction
from router.snapshot import Metric

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


@dataclass(frozen=True, slots=True)
class Played:
    """What bandits did: by run and batch, the variant's share, and requests and successes of (baseline, variant)."""

    share: Array
    n: Array
    successes: Array

    def scores(self) -> Array:
        """Return how many standard errors the successes of the variant are above its share of them, by look.

        It chooses at which looks a decision is asked for, and decides nothing.
        """
        n, won = self.n.sum(axis=2), self.successes.sum(axis=2)
        rate = np.cumsum(won, axis=1) / np.cumsum(n, axis=1)
        over = self.successes[..., 1] - rate * self.n[..., 1] - self.share * (won - rate * n)
        spread = self.share * (1 - self.share) * (won * (1 - rate) ** 2 + (n - won) * rate**2)
        found: Array = np.cumsum(over, axis=1) / np.sqrt(np.maximum(np.cumsum(spread, axis=1), 1e-300))
        return found

    def stretches(self, run: int, upto: int) -> list[StretchTallies]:
        """Return the tallies of the first batches of a run by stretch: a plan is in force until the next."""
        begins = np.flatnonzero(np.diff(self.share[run, :upto], prepend=-1.0))
        n, won = (np.add.reduceat(of[run, :upto], begins, axis=0) for of in (self.n, self.successes))
        return [fresh_stretch(float(self.share[run, at]), *sums) for at, *sums in zip(begins, n, won, strict=True)]


def played(
    rates: Rates,
    floor: float,
    *,
    requests: int,
    batch: int,
    random: np.random.Generator,
    runs: int,
    late: int = 0,
    anew: int = 0,
) -> Played:
    """Return what bandits do that may make a plan after each batch, and do where the share moves by a step.

    A plan knows nothing of the last ``late`` batches, and of the variant nothing before batch ``anew``: it has a new
    version since.
    """
    batches = requests // batch
    share, n, successes = np.zeros((runs, batches)), np.zeros((runs, batches, 2)), np.zeros((runs, batches, 2))
    part = np.full(runs, 0.5)
    for at in range(batches):
        share[:, at] = part
        variant = random.binomial(batch, part)
        n[:, at] = np.stack([batch - variant, variant], axis=1)
        successes[:, at] = random.binomial(n[:, at].astype(int), np.array(rates(at / batches)))
        begins, known = [0, anew if at >= anew else 0], max(at + 1 - late, 0)
        had, won = (
            np.stack([of[:, begin : max(known, begin), side].sum(axis=1) for side, begin in enumerate(begins)], axis=1)
            for of in (n, successes)
        )
        planned = shares(won, had - won, floor)
        part = np.where(np.abs(logit(planned) - logit(part)) > STEP, planned, part)
    return Played(share, n, successes)


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
    """Return the first decision of each run, when one looks after every batch."""
    return first(played(rates, floor, requests=requests, batch=batch, random=random, runs=runs), only_worse=only_worse)


def first(made: Played, *, only_worse: bool = False) -> Decided:
    """Return the first decision of each run."""
    scores, (runs, batches) = made.scores(), made.share.shape
    asked = (scores <= -LEAST_SCORE) if only_worse else (np.abs(scores) >= LEAST_SCORE)
    sign, look = np.zeros(runs, dtype=np.int64), np.full(runs, batches, dtype=np.int64)
    for run in range(runs):
        for at in np.flatnonzero(asked[run]):
            found = fresh_decision(made.stretches(run, int(at) + 1))
            if found:
                sign[run], look[run] = found, at
                break
    return Decided(sign, look)


def told_apart(rates: Rates, floor: float, requests: int, random: np.random.Generator, runs: int) -> Measured:
    """Return how often a winner is named."""
    return share(decided(rates, floor, requests, random, runs).sign != 0)


def told_apart_anew(random: np.random.Generator, runs: int) -> Measured:
    """Return how often a winner is named of equal variants, one of which has a new version half-way.

    Labels come ten batches of 200 requests late. What is compared is what came since, as far as it has labels.
    """
    late, half = 10, 100
    made = played(cycle(0.05, 0.1, 3), 0.02, requests=40_000, batch=200, random=random, runs=runs, late=late, anew=half)
    since = [of[:, half:-late] for of in (made.share, made.n, made.successes)]
    return share(first(Played(*since)).sign != 0)


def told_apart_corrected(random: np.random.Generator, runs: int) -> Measured:
    """Return how often a winner is named of equal variants, at every 100 of 20,000 requests, where labels change.

    Thirty batches later 30 % of the successes are corrected to failures, and 2 % of the failures to successes.
    """
    after, rate = 30, 0.1
    made = played(constant(rate, rate), 0.02, requests=20_000, batch=100, random=random, runs=runs)
    lost = random.binomial(made.successes.astype(int), 0.3)
    won = random.binomial((made.n - made.successes).astype(int), 0.02)
    settled = made.successes - lost + won
    named = np.zeros(runs, dtype=bool)
    for at in range(1, made.share.shape[1] + 1):
        old = max(at - after, 0)
        seen = np.concatenate([settled[:, :old], made.successes[:, old:at]], axis=1)
        now = Played(made.share[:, :at], made.n[:, :at], seen)
        for run in np.flatnonzero((np.abs(now.scores()[:, -1]) >= LEAST_SCORE) & ~named):
            named[run] = fresh_decision(now.stretches(int(run), at)) != 0
    return share(named)


def missed(rates: Rates, floor: float, requests: int, random: np.random.Generator, runs: int) -> Measured:
    """Return how often the band that describes a bandit's difference misses it, looked at once, at the end."""
    made = played(rates, floor, requests=requests, batch=100, random=random, runs=runs)
    baseline, variant = rates(0.0)
    within = []
    for run in range(runs):
        band = fresh_band(made.stretches(run, requests // 100))
        within.append(band is not None and band[0] <= variant - baseline <= band[1])
    return share([not one for one in within])


def until_decided(
    rates: tuple[float, float], floor: float, requests: int, random: np.random.Generator, runs: int
) -> Measured:
    """Return the median number of requests until the verdict, in thousands, with the product's own plans.

    A plan is made, and looked at, after each 1,000 requests, or one hundredth more if that is more.
    """
    found = []
    for _ in range(runs):
        plans, done, last = Plans(floor), 0, 0
        while done < requests:
            batch = max(1000, done // 100)
            done += batch
            variant = int(random.binomial(batch, plans.part))
            n = np.array((batch - variant, variant))
            won = random.binomial(n, rates)
            plans.after(n.astype(float), won.astype(float))
            last = fresh_decision(plans.stretches())
            if last:
                break
        found.append(float(done) if last > 0 else inf)
    return median(found, random, 1000)


def worse_leads(random: np.random.Generator, runs: int) -> Measured:
    """Return how often the worse of 4 and 6 % has more than half of the traffic at the end of ten days.

    Both rates are multiplied by a daily factor of .4 to 4. The product makes the plans, one per 250 requests.
    """
    batch, batches, days = 250, 400, 10
    ended = []
    for _ in range(runs):
        plans = Plans(floor=0.02)
        for at in range(batches):
            factor = 0.4 * 10 ** ((1 - np.cos(2 * np.pi * days * at / batches)) / 2)
            variant = int(random.binomial(batch, plans.part))
            n = (batch - variant, variant)
            won = random.binomial(n, np.array((0.06, 0.04)) * factor)
            plans.after(np.array(n, dtype=float), won.astype(float))
        ended.append(plans.part > 0.5)
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
        plans, parts, begins, given = Plans(floor=0.02), [], [0], [0.5]
        sent = np.zeros((steps, 2, 2))  # by step, side, and whether there was a click
        for at in range(steps):
            n = np.array((batch - (variant := int(random.binomial(batch, plans.part))), variant))
            clicks = random.binomial(n, 0.05)
            sent[at] = np.stack([n - clicks, clicks], axis=1)
            age = np.minimum(at - np.arange(at + 1), newest - 1)
            had, won = ((sent[: at + 1] * of[age]).sum(axis=2) for of in (there, value))
            sums = zip(given, np.add.reduceat(had, begins), np.add.reduceat(won, begins), strict=True)
            parts.append(plans.part)
            if plans.learn([fresh_stretch(*each) for each in sums]) and at + 1 < steps:
                begins.append(at + 1)
                given.append(plans.part)
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
    Case(
        "a",
        "a false winner, Thompson, since a new version",
        "5% to 10% three times, labels 2,000 requests late, 40,000 requests",
        told_apart_anew,
        bound=0.05,
    ),
    Case(
        "a",
        "a false winner, Thompson, corrected labels",
        "10%, of which a third is corrected 3,000 requests later, 20,000 requests",
        told_apart_corrected,
        bound=0.05,
    ),
    *(
        Case(
            "band",
            "the band that describes a bandit misses the difference",
            f"{low:.0%} vs {high:.0%}, floor {floor:g}, once, at 20,000 requests",
            partial(missed, constant(low, high), floor, 20_000),
        )
        for low, high in ((0.05, 0.05), (0.05, 0.06), (0.06, 0.12))
        for floor in (0.02, 0.1)
    ),
    *(
        Case(
            "g",
            "thousands of requests until the verdict, Thompson (median)",
            f"5% vs 6%, floor {floor:g}",
            partial(until_decided, (0.05, 0.06), floor, 600_000),
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
