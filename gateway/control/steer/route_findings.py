"""What is known of a route at one moment, as a policy asks for it.

Rule: looked up and added up, and judged by what judges reports: guardrails, the sample ratio and coverage are the very
ones that are shown, but for what ten seconds made, which is undecided. What cannot be measured is an error with a
sentence, never a number.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import inf

from gateway.report import sentence
from gateway.report.account import ANSWERING, SHADOWING, Account
from gateway.report.guardrails import FAILING, Guarded, guarded, lasting
from gateway.report.verdict import Verdict, in_force, sample_ratio_of
from gateway.store.counts.ledger import CALLS, CHECKED, Ledger
from policies.rollouts.standing import Findings, Judged, Standing, evidence_since
from policies.statistics.burn import FailureWatch
from policies.statistics.sample_ratio import SampleRatio
from policies.statistics.sequential import mean_interval
from policies.types import EMPTY, Tally
from router.records import Role
from router.scores import Agreement

#: The chance that the interval of the agreement of copies ever misses it.
AGREEMENT_ALPHA = 0.05


def findings_of(account: Account, judged: Verdict, standing: Standing, watch: FailureWatch | None = None) -> Findings:
    """Return what is known of a route where it stands; ``judged`` is its verdict, with its guardrails.

    ``watch`` is what was seen of the seconds of the present step.

    Takes as long as a guardrail if the route was restarted, since what came before is not counted again; otherwise some
    tenths of a millisecond.
    """
    route, began = account.route, evidence_since(standing)
    bounds, ratio = judged.guardrails, sample_ratio_of(account)
    if began and account.began_ms is not None and account.began_ms < began:
        account = replace(in_force(account, ratio), ledger=account.ledger.since(began))
        bounds = guarded(account)
    step = account.ledger.since(standing.since_ms)
    copies = {name: _compared(step, name) for name in account.variants}
    return Findings(
        baseline=route.baseline,
        versions={name: account.snapshot.backends[name].version for name in account.variants},
        units={name: _units(account, step, name) for name in account.variants},
        calls={name: round(_calls(account, step, name).d) for name in account.variants},
        pairs={name: round(tally.d) for name, tally in copies.items() if tally.d},
        last_ms={name: last for name in account.variants if (last := _last_ms(account, name)) is not None},
        agreement=_agreement(copies),
        guardrails=tuple(_judged(account, one, watch) for one in bounds),
        errors=_errors(account, ratio, judged),
        failing=_failing(account, step),
    )


def _errors(account: Account, ratio: SampleRatio | None, judged: Verdict) -> tuple[str, ...]:
    """Say what cannot be measured: shares that are not met, unequal coverage, guardrails that cannot be computed."""
    found = []
    if ratio is not None and not ratio.ok:
        found.append(sentence.ratio_reason(account, ratio))
    elif judged.status == "invalid" and judged.reason is not None:
        found.append(judged.reason)
    found += [
        f"the guardrail on {one.guardrail.metric} of {one.variant} {one.error}"
        for one in judged.guardrails
        if one.error
    ]
    return tuple(found)


def _roles(account: Account, variant: str) -> tuple[Role, ...]:
    """The roles in which a variant is called in the present step."""
    return ANSWERING if account.shares.get(variant, 0.0) > 0 or variant == account.route.baseline else SHADOWING


def _calls(account: Account, step: Ledger, variant: str) -> Tally:
    roles = _roles(account, variant)
    mine = [
        tally
        for key, tally in step.tallies.items()
        if key.variant == variant and key.metric == CALLS and key.phase == "live" and key.role in roles
    ]
    return Tally.total(mine)


def _units(account: Account, step: Ledger, variant: str) -> int:
    calls = _calls(account, step, variant)
    return calls.distinct or calls.n


def _compared(step: Ledger, variant: str) -> Tally:
    """Return the tally of a variant's copies that agree with the answer, of those that were compared."""
    pairs = [
        tally
        for key, tally in step.tallies.items()
        if key.variant == variant and key.metric == Agreement.name and key.role == "shadow" and key.phase == "live"
    ]
    return Tally.total(pairs)


def _agreement(copies: Mapping[str, Tally]) -> dict[str, tuple[float, float, float]]:
    found = {}
    for name, tally in copies.items():
        interval = mean_interval(tally, bounds=(0.0, 1.0), alpha=AGREEMENT_ALPHA) if tally.d else None
        if interval is not None and tally.mean is not None:
            found[name] = tally.mean, interval.low, interval.high
    return found


def _last_ms(account: Account, variant: str) -> int | None:
    """Return when a variant was last called, by event time."""
    seen = account.seen(variant, CHECKED, (*ANSWERING, *SHADOWING))
    return None if seen is None else seen.last_ms


def _judged(account: Account, one: Guarded, watch: FailureWatch | None) -> Judged:
    bound = one.guardrail.worse_by if one.guardrail.limit is None else one.guardrail.limit
    low, high = (end if abs(end) < inf else None for end in (one.reading.low, one.reading.high))
    state = one.state if lasting(account, one, watch) else "undecided"
    return Judged(
        metric=one.guardrail.metric,
        variant=one.variant,
        state=state,
        action=one.guardrail.action,
        value=one.reading.value,
        baseline=one.reading.baseline,
        low=low,
        high=high,
        bound=bound,
        why=after_name(one.variant, sentence.broken(account, one)) if state == "broken" else "",
    )


def after_name(variant: str, said: str) -> str:
    """Return a sentence about a variant as words that follow its name.

    >>> after_name("v2", "v2 fails 5.0% of its 100 calls"), after_name("v2", "v2's latency is 3 ms")
    ('fails 5.0% of its 100 calls', 'breaks a guardrail: its latency is 3 ms')
    """
    if said.startswith(f"{variant} "):
        return said.removeprefix(f"{variant} ")
    return "breaks a guardrail: its " + said.removeprefix(f"{variant}'s ")


def _failing(account: Account, step: Ledger) -> str | None:
    """Say, after its name, that the baseline itself fails most of its calls in this step; None if it does not."""
    baseline = account.route.baseline
    calls = _calls(account, step, baseline)
    found = mean_interval(calls or EMPTY, bounds=(0.0, 1.0), alpha=FAILING.alpha) if calls.d else None
    if found is None or FAILING.limit is None or found.low <= FAILING.limit:
        return None
    return f"itself fails {calls.mean or 0.0:.1%} of its {calls.d:,.0f} calls"
