"""Everything a report is made from, in one place: a route, its plan, and what was counted.

Rule: it looks up and adds up, and judges nothing. Nothing depends on a policy's kind, only on whether it chooses at
random, whether it learns, and on its plan's shares.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Final

import policies
from gateway.store.counts.ledger import CALLS, CHECKED, Ledger, Look, Phase, Seen
from policies import Policy, Tally
from policies.statistics.sequential import Interval, mean_interval
from policies.types import EMPTY, Buckets, Evidence, distinct_share
from router.compile import versions_of
from router.records import Role
from router.snapshot import Metric, Route, Snapshot

if TYPE_CHECKING:
    from policies.statistics.e_process import MetricSums

#: The roles in which a variant's answer is what the client sees.
ANSWERING: Final[tuple[Role, ...]] = ("primary", "draft")
SHADOWING: Final[tuple[Role, ...]] = ("shadow",)

#: The chance that ``share_interval`` ever misses the true share.
SHARE_ALPHA: Final = 0.005

_Place = tuple[str, str, str, str, str, str]  # variant, role, against, metric, definition, phase


@dataclass(frozen=True)
class Account:
    """One route's plan, and what is counted of the present versions of its variants.

    ``policy`` has the route's settings; None if only its kind is known.
    """

    snapshot: Snapshot
    ledger: Ledger
    policy: Policy | None = None

    @cached_property
    def route(self) -> Route:
        """The ledger's route. Raises KeyError when the snapshot has none of that name."""
        return self.snapshot.routes[self.ledger.route]

    @cached_property
    def variants(self) -> tuple[str, ...]:
        """Every variant that answers or gets copies: those of the policy, then those of the route's mirrors."""
        return tuple(dict.fromkeys((*self.route.variants, *(mirror.variant for mirror in self.route.mirrors))))

    @cached_property
    def metrics(self) -> tuple[Metric, ...]:
        return tuple(self.snapshot.metrics[name] for name in self.route.metrics)

    @cached_property
    def primary(self) -> Metric | None:
        """The metric that the verdict is about; None when the route lists none."""
        name = self.route.primary_metric or next(iter(self.route.metrics), None)
        return None if name is None else self.snapshot.metrics[name]

    @cached_property
    def shares(self) -> Mapping[str, float]:
        return self.route.plan.shares

    def answers(self, variant: str) -> bool:
        """Return whether the variant's answers reach clients, now or earlier in this epoch; the others get copies."""
        return variant in self.shares or self.calls(variant, ANSWERING).n > 0

    def merged(self, one: str, other: str) -> bool:
        """Return whether both variants answer every request, so that their answers share it."""
        return one != other and self.shares.get(one) == 1 and self.shares.get(other) == 1

    def roles(self, variant: str) -> tuple[Role, ...]:
        """The roles a variant's own numbers are read from: its answers, or its copies when it never answers."""
        return ANSWERING if self.answers(variant) else SHADOWING

    @cached_property
    def adaptive(self) -> bool:
        return bool(self._policy_type and self._policy_type.adaptive)

    @cached_property
    def randomised(self) -> bool:
        return bool(self._policy_type and self._policy_type.randomised)

    @cached_property
    def _policy_type(self) -> type[Policy] | None:
        # Read at the call, not at import: a test adds a policy to the registry.
        return next((one for one in policies.POLICIES if one.kind == self.route.policy), None)

    @cached_property
    def reward(self) -> Metric | None:
        """The metric the policy learns from; the verdict's own where only the kind of the policy is known."""
        if not self.adaptive:
            return None
        name = None if self.policy is None else self.policy.reward
        found = self.primary if name is None else self.snapshot.metrics.get(name)
        return found if found is not None and found.binary else None

    @cached_property
    def best(self) -> Mapping[str, float]:
        """The probability that each variant is the best, by the policy itself. Empty where the policy computes none."""
        if self.policy is None or self.reward is None:
            return {}
        return self.policy.probability_best(self.evidence)

    @cached_property
    def evidence(self) -> Evidence:
        """What plans may learn from, of all metrics of the route."""
        return self.ledger.evidence({metric.name: metric.definition for metric in self.metrics})

    @cached_property
    def sums(self) -> dict[str, MetricSums]:
        """The evidence's sums by metric, as far as comparisons made them."""
        return {}

    @cached_property
    def began_ms(self) -> int | None:
        """When the first period began of which something is counted; None if nothing is."""
        return min((key.period for key in self.ledger.tallies), default=None)

    def looks(self, metric: Metric, variant: str) -> tuple[Look, ...]:
        """Return the looks that were made at a variant in its present version, beside the baseline in its own."""
        began = min(self._periods(self.route.baseline, ANSWERING, CALLS, "", "live"), default=0)
        beside = "", self.snapshot.backends[self.route.baseline].version
        stored = self.looks_stored(metric, variant)
        return tuple(look for look in stored if look.at_ms >= began and look.beside in beside)

    def looks_stored(self, metric: Metric, variant: str) -> tuple[Look, ...]:
        """Return the same, beside the baseline in any version."""
        version = self.snapshot.backends[variant].version
        return self.ledger.looks.get((metric.name, metric.definition, variant, version), ())

    def calls(self, variant: str, roles: tuple[Role, ...]) -> Tally:
        """Return the tally of calls: D calls, of which M failed."""
        return self.pooled(variant, roles, CALLS, "", "live")

    def calls_by_period(self, variant: str, roles: tuple[Role, ...]) -> Mapping[int, Tally]:
        """Return the same period by period: a comparison of failures is stratified too."""
        return self._periods(variant, roles, CALLS, "", "live")

    @cached_property
    def requests(self) -> float:
        """How many requests were answered. A merged request has one call of each ranker, and is counted once."""
        drafts = max((self.calls(variant, ("draft",)).d for variant in self.variants), default=0.0)
        return sum(self.calls(variant, ("primary",)).d for variant in self.variants) + drafts

    def seen(self, variant: str, word: str, roles: tuple[Role, ...] | None = None) -> Seen | None:
        """Return how often and when a sign was seen in a variant's calls; None if never."""
        signs = self.ledger.signs
        return _sum(signs.get((variant, role, word)) for role in roles or self.roles(variant))

    def seen_in_requests(self, word: str) -> Seen | None:
        """Return how often and when a sign was seen in requests. In a merged request each ranker's call has it."""
        signs = self.ledger.signs
        alone = _sum(signs.get((variant, "primary", word)) for variant in self.variants)
        merged = [seen for variant in self.variants if (seen := signs.get((variant, "draft", word))) is not None]
        return _sum([alone, max(merged, key=lambda seen: seen.n, default=None)])

    def checked(self, variant: str, roles: tuple[Role, ...] | None = None) -> float:
        """Return how many calls of a variant were checked for signs: earlier versions of the program checked none."""
        seen = self.seen(variant, CHECKED, roles)
        return self.calls(variant, roles or self.roles(variant)).d if seen is None else seen.n

    @property
    def checked_requests(self) -> float:
        """How many requests were checked for signs."""
        seen = self.seen_in_requests(CHECKED)
        return self.requests if seen is None else seen.n

    def own(self, variant: str, metric: Metric, phase: Phase, roles: tuple[Role, ...] | None = None) -> Tally:
        """Return a variant's own values, periods pooled."""
        return self.pooled(variant, roles or self.roles(variant), metric.name, metric.definition, phase)

    def pooled(
        self, variant: str, roles: tuple[Role, ...], metric: str, definition: str, phase: Phase, against: str = ""
    ) -> Tally:
        total = EMPTY
        for role in roles:
            total += self._pooled.get((variant, role, against, metric, definition, phase), EMPTY)
        return total

    def periods(self, variant: str, metric: Metric) -> Mapping[int, Tally]:
        """Return a variant's mature answers, period by period: what a comparison is stratified by."""
        return self._periods(variant, ANSWERING, metric.name, metric.definition, "mature")

    def _periods(
        self, variant: str, roles: tuple[Role, ...], metric: str, definition: str, phase: Phase
    ) -> Mapping[int, Tally]:
        total: dict[int, Tally] = {}
        for role in roles:
            for period, tally in self._by_period.get((variant, role, "", metric, definition, phase), {}).items():
                total[period] = total.get(period, EMPTY) + tally
        return total

    def buckets(self, variant: str, metric: Metric, phase: Phase) -> Mapping[int, Buckets]:
        """Return the units of a variant's answers in buckets, by period; a period of which there are none is absent."""
        total: dict[int, Buckets] = {}
        for role in ANSWERING:
            place = (variant, role, "", metric.name, metric.definition, phase)
            for period, found in self._buckets.get(place, {}).items():
                total[period] = total[period] + found if period in total else found
        return total

    @cached_property
    def _buckets(self) -> Mapping[_Place, Mapping[int, Buckets]]:
        total: dict[_Place, dict[int, Buckets]] = {}
        for key, found in self.ledger.buckets.items():
            place = (key.variant, key.role, key.against, key.metric, key.definition, key.phase)
            of = total.setdefault(place, {})
            of[key.period] = of[key.period] + found if key.period in of else found
        return total

    def closed_by_period(self, variant: str, metric: Metric) -> Mapping[int, float]:
        """Return how many predictions that a variant answered have a closed window, by period."""
        found = self._periods(variant, ANSWERING, metric.name, metric.definition, "closed")
        return {period: tally.d for period, tally in found.items()}

    def opponents(self, variant: str, metric: Metric) -> tuple[str, ...]:
        """Return the variants that a shadow was paired with on this metric, the baseline first."""
        found = {
            against
            for name, role, against, measured, definition, _ in self._pooled
            if against and (name, role, measured, definition) == (variant, "shadow", metric.name, metric.definition)
        }
        return tuple(sorted(found, key=lambda against: (against != self.route.baseline, against)))

    @cached_property
    def _pooled(self) -> Mapping[_Place, Tally]:
        """Tallies added up over periods, so that each is one look-up instead of a search."""
        return {place: Tally.total(list(found.values())) for place, found in self._by_period.items()}

    @cached_property
    def _by_period(self) -> Mapping[_Place, Mapping[int, Tally]]:
        """Tallies of each place by period, those of its plan revisions added up."""
        parts: dict[_Place, dict[int, list[Tally]]] = {}
        for key, tally in self.ledger.tallies.items():
            place = (key.variant, key.role, key.against, key.metric, key.definition, key.phase)
            parts.setdefault(place, {}).setdefault(key.period, []).append(tally)
        return {place: {period: Tally.total(each) for period, each in found.items()} for place, found in parts.items()}


