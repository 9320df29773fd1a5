"""Times and ages as text: one form for programs, one for people.

Rule: nothing here fails. A caller's clock may give any time: one outside the calendar is written as the nearest inside.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST_MS: Final = -62_135_596_800_000
_LAST_MS: Final = 253_402_300_799_999


def rfc3339(at_ms: int) -> str:
    """Return a time, in Unix milliseconds, as programs read it. Source: RFC 3339, section 5.6.

    >>> rfc3339(1_700_000_000_003)
    '2023-11-14T22:13:20.003Z'
    """
    return _moment(at_ms).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def to_the_second(at_ms: int) -> str:
    """Return a time, in Unix milliseconds, as people read it in a table (UTC).

    >>> to_the_second(1_700_000_000_003)
    '2023-11-14 22:13:20'
    """
    return _moment(at_ms).strftime("%Y-%m-%d %H:%M:%S")


def age(seconds: float) -> str:
    """Return a duration as people say it.

    >>> age(0.4), age(90), age(7_200), age(200_000)
    ('0 s', '90 s', '120 min', '56 h')
    """
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 3 * length or (unit == "min" and seconds >= 120):
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def _moment(at_ms: int) -> datetime:
    return _EPOCH + timedelta(milliseconds=min(max(at_ms, _FIRST_MS), _LAST_MS))
