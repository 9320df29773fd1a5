"""When a schedule is due: the five fields of cron, read by the clock on the wall of a time zone.

Rule: pure. A time that the change to summer time leaves out is due when the clock has jumped; one that comes twice in
autumn is due the first time. A schedule of every hour, or of several times an hour, goes by the time that passes.

Source: POSIX.1-2017, crontab; Debian's cron(8) for the change of the clock.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from functools import lru_cache
from typing import Final, NamedTuple

from policies.rollouts.calendar import zone_of

_FIELDS: Final = (("minutes", 0, 59), ("hours", 0, 23), ("days", 1, 31), ("months", 1, 12), ("weekdays", 0, 7))
_NAMES: Final = {
    3: ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"),
    4: ("sun", "mon", "tue", "wed", "thu", "fri", "sat"),
}
#: 29 February comes within eight years.
_MOST_DAYS: Final = 366 * 8 + 2


class Cron(NamedTuple):
    """The values of each field. ``either``: a day counts that fits the day of the month or the weekday."""

    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    either: bool
    hourly: bool

    def fits(self, day: date) -> bool:
        """Return whether it is due on a day."""
        if day.month not in self.months:
            return False
        by_month, by_week = day.day in self.days, day.isoweekday() % 7 in self.weekdays
        return by_month or by_week if self.either else by_month and by_week


@lru_cache(maxsize=256)
def cron(text: str) -> Cron:
    """Return a schedule. Raises ValueError with words that follow the setting's name.

    >>> sorted(cron("*/20 4 * * mon-fri").minutes), sorted(cron("0 4 * * 1-5").weekdays)
    ([0, 20, 40], [1, 2, 3, 4, 5])
    """
    words = text.lower().split()
    if len(words) != len(_FIELDS):
        raise ValueError(f'must have five fields, as in "0 4 * * mon", got "{text}"')
    minutes, hours, days, months, weekdays = (_values(word, place) for place, word in enumerate(words))
    stars = [word.startswith("*") for word in words]
    found = Cron(
        minutes, hours, days, months, frozenset(day % 7 for day in weekdays), not (stars[2] or stars[4]), stars[1]
    )
    if not any(map(found.fits, _days(date(2024, 1, 1)))):
        raise ValueError(f'never comes, got "{text}"')
    return found


@lru_cache(maxsize=1_024)
def next_due_ms(text: str, zone: str, after_ms: int) -> int:
    """Return the first moment after another at which a schedule is due. Raises ValueError as ``cron`` does.

    >>> from datetime import datetime, UTC
    >>> begun = int(datetime(2026, 3, 28, 12, tzinfo=UTC).timestamp() * 1000)
    >>> datetime.fromtimestamp(next_due_ms("30 2 * * *", "Europe/Berlin", begun) / 1000, UTC).isoformat()
    '2026-03-29T01:30:00+00:00'
    """
    schedule, where = cron(text), zone_of(zone)
    for day in _days(datetime.fromtimestamp(after_ms / 1000, where).date() - timedelta(days=1)):
        if schedule.fits(day):
            for moment in (
                _hourly(schedule, day, where, after_ms) if schedule.hourly else _at_times(schedule, day, where)
            ):
                if moment > after_ms:
                    return moment
    raise ValueError(f'never comes, got "{text}"')


def _days(first: date) -> Iterator[date]:
    return (first + timedelta(days=n) for n in range(_MOST_DAYS))


def _at_times(schedule: Cron, day: date, zone: tzinfo) -> list[int]:
    """Return the moments of a day, in order."""
    clocks = (datetime.combine(day, time(hour, minute), zone) for hour in schedule.hours for minute in schedule.minutes)
    return sorted(int(clock.timestamp() * 1000) for clock in clocks)


def _hourly(schedule: Cron, day: date, zone: tzinfo, after_ms: int) -> Iterator[int]:
    """Yield the moments of a day after another as time passes, in which an hour may come twice or not at all."""
    begun = datetime.fromtimestamp(after_ms // 60_000 * 60, UTC)
    at = max(datetime.combine(day, time(), zone).astimezone(UTC), begun)
    while (clock := at.astimezone(zone)).date() <= day:
        if clock.date() == day and clock.minute in schedule.minutes and clock.hour in schedule.hours:
            yield int(at.timestamp() * 1000)
        at += timedelta(minutes=1)


def _values(text: str, place: int) -> frozenset[int]:
    """Return the values of one field."""
    name, least, most = _FIELDS[place]
    found = set[int]()
    for part in text.split(","):
        span, slash, step = part.partition("/")
        low, dash, high = span.partition("-")
        try:
            first, last = (
                (least, most) if low == "*" and not dash else (_number(low, place), _number(high or low, place))
            )
            if slash and not dash and low != "*":
                last = most
            each = int(step) if slash else 1
        except ValueError:
            first, last, each = 1, 0, 1
        if not (least <= first <= last <= most and each > 0):
            raise ValueError(f'must have {name} of {least} to {most}, got "{part}"')
        found |= set(range(first, last + 1, each))
    return frozenset(found)


def _number(text: str, place: int) -> int:
    names = _NAMES.get(place, ())
    if text in names:
        return names.index(text) + (place == 3)
    if not (text.isascii() and text.isdigit()):
        raise ValueError(text)
    return int(text)
