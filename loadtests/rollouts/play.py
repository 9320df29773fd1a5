"""One rollout, played from its first step to its end.

Rule: the product is asked at every second near trouble what burns, and at chosen looks about everything: where a
statistic of any guardrail is highest within its part of the step. A guardrail that is broken at any look is at one of
those, or very nearly.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Final

import numpy as np

from loadtests.rollouts.books import BASE_MS, WINDOWS, Part, burnt, findings_of, nothing_known
from loadtests.rollouts.traffic import Step, drawn
from loadtests.rollouts.world import DAY, SIDES, Array, World, step_restarts, troubles
from policies.rollouts.rollout import Rollout
from policies.rollouts.standing import START, Moved, Standing
from policies.statistics.burn import FailureWatch, watched

#: Parts of a step, equal in the logarithm of time, in each of which looks are chosen.
PARTS: Final = 4

#: No guardrail is broken where no statistic is so many standard errors from no difference at all.
LEAST_SCORE: Final = 2.0

#: Where a step waits for more than time, it is looked at every so many seconds.
PAUSE: Final = 60.0

#: A step that is not passed so long after it could be is left as it is, as a part of its hold.
PATIENCE: Final = 0.25


@dataclass(frozen=True, slots=True)
class Ended:
    """How a rollout ended: in which state, at which step, after how many seconds, and why (the last event).

    ``promoted`` says whether all got the candidate at the end.
    """

    state: str
    step: int
    promoted: bool
    seconds: float
    metric: str
    why: str
    looks: int

    @property
    def rolled_back(self) -> bool:
        return self.state == "rolled_back"


def play(random: np.random.Generator, world: World, policy: Rollout) -> Ended:
    """Play a rollout until it is rolled back, paused, done, or stands still."""
    begun = random.uniform(0, DAY)
    whole = sum(stage.hold_ms for stage in policy.steps) / 1000
    moved = policy.advance(START, nothing_known(), BASE_MS)
    assert moved is not None
    wrong = troubles(random, world, whole)
    parts: list[Part] = []
    looks, standing = 0, moved.standing
    while standing.state == "running":
        stage, since = policy.steps[standing.step], standing.since_ms
        hold = stage.hold_ms / 1000
        length = hold * (1 + PATIENCE) + 7200
        step = drawn(
            random,
            world,
            float(stage.share if stage.shadow is None else stage.shadow),  # type: ignore[arg-type]
            shadow=stage.shadow is not None,
            began=begun + (since - BASE_MS) / 1000,
            length=length,
            found=wrong.since((since - BASE_MS) / 1000, step_restarts(random, world, length)),
        )
        moved, at, asked = _step(policy, standing, parts, step, since, hold, every=world.steady)
        looks += asked
        parts.append(Part(since, step, at))
        if moved is None:
            return Ended("waiting", standing.step, step.share[1] == 1, (since - BASE_MS) / 1000 + length, "", "", looks)
        standing = moved.standing
    last = (moved or Moved(START, ())).events[-1]
    metric = str(standing.detail.get("metric", ""))
    promoted = standing.state == "done"
    return Ended(
        standing.state, standing.step, promoted, (last["at_ms"] - BASE_MS) / 1000, metric, str(last["why"]), looks
    )


def _step(
    policy: Rollout, standing: Standing, before: list[Part], step: Step, since: int, hold: float, *, every: bool
) -> tuple[Moved | None, int, int]:
    """Play one step; return what moved the rollout, at which bin, and how often everything was looked at."""
    chosen, asked = set(looks_of(step, hold, every=every)), 0
    watch: FailureWatch | None = None
    findings, looked = nothing_known(), -PAUSE
    for at, end in enumerate(step.ends):
        now_ms = since + round(float(end) * 1000)
        watch = _watched(watch, step, at, since, now_ms)
        fast = burnt(findings, watch)
        if fast.burning or fast.alone:
            moved = policy.advance(standing, fast, now_ms)
            if moved is not None:
                return moved, at, asked
        if at in chosen or (end >= hold and end >= looked + PAUSE):
            asked, looked = asked + 1, float(end)
            findings = findings_of(policy, standing, [*before, Part(since, step, at)], watch)
            moved = policy.advance(standing, findings, now_ms)
            if moved is not None:
                standing = moved.standing
                if moved.standing.state != "running" or moved.standing.since_ms != since:
                    return moved, at, asked
    return None, len(step.ends) - 1, asked


def _watched(watch: FailureWatch | None, step: Step, at: int, since: int, now_ms: int) -> FailureWatch:
    """Return what is known after one more bin. Of bins longer than ten seconds the seconds are like each other."""
    totals = {name: step.count(at, side) for side, name in enumerate(SIDES)}
    if watch is not None and now_ms - watch.at_ms > 10_000:
        return replace(watch, at_ms=now_ms, totals=totals, looks=((now_ms, totals),), runs={})
    return watched(watch, since, now_ms, totals, SIDES[0])


def looks_of(step: Step, hold: float, *, every: bool) -> Iterator[int]:
    """Yield the bins at which everything is looked at: in its first ten minutes at ``every`` one."""
    if every:
        yield from np.flatnonzero(step.ends <= 600).tolist()
    ends = step.ends
    edges = np.geomspace(5, max(hold, 10), PARTS + 1)
    scores = [*_scores(step)]
    for begin, end in pairwise(edges):
        inside = np.flatnonzero((ends > begin) & (ends <= end))
        if not len(inside):
            continue
        for score in scores:
            highest = int(inside[score[inside].argmax()])
            if score[highest] >= LEAST_SCORE:
                yield highest


def _scores(step: Step) -> Iterator[Array]:
    """Yield for each guardrail by how many standard errors the candidate is worse, by bin."""
    sums = step.sums
    yield _score(sums["m"], sums["d"])
    yield _score(sums["refused"], sums["d"])
    fast = step.latency[:, :, :-12].sum(2)
    total = step.latency.sum(2)
    yield _score(total - fast, total)
    for metric, window in WINDOWS.items():
        if step.shadow:
            continue
        matured = np.array([step.at(float(end) - window) for end in step.ends])
        n, m = sums[f"{metric}_n"][matured], sums[f"{metric}_m"][matured]
        yield _score(m if metric == "complaint" else n - m, n)


def _score(m: Array, n: Array) -> Array:
    with np.errstate(divide="ignore", invalid="ignore"):
        rate = m / n
        variance = (m.sum(1) / n.sum(1) * (1 - m.sum(1) / n.sum(1)))[:, None] / n
        found: Array = np.nan_to_num((rate[:, 1] - rate[:, 0]) / np.sqrt(variance.sum(1)), neginf=0, posinf=0)
    return found