def account_of(snapshot: Snapshot, ledger: Ledger, policy: Policy | None = None) -> Account:
    """Return the account of a route: ``ledger`` has everything that is counted of it, also of earlier versions.

    Calls, failures, latencies, faults, signs and values are of the present versions. Forced requests, the sample ratio
    and feedback by status are of the whole epoch: they say nothing of a version.
    """
    return Account(snapshot, ledger.of_versions(versions_of(snapshot.backends, snapshot.backends)), policy)


def _sum(seen: Iterable[Seen | None]) -> Seen | None:
    total: Seen | None = None
    for one in seen:
        if one is not None:
            total = one if total is None else total + one
    return total


def share_interval(
    account: Account, n: float, variants: Sequence[str], roles: tuple[Role, ...], *, alpha: float = SHARE_ALPHA
) -> Interval:
    """Return the interval of a share: ``n`` of the calls of these variants.

    Such calls are not counted by unit. A unit can have no more of them than it has calls, so the most calls of any unit
    bound how heavy one unit may be: that keeps the interval exact however alike a unit's calls are. What units do in
    several periods goes together too.
    """
    calls = sum((account.calls(variant, roles) for variant in variants), EMPTY)
    heaviest = max(calls.d_max, 1.0) if account.route.by_unit else 1.0
    part = distinct_share(calls) if account.route.by_unit else 1.0
    tally = Tally(n=max(calls.n, 1), m=part * min(n, calls.d), d=part * calls.d, d_max=heaviest)
    found = mean_interval(tally, bounds=(0.0, 1.0), alpha=alpha)
    assert found is not None  # with bounds there always is one
    return found
