"""Whether merged lists treated two rankers alike: what must be even, whichever of them is better.

Rule: every check holds at every look, and all of a route's together raise a false alarm with probability at most
``ALARM``. Where one fails, merging or logging is broken, and no preference may be believed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Final

from gateway.report.account import Account
from policies.statistics.preference import unfairness_p
from router.merge import ABOVE, CREDITED, FIRST

#: The chance of ever calling fair drafts of a route unfair.
ALARM: Final = 0.001

#: What each measure says of a ranker whose mean differs from 0: "more often" or "less often".
_MEASURES: Final = {
    FIRST: "its item stood first {often} than that of {other}",
    ABOVE: "its items stood above those of {other} {often} than below",
    CREDITED: "it had the larger number of credited items {often} than {other}",
}


@dataclass(frozen=True, slots=True)
class DraftCheck:
    """One measure of two rankers over ``n`` lists: its mean in [−1, 1], and the always-valid p-value of 0."""

    measure: str
    ranker: str
    other: str
    n: int
    mean: float | None
    p: float
    ok: bool


def interleaving_checks(account: Account) -> tuple[DraftCheck, ...]:
    """Return what must be even of each two rankers; empty where no lists were merged in a known order."""
    found = []
    for one, other in combinations(sorted(account.variants), 2):
        for measure in _MEASURES:
            tally = account.pooled(one, ("draft",), measure, "", "live", other)
            if tally.n > 0:
                found.append((measure, one, other, tally))
    level = ALARM / max(len(found), 1)
    return tuple(
        DraftCheck(measure, one, other, tally.n, tally.mean, p, p > level)
        for measure, one, other, tally in found
        for p in (unfairness_p(tally),)
    )


def unfair_reason(checks: Sequence[DraftCheck]) -> str | None:
    """Return why no preference can be trusted, by the check that says it most clearly; None if all is even."""
    worst = min((check for check in checks if not check.ok), key=lambda check: check.p, default=None)
    if worst is None:
        return None
    often = "more often" if (worst.mean or 0.0) > 0 else "less often"
    what = _MEASURES[worst.measure].format(other=worst.other, often=often)
    return f"interleaving is not fair: of {worst.ranker}, in {worst.n:,} lists, {what} (p = {worst.p:.2g})"


def checks_as_json(checks: Sequence[DraftCheck]) -> dict[str, Any]:
    """Return the checks as the report shows them."""
    return {
        "applies": bool(checks),
        "ok": all(check.ok for check in checks),
        "tests": [
            {
                "measure": check.measure.removeprefix("@"),
                "variant": check.ranker,
                "against": check.other,
                "n": check.n,
                "mean": check.mean,
                "p": check.p,
                "ok": check.ok,
            }
            for check in checks
        ],
    }
