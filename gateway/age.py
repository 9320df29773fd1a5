"""How long ago, as people say it: wherever a report is shown."""

from __future__ import annotations


def age(seconds: float) -> str:
    """Return a duration as people say it.

    >>> age(0.4), age(90), age(7_200), age(200_000)
    ('0 s', '90 s', '120 min', '56 h')
    """
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 3 * length or (unit == "min" and seconds >= 120):
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"
