"""Where a route stands, as plain JSON values: what API, console and command line show.

Rule: the policy says what it waits for; nothing here decides. Keys are public: later versions add some, and change
none.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from gateway.moments import rfc3339
from policies import Policy
from policies.rollouts.standing import Findings, Standing
from router.snapshot import Route

#: Over how long the share that is served is counted, and of how many calls at most.
SERVED_MS: Final = 5 * 60_000

#: The most changes that are listed; the log of events has the others.
MOST_EVENTS: Final = 20

DAY_MS: Final = 86_400_000

#: An hour: what a shorter step has had says little of a day.
SOON_DAYS: Final = 1 / 24

#: What came of the present step, where it is known: passed, failed, inconclusive, no_data, measuring_error.
_SAID: Final = frozenset({"no_data", "measuring_error", "baseline_failing"})


def stands(
    route: Route,
    policy: Policy | None,
    findings: Findings,
    served: Mapping[str, int],
    events: Iterable[Mapping[str, Any]],
    now_ms: int,
) -> dict[str, Any] | None:
    """Return where a route stands; None where nothing ever moved it, and nothing will by itself.

    ``policy`` has its settings, None where only its kind is known. ``served`` are the calls of the last minutes by
    variant; ``events`` are all that are known, the oldest first.
    """
    now = route.standing
    if now.number == 0 and not (policy is not None and policy.stepped):
        return None
    waits = () if policy is None else policy.waits_for(now, findings, now_ms)
    untils = [one.until_ms for one in waits]
    until = max((at for at in untils if at is not None), default=None) if None not in untils else None
    stages, whole = () if policy is None else policy.stages, sum(served.values())
    return {
        "number": now.number,
        "state": now.state,
        "step": now.step,
        "of": len(stages),
        "steps": list(stages),
        "outcome": _outcome(now),
        "because": now.detail.get("because"),
        "since": _moment(now.since_ms),
        "changed": _moment(now.changed_ms),
        "share": {
            name: {"set": share, "actual": served.get(name, 0) / whole if whole else None}
            for name, share in _set(route).items()
        },
        "served": {"calls": dict(served), "minutes": SERVED_MS // 60_000},
        "units": dict(findings.units),
        "calls": dict(findings.calls),
        "pairs": dict(findings.pairs),
        "waits_for": [
            {
                "condition": one.condition,
                "sentence": one.sentence,
                "until": None if one.until_ms is None else _moment(one.until_ms),
            }
            for one in waits
        ],
        "until": None if until is None else _moment(until),
        "out_of_reach": _out_of_reach(route, policy, findings, now_ms),
        "held": dict(now.held),
        "of_versions": dict(now.of),
        "by_hand": _by_hand(now),
        "events": [_event(one) for one in events if one["route"] == route.name and "move" in one][-MOST_EVENTS:][::-1],
    }


def _set(route: Route) -> dict[str, float]:
    """Return the share of each variant: that it answers, 0 where it gets nothing or copies."""
    return {name: route.plan.shares.get(name, 0.0) for name in route.variants}


def _out_of_reach(route: Route, policy: Policy | None, findings: Findings, now_ms: int) -> list[str]:
    """Return the samples that steps ask for and that do not come in time, at the traffic of the present step."""
    days, began = (now_ms - route.standing.since_ms) / DAY_MS, route.standing.since_ms
    answering = [name for name, share in _set(route).items() if share > 0]
    if policy is None or not began or days < SOON_DAYS:
        return []
    units, calls = (sum(counts.get(name, 0) for name in answering) for counts in (findings.units, findings.calls))
    found = policy.unreachable(units / days, calls / days)
    return [f"step {int(one.path[1]) + 1} {one.message}" for one in found]


def _outcome(now: Standing) -> str | None:
    """Return what came of the present step; None while it is undecided, or a person ended it."""
    said = now.detail.get("said")
    if now.state == "done":
        return "passed"
    if now.state == "running":
        return said if said in _SAID else None
    if now.detail.get("by_hand"):
        return None
    return "failed" if now.state == "rolled_back" or "metric" in now.detail else "inconclusive"


def _by_hand(now: Standing) -> dict[str, Any] | None:
    hand = now.detail.get("by_hand")
    return None if not hand else {"verb": hand["verb"], "who": hand["who"], "at": _moment(hand["at_ms"])}


def _event(one: Mapping[str, Any]) -> dict[str, Any]:
    shown = {"at": rfc3339(one["at_ms"]), "number": one["number"], "change": one["change"], "why": one["detail"]}
    return shown | {name: one[name] for name in ("variant", "author", "via") if one.get(name) is not None}


def _moment(at_ms: int) -> str | None:
    return rfc3339(at_ms) if at_ms else None
