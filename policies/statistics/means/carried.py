"""What a share pooled over time can be worth as a comparison, where two variants' traffic came at different times.

Rule: bounds only. Of each stretch of time it is known how many calls either side had, and nothing of how they differed.
"""

from __future__ import annotations

from collections.abc import Sequence

#: Calls of (baseline, variant) in one stretch of time.
Traffic = tuple[float, float]


def carried_over(traffic: Sequence[Traffic], share: float) -> tuple[float, float]:
    """Return the (least, most) that the baseline's share would have been, had its calls come when the variant's did.

    ``share`` in [0, 1] is the baseline's over all stretches, Σ bₖ·pₖ; what is asked for is Σ aₖ·pₖ, where a and b are
    the parts of either side's calls, and each pₖ may be anything in [0, 1]: a linear programme in one constraint, whose
    solution sets pₖ = 1 where aₖ / bₖ is largest (smallest) until the share is used up. Where the traffic of both moved
    alike both ends are ``share``. Without calls of either side nothing is known: (0, 1).

    Source: Dantzig 1957, "Discrete-variable extremum problems", Oper. Res. 5(2), the fractional knapsack.

    >>> least, most = carried_over([(900, 100), (100, 900)], 0.1)
    >>> round(least, 4), round(most, 4)
    (0.0111, 0.9)
    """
    totals = [sum(column) for column in zip(*traffic, strict=True)] if traffic else [0.0, 0.0]
    if not all(total > 0 for total in totals):
        return 0.0, 1.0
    parts = [(one / totals[0], other / totals[1]) for one, other in traffic if one > 0 or other > 0]
    # By the variant's part for each of the baseline's; stretches without the baseline cost nothing.
    parts.sort(key=lambda part: part[1] / part[0] if part[0] > 0 else float("inf"))
    return _filled(parts, share), 1 - _filled(parts, 1 - share)


def _filled(parts: Sequence[tuple[float, float]], share: float) -> float:
    """Return how much of the variant's calls come in the first stretches, up to this share of the baseline's."""
    left, found = share, 0.0
    for base, own in parts:
        if base >= left:
            return found + (own * left / base if base > 0 else 0.0)
        left, found = left - base, found + own
    return found
