"""When a rollout may go on: weekly change windows in a time zone, and stretches of days in which nothing is changed.

Rule: pure, but that ``zoneinfo`` reads the machine's database of time zones. Hours are those that a clock on the wall
shows: on the days on which clocks are changed a window is as long as that clock says, and an hour that is shown twice
is in the window twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from typing import Final

from policies.rollouts.keys import setting

#: How far ahead the next opening is looked for: a year of freezes.
_AHEAD: Final = 370
_MINUTE_MS: Final = 60_000

DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeWindow:
    """When a step may be passed: on these days of the week, in these hours, in this time zone."""

    days: str = setting("mon-sun", 'Days of the week, as in "mon-thu" or "mon,wed,fri".')
    hours: str = setting("00:00-24:00", 'From and until, as in "09:00-17:00"; "22:00-06:00" ends on the next day.')
    zone: str = setting("UTC", 'A time zone of the IANA database, as in "Europe/Berlin".')


def days_of(text: str) -> frozenset[int]:
    """Return the days of the week, Monday being 0. Raises ValueError with words that follow the setting's name.

    >>> sorted(days_of("sat-mon,thu"))
    [0, 3, 5, 6]
    """
    found = set[int]()
    for part in text.lower().replace(" ", "").split(","):
        first, dash, last = part.partition("-")
        last = last if dash else first
        if first not in DAYS or last not in DAYS:
            raise ValueError(f'must be days such as "mon-thu" or "mon,wed,fri", got "{text}"')
        begin, end = DAYS.index(first), DAYS.index(last)
        found |= {(begin + ahead) % 7 for ahead in range((end - begin) % 7 + 1)}
    return frozenset(found)


def hours_of(text: str) -> tuple[int, int]:
    """Return minutes since midnight, from and until; until is later, and beyond 1440 where it is on the next day.

    >>> hours_of("09:00-17:30"), hours_of("22:00-06:00")
    ((540, 1050), (1320, 1800))
    """
    begin, _, end = text.replace(" ", "").partition("-")
    minutes = [_minutes(begin), _minutes(end)]
    if None in minutes or minutes[0] == 1440 or minutes[0] == minutes[1]:
        raise ValueError(f'must be hours such as "09:00-17:00", got "{text}"')
    first, last = minutes[0] or 0, minutes[1] or 0
    return first, last if last > first else last + 1440


def zone_of(name: str) -> tzinfo:
    """Return a time zone by its name. Raises ValueError with words that follow the setting's name."""
    from zoneinfo import ZoneInfo  # workers import this module, and never a zone

    if name == "UTC":
        return UTC  # where the machine has no database
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise ValueError(f'must be a time zone that this machine knows, as in "Europe/Berlin", got "{name}"') from None


def stretch_of(text: str) -> tuple[date, date]:
    """Return the first and the last day of a stretch in which nothing is changed, both inclusive.

    >>> stretch_of("2026-12-20/2027-01-03")
    (datetime.date(2026, 12, 20), datetime.date(2027, 1, 3))
    """
    form = f'must be a first and a last day, as in "2026-12-20/2027-01-03", got "{text}"'
    begin, _, end = text.partition("/")
    try:
        first, last = date.fromisoformat(begin), date.fromisoformat(end or begin)
    except ValueError:
        raise ValueError(form) from None
    if last < first:
        raise ValueError(f'must end after it begins, got "{text}"')
    return first, last


def is_open(window: ChangeWindow | None, no_changes: Sequence[str], at_ms: int) -> bool:
    """Return whether a step may be passed at this time."""
    return closed_by(window, no_changes, at_ms) is None


def closed_by(window: ChangeWindow | None, no_changes: Sequence[str], at_ms: int) -> str | None:
    """Return what forbids a change at this time, in words; None if nothing does."""
    local = _local(window, at_ms)
    for text in no_changes:
        first, last = stretch_of(text)
        if first <= local.date() <= last:
            return f"nothing is changed from {first} to {last}"
    if window is None or _shows(window, local):
        return None
    return f"the change window is {window.days} {window.hours} {window.zone}"


def opens_ms(window: ChangeWindow | None, no_changes: Sequence[str], at_ms: int) -> int | None:
    """Return when a step may be passed next: now, if it may be; None if not within a year."""
    if is_open(window, no_changes, at_ms):
        return at_ms
    zone, first = _zone(window), _local(window, at_ms).date()
    begin = 0 if window is None else hours_of(window.hours)[0]
    for ahead in range(_AHEAD):
        day = first + timedelta(days=ahead)
        for minutes in sorted({0, begin}):  # a freeze ends at midnight, maybe within the hours
            opens = int(datetime.combine(day, time(minutes // 60, minutes % 60), zone).timestamp() * 1000)
            if opens > at_ms and is_open(window, no_changes, opens):
                # A beginning that no clock shows, as clocks are put forward over it, was taken for a later one.
                while opens - _MINUTE_MS > at_ms and is_open(window, no_changes, opens - _MINUTE_MS):
                    opens -= _MINUTE_MS
                return opens
    return None


def _shows(window: ChangeWindow, local: datetime) -> bool:
    """Return whether the clock on the wall shows a time in the window: of this day, or that of the day before."""
    days, (begin, end), minutes = days_of(window.days), hours_of(window.hours), local.hour * 60 + local.minute
    today = local.weekday() in days and begin <= minutes < end
    return today or ((local.weekday() - 1) % 7 in days and minutes < end - 1440)


def _local(window: ChangeWindow | None, at_ms: int) -> datetime:
    return datetime.fromtimestamp(at_ms / 1000, _zone(window))


def _zone(window: ChangeWindow | None) -> tzinfo:
    return UTC if window is None else zone_of(window.zone)


def _minutes(text: str) -> int | None:
    hour, colon, minute = text.partition(":")
    if not (colon and len(hour) == len(minute) == 2 and (hour + minute).isascii() and (hour + minute).isdigit()):
        return None
    total = int(hour) * 60 + int(minute)
    return total if int(minute) < 60 and total <= 1440 else None
