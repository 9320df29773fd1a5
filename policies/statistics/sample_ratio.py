"""Whether the variants got the shares that were configured.

Rule: valid however often one looks. An alarm says that assignment or logging is broken, and that no comparison of these
counts can be trusted.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from math import exp, fsum, lgamma, log
from typing import Final

#: Below this p the check fails. The probability that a sound route ever falls below it is at most this.
ALARM_BELOW = 0.001

#: The weight of the configured shares in the prior, in units. A lower one finds gross faults sooner, a higher one finds
#: small faults in fewer units: at 300, 1,000 : 1,200 of a 50/50 split alarms, and so does 821,588 : 815,482.
CONCENTRATION = 300.0

#: How many units each variant got for the first time, and the shares in force.
Stretch = tuple[Mapping[str, int], Mapping[str, float]]


#: Units by (plan revision, variant), and the shares of each revision.
Given = Mapping[tuple[int, str], int]
SharesOf = Mapping[int, Mapping[str, float]]

#: Groups of fewer units are not looked at.
LEAST_UNITS: Final = 50


@dataclass(frozen=True, slots=True)
class Cause:
    """Where most of a fault is: units for which ``feature`` is ``value``, by variant, and how many were expected."""

    feature: str
    value: str
    observed: Mapping[str, int]
    expected: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class SampleRatio:
    """``p`` is an always-valid p-value for "the shares are as configured"; ``ok`` says that it gives no alarm.

    It is about the periods from ``since`` on (0: all). Those before are set aside, as the check failed with ``aside``.
    ``cause`` is where a fault is, if that was looked up and found.
    """

    p: float
    ok: bool
    since: int = 0
    aside: float | None = None
    cause: Cause | None = None


@dataclass(frozen=True, slots=True)
class SampleRatioState:
    """The state after some stretches, from which the check goes on without reading those again.

    ``stake`` is the logarithm of what betting against the shares has made of 1, ``best`` the highest it ever was;
    ``observed`` and ``expected`` are units by variant. ``impossible``: a variant without a share got units. ``period``
    is that of the last stretch; ``since`` and ``aside`` as of ``SampleRatio``.
    """

    stake: float = 0.0
    best: float = 0.0
    observed: Mapping[str, float] = field(default_factory=dict)
    expected: Mapping[str, float] = field(default_factory=dict)
    impossible: bool = False
    period: int = 0
    since: int = 0
    aside: float | None = None

    @property
    def found(self) -> SampleRatio:
        p = 0.0 if self.impossible else exp(-self.best)
        return SampleRatio(p, p >= ALARM_BELOW, self.since, self.aside)

    def begin(self, period: int) -> SampleRatioState:
        """Return the state when a period begins: the check begins anew where it had failed before the edit.

        So the periods that count are those from the last edit on that came after an alarm. An edit that did not mend
        the cause is followed by another alarm, and each span between alarms fails in at most one of a thousand sound
        routes.
        """
        if period <= self.period:
            return self
        found = self.found
        return (
            replace(self, period=period) if found.ok else SampleRatioState(period=period, since=period, aside=found.p)
        )


#: Before any stretch.
START: Final = SampleRatioState()


def sample_ratio(stretches: Iterable[Stretch], since: SampleRatioState = START) -> SampleRatio:
    """Return whether counts agree with shares over stretches of (new units of each variant, shares in force).

    Each stretch has constant shares; the stretches are in order of time, and p is the smallest after any of them. It is
    at most α with probability at most α however often one looks. A variant with units but no share makes p 0.

    Per stretch a Dirichlet prior on what the shares truly are bets against the configured ones. Its centre carries over
    what the stretches before have shown: a variant that got r times its share is expected to get that again. Since a
    prior is formed from earlier stretches alone, the product of bets is still a fair game, and a small tilt is found
    even when a bandit moves the shares every second and no stretch is long. With shares that stay, cutting a stretch in
    two changes nothing.

    Impossible counts (negative) are taken for 0.

    Source: Lindon & Malek 2022, "Anytime-valid inference for multinomial count data", NeurIPS. Carrying the
    prior over is ours.

    ``since`` is what the stretches before these have shown.

    >>> sample_ratio([({"a": 500, "b": 500}, {"a": 0.5, "b": 0.5})])
    SampleRatio(p=1.0, ok=True, since=0, aside=None, cause=None)
    >>> sample_ratio([({"a": 1500, "b": 1800}, {"a": 0.5, "b": 0.5})]).ok
    False
    """
    return accumulate(stretches, since).found


def by_period(
    stretches: Iterable[tuple[int, Stretch]], present: int, since: SampleRatioState = START
) -> SampleRatioState:
    """Return the state after stretches of (period, stretch), in order, in the ``present`` period.

    >>> broken, halves = {"a": 1500, "b": 1800}, {"a": 0.5, "b": 0.5}
    >>> by_period([(1, (broken, halves))], 1).found.ok
    False
    >>> by_period([(1, (broken, halves)), (2, ({"a": 10, "b": 9}, halves))], 2).found.since
    2
    """
    state = since
    for period, stretch in stretches:
        state = accumulate([stretch], state.begin(period))
    return state.begin(present)


def accumulate(stretches: Iterable[Stretch], since: SampleRatioState = START) -> SampleRatioState:
    """Return the state after more stretches. However the stretches are cut, the result is the same to the last bit.

    >>> half = ({"a": 700, "b": 900}, {"a": 0.5, "b": 0.5})
    >>> accumulate([half], accumulate([half])) == accumulate([half, half])
    True
    """
    observed, expected = dict(since.observed), dict(since.expected)
    stake, best = since.stake, since.best
    for counts, shares in stretches:
        due = _normalised(shares)
        given = {name: count for name, count in counts.items() if count > 0}
        if not given:
            continue
        if any(name not in due for name in given):
            return replace(since, stake=stake, best=best, observed=observed, expected=expected, impossible=True)
        stake += _log_bet(given, due, _prior(due, observed, expected))
        best = max(best, stake)
        total = sum(given.values())
        for name, share in due.items():
            observed[name] = observed.get(name, 0.0) + given.get(name, 0)
            expected[name] = expected.get(name, 0.0) + total * share
    return replace(since, stake=stake, best=best, observed=observed, expected=expected)


def find_cause(groups: Mapping[tuple[str, str], Given], whole: Given, shares: SharesOf) -> Cause | None:
    """Return the group, by (feature, value), in which most of a fault is; None if it is in no one of them.

    Its own check must fail when corrected for how many groups were looked at (Bonferroni), at least half of the units
    that are off must be in it, and it must be off by at least twice as much, relative to its units, as the rest is: a
    fault that is everywhere has no cause among the groups. Of several, the one whose check fails most clearly.
    """
    looked_at = {place: given for place, given in groups.items() if sum(given.values()) >= LEAST_UNITS}
    off, units = _off(whole, shares), sum(whole.values())
    best: tuple[float, tuple[str, str]] | None = None
    for place, given in looked_at.items():
        stake = _stake(given, shares) - log(len(looked_at))
        n, ours = sum(given.values()), _off(given, shares)
        rest = {key: count - given.get(key, 0) for key, count in whole.items()}
        theirs = _off(rest, shares) / (units - n) if units > n else 0.0
        telling = exp(-max(stake, 0.0)) < ALARM_BELOW and ours >= off / 2 and ours / n >= 2 * theirs
        if telling and units > n and (best is None or (stake, place) > best):
            best = stake, place
    if best is None:
        return None
    given = looked_at[best[1]]
    observed: dict[str, int] = {}
    for (_, variant), count in given.items():
        observed[variant] = observed.get(variant, 0) + count
    return Cause(*best[1], observed, _due(given, shares))


def _due(given: Given, shares: SharesOf) -> dict[str, float]:
    """Return how many units of each variant were expected."""
    due: dict[str, float] = {}
    for (revision, _), count in given.items():
        for name, share in _normalised(shares.get(revision, {})).items():
            due[name] = due.get(name, 0.0) + count * share
    return due


def _off(given: Given, shares: SharesOf) -> float:
    """Return how many units are with another variant than was expected."""
    off = _due(given, shares)
    for (_, variant), count in given.items():
        off[variant] = off.get(variant, 0.0) - count
    return fsum(map(abs, off.values())) / 2


def _stake(given: Given, shares: SharesOf) -> float:
    """Return the logarithm of what betting against the shares makes of 1, over these units; infinite if impossible."""
    counts: dict[int, dict[str, int]] = {}
    for (revision, variant), count in given.items():
        counts.setdefault(revision, {})[variant] = count
    state = accumulate((counts[one], shares[one]) for one in sorted(counts) if one in shares)
    return float("inf") if state.impossible else state.stake


def _normalised(shares: Mapping[str, float]) -> dict[str, float]:
    """Return the positive shares, made to sum to 1. One that is then 0 in floating point is none."""
    total = fsum(share for share in shares.values() if share > 0)
    return {name: share / total for name, share in shares.items() if share > 0 and share / total > 0}


def _prior(due: Mapping[str, float], observed: Mapping[str, float], expected: Mapping[str, float]) -> dict[str, float]:
    """Return the Dirichlet prior of a stretch: the shares due, tilted as observed so far."""
    tilted: dict[str, float] = {}
    for name, share in due.items():
        # With shares that stayed this is observed + C·share: the posterior of the stretches before.
        ratio = (observed.get(name, 0.0) + CONCENTRATION * share) / (expected.get(name, 0.0) + CONCENTRATION * share)
        # A share may be so small that the ratio is infinite or the product 0 in floating point; a Dirichlet prior needs
        # positive, finite numbers.
        tilted[name] = max(share * min(ratio, 1e300), 1e-300)
    # The prior is as strong as the evidence about the variant least seen, relative to the share it has now: a variant
    # that grew from 1 % to 50 % of the traffic has shown little of its tilt, and a stronger prior would lose every bet.
    strength = CONCENTRATION + min(expected.get(name, 0.0) / share for name, share in due.items())
    total = fsum(tilted.values())
    return {name: strength * share / total for name, share in tilted.items()}


def _log_bet(given: Mapping[str, int], due: Mapping[str, float], prior: Mapping[str, float]) -> float:
    """Return the log likelihood ratio of the counts: Dirichlet-multinomial under the prior to multinomial as due."""
    strength, total = fsum(prior.values()), sum(given.values())
    gains = (
        lgamma(prior[name] + count) - lgamma(prior[name]) - count * log(due[name]) for name, count in given.items()
    )
    return fsum(gains) - (lgamma(strength + total) - lgamma(strength))
