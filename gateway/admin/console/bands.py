"""The geometry of one interval beside a bound, on a scale of its own from 0 to 100.

Rule: geometry only; the template draws it, stretched to whatever width there is, and prints the numbers beside it.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Band:
    """Where things lie from 0 to 100: an interval, its middle, the bound, and zero where the scale has it.

    ``worse_from`` and ``worse_to`` are the side of the bound on which harm is.
    """

    low: float
    width: float
    middle: float | None
    bound: float
    zero: float | None
    worse_from: float
    worse_width: float


def band(
    low: float | None, middle: float | None, high: float | None, bound: float, *, higher_is_worse: bool, zero: bool
) -> Band | None:
    """Return the picture; None where no end of the interval is known. An end that is not known lies at the edge.

    >>> band(0.0, 0.5, 1.0, 0.5, higher_is_worse=True, zero=False).bound
    50.0
    """
    if low is None and high is None:
        return None
    known = [one for one in (low, middle, high, bound, 0.0 if zero else None) if one is not None]
    least, most = min(known), max(known)
    margin = (most - least or abs(most) or 1.0) * 0.08
    least, most = least - margin, most + margin

    def x(value: float) -> float:
        return round(100 * (value - least) / (most - least), 1)

    first, last = 0.0 if low is None else x(low), 100.0 if high is None else x(high)
    edge = x(bound)
    worse = (edge, 100 - edge) if higher_is_worse else (0.0, edge)
    return Band(
        first,
        round(max(last - first, 0.5), 1),
        None if middle is None else x(middle),
        edge,
        x(0.0) if zero else None,
        worse[0],
        round(worse[1], 1),
    )
