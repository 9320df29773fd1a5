"""Durations, shares and times as people read them.

Rule: words only.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

_UNITS: Final = (("day", 86_400_000), ("hour", 3_600_000), ("minute", 60_000), ("second", 1_000))


def lasting(ms: float) -> str:
    """Return a duration in its two largest units; what is left is cut off.

    >>> lasting(90_000_000), lasting(1_800_000), lasting(400)
    ('1 day 1 hour', '30 minutes', '0 seconds')
    """
    left, words = max(int(ms), 0), list[str]()
    for name, each in _UNITS:
        count, left = divmod(left, each)
        if count:
            words.append(f"{count} {name}" if count == 1 else f"{count} {name}s")
        elif words:
            break
    return " ".join(words[:2]) or "0 seconds"


def percent(share: float) -> str:
    """Return a share as a percentage.

    >>> percent(0.01), percent(0.125)
    ('1 %', '12.5 %')
    """
    return f"{share * 100:.4g} %"


def moment(at_ms: int) -> str:
    """Return a time in UTC, to the minute.

    >>> moment(0)
    '1970-01-01 00:00 UTC'
    """
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M UTC")
