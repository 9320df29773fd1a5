"""The geometry of an interval chart: means and intervals of several variants on one scale.

Rule: geometry only, in the units of the picture; the template draws it and prints the numbers beside it as text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import floor, log10
from typing import Final

WIDTH: Final = 640
LEFT: Final = 150
RIGHT: Final = 20
ROW: Final = 34
TOP: Final = 10
AXIS: Final = 26

_MOST_TICKS: Final = 6


@dataclass(frozen=True, slots=True)
class ForestRow:
    """A value and its interval, under a name. ``shade`` picks the colour, the same for a variant in every chart."""

    label: str
    low: float
    middle: float
    high: float
    shade: int = 0


@dataclass(frozen=True, slots=True)
class Mark:
    label: str
    y: float
    low: float
    middle: float
    high: float
    shade: int
    text: str


@dataclass(frozen=True, slots=True)
class Tick:
    x: float
    text: str


@dataclass(frozen=True, slots=True)
class Forest:
    width: int
    height: int
    left: int
    right: int
    bottom: int
    marks: tuple[Mark, ...]
    ticks: tuple[Tick, ...]
    zero: float | None


def forest(rows: Sequence[ForestRow], *, percent: bool, zero: bool = False) -> Forest | None:
    """Return the chart, None when there is nothing to draw. With ``zero`` the scale includes 0 and marks it."""
    if not rows:
        return None
    ends = [end for row in rows for end in (row.low, row.middle, row.high)] + ([0.0] if zero else [])
    low, high = min(ends), max(ends)
    margin = (high - low or abs(high) or 1.0) * 0.05
    low, high = low - margin, high + margin

    def x(value: float) -> float:
        return round(LEFT + (value - low) / (high - low) * (WIDTH - LEFT - RIGHT), 1)

    marks = tuple(
        Mark(
            row.label,
            TOP + (index + 0.5) * ROW,
            x(row.low),
            x(row.middle),
            x(row.high),
            row.shade,
            f"{number(row.middle, percent)} ({number(row.low, percent)} to {number(row.high, percent)})",
        )
        for index, row in enumerate(rows)
    )
    bottom = TOP + len(rows) * ROW
    ticks = tuple(Tick(x(value), number(value, percent)) for value in steps(low, high))
    return Forest(WIDTH, bottom + AXIS, LEFT, WIDTH - RIGHT, bottom, marks, ticks, x(0.0) if zero else None)


def number(value: float, percent: bool) -> str:
    """Return a value as text for people.

    >>> number(0.934, True), number(12.3456, False)
    ('93.4 %', '12.3')
    """
    return f"{100 * value:.1f} %" if percent else f"{value:.3g}"


def steps(low: float, high: float) -> list[float]:
    """Return round numbers between low and high: multiples of 1, 2 or 5 times a power of ten, at most six.

    >>> steps(0.11, 0.58)
    [0.2, 0.3, 0.4, 0.5]
    """
    if not high > low:
        return []
    power = 10.0 ** floor(log10((high - low) / _MOST_TICKS))
    size = next(
        size for size in (power, 2 * power, 5 * power, 10 * power, 20 * power) if (high - low) / size <= _MOST_TICKS
    )
    first, last = -int(-low // size), int(high // size)
    return [float(f"{index * size:.12g}") for index in range(first, last + 1)]
