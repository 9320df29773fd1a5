"""What was seen of a step's failures, second by second: runs of failure, and the worst ten seconds.

Rule: values only, made from totals since the step began. What is kept in memory alone may be lost at any time: what it
knew is then unknown, and nothing that follows is bolder for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final, NamedTuple

from policies.types import Tally

#: A pod's restart takes at most so long. No decision is made of so few seconds, nor of a difference that they explain.
BRIEF_MS: Final = 10_000

#: A look adds at most this to how long a run lasts: what is recorded late comes all at once, and shows no duration.
LONGEST_STEP_MS: Final = 2_000

#: A look that comes sooner after the last one is part of the next.
_LEAST_STEP_MS: Final = 200


class Count(NamedTuple):
    """Totals of one variant since the step began; they only grow. ``failed`` units met at least one failure."""

    units: int = 0
    failed: int = 0
    calls: float = 0.0
    failures: float = 0.0

    @classmethod
    def of(cls, tally: Tally) -> Count:
        """Return the counts of a tally of calls: M failures of D calls."""
        return cls(tally.n, tally.positive, tally.d, tally.m)

    def __sub__(self, other: Count) -> Count:
        return Count(
            self.units - other.units,
            self.failed - other.failed,
            self.calls - other.calls,
            self.failures - other.failures,
        )

    def and_also(self, other: Count) -> Count:
        """Return the counts of both."""
        return Count(
            self.units + other.units,
            self.failed + other.failed,
            self.calls + other.calls,
            self.failures + other.failures,
        )

    @property
    def answered(self) -> float:
        return self.calls - self.failures


class Run(NamedTuple):
    """A time in which a variant failed most of its calls at every look, and what the baseline did meanwhile.

    ``failed`` counts units for the first failure that they ever met in this step, ``answered`` calls without failure.
    """

    lasted_ms: int = 0
    failed: int = 0
    answered: float = 0.0
    calls: float = 0.0
    base: Count = Count()


class Seconds(NamedTuple):
    """What some seconds added: to the variant, and to the baseline."""

    own: Count
    base: Count

    @property
    def excess(self) -> float:
        """How many more of the variant's calls failed than of as many of the baseline's."""
        share = self.base.failures / self.base.calls if self.base.calls > 0 else 0.0
        return self.own.failures - share * self.own.calls


NOTHING: Final = Seconds(Count(), Count())


@dataclass(frozen=True, slots=True)
class FailureWatch:
    """What was seen of one step, up to ``at_ms``. ``first`` are the totals at ``watched_ms``, when watching began.

    ``totals`` are the newest, ``looks`` those of the last ten seconds. ``worst`` and ``best`` are, by variant, the ten
    seconds with the most and the least excess of failures.
    """

    began_ms: int
    baseline: str
    watched_ms: int
    at_ms: int
    first: Mapping[str, Count]
    totals: Mapping[str, Count]
    looks: tuple[tuple[int, Mapping[str, Count]], ...]
    runs: Mapping[str, Run] = field(default_factory=dict)
    worst: Mapping[str, Seconds] = field(default_factory=dict)
    best: Mapping[str, Seconds] = field(default_factory=dict)


def watched(
    watch: FailureWatch | None, began_ms: int, at_ms: int, totals: Mapping[str, Count], baseline: str
) -> FailureWatch:
    """Return what is known after one more look; about one a second.

    ``totals`` are of the step that began at ``began_ms``, by variant, the baseline among them. ``at_ms`` is the event
    time up to which all is recorded. The first look at a step (``watch`` None, or of another step, or totals that went
    down because data was removed) only begins: nothing is known of when its totals came about.
    """
    if watch is None or (watch.began_ms, watch.baseline) != (began_ms, baseline) or _fell(watch.totals, totals):
        return FailureWatch(began_ms, baseline, at_ms, at_ms, totals, totals, ((at_ms, totals),))
    passed = at_ms - watch.at_ms
    if passed < _LEAST_STEP_MS:
        return replace(watch, totals=totals)
    runs, worst, best = {}, dict(watch.worst), dict(watch.best)
    since, last = watch.looks[0][1], watch.looks[-1][1]
    base = totals.get(baseline, Count())
    for name, now in totals.items():
        if name == baseline:
            continue
        span = Seconds(now - since.get(name, Count()), base - since.get(baseline, Count()))
        worst[name] = max(worst.get(name, NOTHING), span, key=lambda one: one.excess)
        best[name] = min(best.get(name, NOTHING), span, key=lambda one: one.excess)
        run = _run(watch.runs.get(name), now - last.get(name, Count()), base - last.get(baseline, Count()), passed)
        if run is not None:
            runs[name] = run
    looks = (*watch.looks, (at_ms, totals))
    while len(looks) > 2 and looks[1][0] <= at_ms - BRIEF_MS:
        looks = looks[1:]
    return replace(watch, at_ms=at_ms, totals=totals, looks=looks, runs=runs, worst=worst, best=best)


def _run(run: Run | None, own: Count, base: Count, passed_ms: int) -> Run | None:
    """Return the run after one more look; None when it is over, or none began."""
    if own.calls > 0 and own.failures <= own.answered:
        return None
    if run is None:
        if own.calls <= 0:
            return None
        lasted = 0  # when within this look it began is not known
    else:
        seen = own.calls > 0 or base.calls > 0
        lasted = run.lasted_ms + (min(passed_ms, LONGEST_STEP_MS) if seen else 0)
    run = run or Run()
    return Run(
        lasted,
        run.failed + own.failed,
        run.answered + own.answered,
        run.calls + own.calls,
        run.base.and_also(base),
    )


def _fell(before: Mapping[str, Count], after: Mapping[str, Count]) -> bool:
    return any(
        name not in after or any(now < was for now, was in zip(after[name], count, strict=True))
        for name, count in before.items()
    )


def brief(watch: FailureWatch, variant: str) -> tuple[float, float]:
    """Return how much of the difference in shares of failed calls, in this step, ten seconds may explain: (up, down).

    The difference is the variant's share less the baseline's. Without the ten seconds that are worst for the variant it
    would be smaller by ``up``, without those that are worst for the baseline larger by ``down``; both are at least 0.
    Of the time before watching began it is not known when calls failed: there, ten seconds' calls may all have failed.
    """
    own, base = (watch.totals.get(name, Count()) for name in (variant, watch.baseline))
    whole = _difference(own, base)
    spans = watch.worst.get(variant, NOTHING), watch.best.get(variant, NOTHING)
    up, down = (
        sign * (whole - _difference(own - one.own, base - one.base)) for sign, one in zip((1, -1), spans, strict=True)
    )
    before_ms = watch.watched_ms - watch.began_ms
    unknown = [
        min(first.failures, first.calls * min(BRIEF_MS / before_ms, 1.0) if before_ms > 0 else first.calls) / now.calls
        if now.calls > 0
        else 0.0
        for first, now in ((watch.first.get(variant, Count()), own), (watch.first.get(watch.baseline, Count()), base))
    ]
    return max(up, unknown[0], 0.0), max(down, unknown[1], 0.0)


def _difference(own: Count, base: Count) -> float:
    """Return how much larger the share of failed calls is; a side without calls has failed none."""
    shares = [one.failures / one.calls if one.calls > 0 else 0.0 for one in (own, base)]
    return shares[0] - shares[1]
