"""One working example of any policy, made from its fields only, so that a new policy is tested without an edit here.

Rule: looks at the types of the settings, never at the kind.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, Field, fields
from itertools import product
from typing import Any, get_type_hints

from policies.rollouts.ladder import Stage
from policies.types import EMPTY, Evidence, Occasion, Policy, Tally

#: Values to try for a required setting of a type. A text is tried as a name first, then as an empty pointer.
CANDIDATES: Mapping[object, tuple[Any, ...]] = {
    bool: (True,),
    int: (5,),
    float: (0.25,),
    tuple[str, ...]: (("a", "b", "c"), ("a", "b")),
    tuple[float, float]: ((1.0, 1.0),),
    Mapping[str, float]: ({"a": 0.5, "b": 0.25, "c": 0.25},),
    tuple[Stage, ...]: ((Stage(share=0.25, hold=60_000), Stage(share=1.0)),),
    dict[str, float]: ({"a": 0.5, "b": 0.25, "c": 0.25},),
}


def example(kind: type[Policy]) -> Policy:
    """Return a policy of this kind whose settings have no problems."""
    hints = get_type_hints(kind)
    required = [f for f in settings(kind) if f.default is MISSING and f.default_factory is MISSING]
    for values in product(*(_candidates(f, hints[f.name]) for f in required)):
        policy = kind(**dict(zip((f.name for f in required), values, strict=True)))
        if not policy.problems():
            return policy
    raise AssertionError(f"no example of {kind.__name__} is free of problems: add candidates")


def settings(kind: type[Policy]) -> tuple[Field[Any], ...]:
    """Return the settings of a kind of policy: every policy is a dataclass, which its type does not say."""
    return fields(kind)  # type: ignore[arg-type]


def _candidates(setting: Field[Any], hint: object) -> tuple[Any, ...]:
    return (setting.name, "") if hint is str else CANDIDATES[hint]


def evidence(policy: Policy, rates: Mapping[str, float], trials: int = 1000) -> Evidence:
    """Return evidence in which each variant has the given success rate at the policy's reward, a request per unit."""
    metric = policy.reward or "clicks"
    return Evidence({(variant, metric): rate_tally(round(rate * trials), trials) for variant, rate in rates.items()})


def rate_tally(successes: int, trials: int) -> Tally:
    """Return the tally of requests, each a unit, of which the given number succeeded."""
    if not trials:
        return EMPTY
    powers = (successes, successes, successes, trials)
    return Tally(trials, successes, successes, trials, trials, successes, successes, 0, 1, *powers, trials)


def occasions(count: int, *, salt: str = "route", per_unit: int = 1) -> list[Occasion]:
    """Return requests of ``count / per_unit`` units, each with an id of its own."""
    return [Occasion(salt, f"user-{i // per_unit}", f"request-{i}") for i in range(count)]
