"""Two rankers whose lists overlap much, and a user who reads from the top and clicks once.

Only the user and the rankers are simulated: lists are merged by the plan, clicks become votes by ``router.outcomes``,
and the votes are judged by ``preference``. Over the order of a draft and over the click the votes are averaged exactly;
over queries by drawing them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Final

import numpy as np

from gateway.report.verdict import DRAFT_ALARM
from loadtests.honesty.cases import Array, Case, Measured, share
from policies.plans import CompetitivePairs, Slot, TeamDraft, competitive_pairs, team_draft
from policies.statistics.preference import preference, unfairness_p
from policies.types import Tally
from router.outcomes import values
from router.records import Feedback, Prediction
from router.snapshot import Metric

#: How likely an item of each grade is clicked, where the user has come to it (SeaseLtd, statistics.md 1.9).
CLICKED: Final = (0.05, 0.1, 0.2, 0.4, 0.8)
#: How common each grade is among the items that a query finds.
GRADES: Final = (0.5, 0.2, 0.15, 0.1, 0.05)

LENGTH: Final = 10
FOUND: Final = 40

_METRIC: Final = Metric(
    name="click",
    kind="event",
    score=None,
    better="higher",
    window_ms=1000,
    mature="window",
    missing=None,
    fold="any",
    range=None,
    definition="d",
)


@dataclass(frozen=True, slots=True)
class Rankers:
    """How two rankers err: ``common`` is the noise that both add to the grades, ``own`` what each adds besides.

    As they are, 7.5 of their first 10 items are the same.
    """

    common: float = 1.0
    own: tuple[float, float] = (0.8, 0.5)


def votes(plan: TeamDraft, slots: Sequence[Slot], lists: Sequence[Sequence[str]]) -> list[float]:
    """Return the vote of a click on each slot: for the second ranker (1), for the first (−1), or none (0)."""
    ids = [lists[slot.source][slot.position] for slot in slots]
    rows = [
        Prediction(
            id="p",
            at_ms=0,
            route="r",
            epoch="e",
            period=1,
            revision=1,
            variant=name,
            model="m",
            version="1",
            role="draft",
            reason="draft",
            propensity=1.0,
            status=200,
            items=tuple(item for item, slot in zip(ids, slots, strict=True) if slot.credit == index),
            shown=tuple(ids) if index == 0 else None,
        )
        for index, name in enumerate(plan.rankers)
    ]
    found = []
    for item in ids:
        click = Feedback("click", True, 1, "p", item=item)
        mine = [one for one in values(rows, [click], _METRIC, closed=True) if one.against == plan.rankers[0]]
        found.append(sum(one.mature or 0.0 for one in mine if one.variant == plan.rankers[1]))
    return found


def query(plan: TeamDraft, lists: Sequence[Sequence[str]], clicked: dict[str, float]) -> tuple[float, float]:
    """Return the probabilities that an impression votes for the second ranker, and for the first."""
    orders = ((0, 1), (1, 0))
    drawn: list[Sequence[Slot]]
    if isinstance(plan, CompetitivePairs):
        drawn = [competitive_pairs(lists, plan.length, order) for order in orders]
    else:
        rounds = product(orders, repeat=plan.length // 2)
        drawn = [team_draft(lists, plan.length, [*each, orders[0]].__getitem__) for each in rounds]
    won = lost = 0.0
    for slots in drawn:
        comes = 1.0
        for slot, vote in zip(slots, votes(plan, slots, lists), strict=True):
            clicks = clicked[lists[slot.source][slot.position]]
            won += comes * clicks * (vote > 0)
            lost += comes * clicks * (vote < 0)
            comes *= 1 - clicks
    return won / len(drawn), lost / len(drawn)


def chances(rankers: Rankers, random: np.random.Generator, queries: int) -> Array:
    """Return (pairs or team draft) × (for the second, for the first): the probabilities of a vote per impression."""
    plans = (CompetitivePairs(("old", "new"), "", "", LENGTH), TeamDraft(("old", "new"), "", "", LENGTH))
    total = np.zeros((2, 2))
    for _ in range(queries):
        grades = random.choice(len(GRADES), FOUND, p=GRADES)
        seen = grades + rankers.common * random.standard_normal(FOUND)
        lists = [
            [f"{item}" for item in np.argsort(-(seen + own * random.standard_normal(FOUND)))[: 2 * LENGTH]]
            for own in rankers.own
        ]
        clicked = {f"{item}": CLICKED[grade] for item, grade in enumerate(grades)}
        total += [query(plan, lists, clicked) for plan in plans]
    return total / queries


def impressions(
    chance: Array, random: np.random.Generator, runs: int, growth: float = 0.05, most: int = 30_000
) -> Array:
    """Return how many impressions each run shows until a preference is said; infinite: not within ``most`` votes.

    Each user brings one impression. ``chance`` is that of a vote for and against. It is looked at after every 10 votes,
    and later when there are more by the share ``growth``.
    """
    share_ = chance[0] / chance.sum()
    needed = np.full(runs, np.inf)
    wins, shown = np.zeros(runs, int), np.zeros(runs)
    votes_ = 0
    while votes_ < most and np.isinf(needed).any():
        every = max(10, int(votes_ * growth))
        votes_ += every
        wins += random.binomial(every, share_, runs)
        shown += every + random.negative_binomial(every, chance.sum(), runs)
        found, of_run = np.unique(wins, return_inverse=True)
        tallies = [Tally(n=votes_, d=votes_, positive=won, negative=votes_ - won) for won in found.tolist()]
        said = np.array([preference(tally).p <= 0.05 for tally in tallies])[of_run]
        needed[said & np.isinf(needed)] = shown[said & np.isinf(needed)]
    return needed


def pairs_to_team_draft(random: np.random.Generator, runs: int, rankers: Rankers = Rankers()) -> Measured:
    """Return the impressions to 80 % power by competitive pairs ÷ those by team draft, over about ``runs`` queries.

    The error is that of leaving out each tenth of the queries, where impressions go with (w + l) / (w − l)².
    """
    parts = np.array([chances(rankers, random, max(runs // 10, 5)) for _ in range(10)])
    needed = [float(np.quantile(impressions(one, random, 1000), 0.8, method="higher")) for one in parts.mean(axis=0)]
    without = []
    for part in range(10):
        pairs, drafted = (one.sum() / (one[0] - one[1]) ** 2 for one in np.delete(parts, part, axis=0).mean(axis=0))
        without.append(pairs / drafted)
    error = float(np.sqrt(9) * np.std(without))
    return Measured(needed[0] / needed[1], error, 10 * max(runs // 10, 5))


def equal_rankers(random: np.random.Generator, runs: int) -> Measured:
    """Return how often a preference is ever said between rankers that err alike, looked at after every 10 votes."""
    return share(np.isfinite(impressions(np.array([0.2, 0.2]), random, runs, growth=0.0, most=5000)))


def returning_units(random: np.random.Generator, runs: int, units: int = 100, times: int = 300) -> Measured:
    """Return how often a preference is ever said in a fixed group of units that vote again and again by fair coins."""
    sums, ever = np.zeros((runs, units), np.int32), np.zeros(runs, bool)
    for each in range(1, times + 1):
        sums += 2 * random.integers(0, 2, sums.shape, np.int8) - 1
        wins, losses = (sums > 0).sum(axis=1), (sums < 0).sum(axis=1)
        found, of_run = np.unique(np.stack([wins, losses], axis=1), axis=0, return_inverse=True)
        tallies = [Tally(n=units, d=float(units * each), positive=w, negative=x) for w, x in found.tolist()]
        ever |= np.array([preference(tally).p <= 0.05 for tally in tallies])[of_run.reshape(-1)]
    return share(ever)


def fair_drafts(random: np.random.Generator, runs: int) -> Measured:
    """Return how often a check alarms of fair drafts, at every 50 of 20,000 lists.

    Which ranker is first is a coin. Who has more of the shown items is one in three lists, and who has the better
    places follows from who is first: so the three checks go together, as they do in drafts.
    """
    alarmed, level = np.zeros(runs, bool), DRAFT_ALARM / 3
    for run in range(runs):
        coins = random.choice((-1.0, 1.0), 20_000)
        uneven = np.where(random.random(20_000) < 1 / 3, random.choice((-1.0, 1.0), 20_000), 0.0)
        for values_ in (coins, uneven, coins * random.random(20_000)):
            sums = [np.cumsum(of)[49::50] for of in (values_, values_ > 0, values_ < 0)]
            far = np.abs(sums[0]) > 3 * np.sqrt(np.maximum(sums[1] + sums[2], 1) / 3)
            for at in np.flatnonzero(far):
                m, more, less = (float(of[at]) for of in sums)
                tally = Tally(n=50 * int(at + 1), m=m, d=50.0 * (at + 1), positive=int(more), negative=int(less))
                alarmed[run] |= unfairness_p(tally) <= level
    return share(alarmed)


CASES: Final = (
    Case(
        "p",
        "a check of interleaving alarms though drafts are fair",
        "three checks, at every 50 of 20,000 lists",
        fair_drafts,
        bound=0.001,
        runs=2000,
    ),
    Case(
        "p",
        "impressions to 80 % power, competitive pairs ÷ team draft",
        "cascade user, one click, 7.5 of 10 items shared",
        pairs_to_team_draft,
        bound=0.6,
        runs=1000,
    ),
    Case(
        "p",
        "impressions to 80 % power, competitive pairs ÷ team draft",
        "the same, worse rankers, 7.7 of 10 items shared",
        partial(pairs_to_team_draft, rankers=Rankers(common=1.5)),
        bound=0.6,
        runs=1000,
    ),
    Case("p", "equal rankers, ever a preference", "one impression a user, 5,000 votes", equal_rankers, bound=0.05),
    Case(
        "p",
        "equal rankers, ever a preference, users who come back",
        "100 users, 300 votes each",
        returning_units,
        bound=0.05,
    ),
)
