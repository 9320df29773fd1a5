"""Guardrails: what no variant may break, whatever its primary metric says.

Rule: each guardrail is judged for each variant by one interval that holds at every look: of how much worse the variant
is than the baseline was at the same time (``worse_by``), or of its own value (``limit``). Wholly beyond the bound it is
broken, wholly within it clean, else undecided: no data is not good news. What a guardrail can be about is an entry of
``MEASURES``, or a metric of the route.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import partial
from math import inf
from typing import Any, Final, Literal, get_args

from gateway.report.account import Account
from gateway.report.guardrails.measures import MEASURES, Measured, of_metric
from router.settings.declared import MEASURES as DECLARED
from router.settings.declared import Guardrail, guardrails_in_force

logger = logging.getLogger(__name__)

State = Literal["broken", "undecided", "clean"]

#: Every state, the worst first.
STATES: Final[tuple[State, ...]] = get_args(State)

#: A variant that fails this share of its calls is failing, whatever the baseline does.
FAILING: Final = Guardrail(metric="failures", limit=0.5)


@dataclass(frozen=True, slots=True)
class Guarded:
    """A guardrail and a variant; ``reading`` is of the difference from the baseline, or of the value if it has a limit.

    ``error`` says why it cannot be computed, None where it can.
    """

    variant: str
    guardrail: Guardrail
    state: State
    reading: Measured
    higher_is_worse: bool = True
    error: str | None = None


def guarded(account: Account) -> tuple[Guarded, ...]:
    """Judge every guardrail in force for every variant but the baseline, in the order of the file."""
    others = [name for name in account.variants if name != account.route.baseline]
    bounds = (*guardrails_in_force(account.route.guardrails), FAILING)
    return tuple(judged_alone(account, one, variant, one.alpha / len(others)) for one in bounds for variant in others)


def judged_alone(account: Account, guardrail: Guardrail, variant: str, alpha: float) -> Guarded:
    """Judge one guardrail for one variant, which it calls broken by mistake with probability at most ``alpha``."""
    metric = None if guardrail.metric in DECLARED else account.snapshot.metrics[guardrail.metric]
    higher_is_worse = metric is None or metric.better == "lower"
    measure = MEASURES[guardrail.metric] if metric is None else partial(of_metric, metric)
    try:
        reading = measure(account, guardrail, variant, alpha)
    except Exception as error:
        logger.exception("the guardrail on %s of %s cannot be judged", guardrail.metric, variant)
        said = f"cannot be computed: {type(error).__name__}: {error}"
        return Guarded(variant, guardrail, "undecided", Measured(None, None), higher_is_worse, said)
    return Guarded(variant, guardrail, state_of(guardrail, reading, higher_is_worse), reading, higher_is_worse)


def state_of(guardrail: Guardrail, reading: Measured, higher_is_worse: bool) -> State:
    """Return where the interval lies: beyond the bound, within it, or neither."""
    if reading.value is None:
        return "undecided"
    worst, best = (reading.high, reading.low) if higher_is_worse else (-reading.low, -reading.high)
    if guardrail.limit is not None:
        bound = guardrail.limit if higher_is_worse else -guardrail.limit
    else:
        bound = guardrail.worse_by or 0.0
    return "broken" if best > bound else "clean" if worst <= bound else "undecided"


def shown(one: Guarded) -> dict[str, Any]:
    """Return a guardrail's state as plain JSON values."""
    finite = [bound if abs(bound) < inf else None for bound in (one.reading.low, one.reading.high)]
    return {
        "variant": one.variant,
        "metric": one.guardrail.metric,
        "worse_by": one.guardrail.worse_by,
        "limit": one.guardrail.limit,
        "state": one.state,
        "value": one.reading.value,
        "baseline": one.reading.baseline,
        "low": finite[0],
        "high": finite[1],
        "reason": one.error,
    }
