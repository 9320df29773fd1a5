"""A schedule is due when a clock on the wall says so: once, also on the days when that clock is changed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.rollouts.calendar import zone_of
from router.triggers.cron import cron, next_due_ms

BERLIN = "Europe/Berlin"


def ms(*of: int, zone: str = "UTC") -> int:
    return int(datetime(*of, tzinfo=zone_of(zone)).timestamp() * 1000)  # type: ignore[misc,arg-type]


def due(text: str, zone: str, since_ms: int, until_ms: int) -> list[datetime]:
    """Every moment in (since, until], by the zone's clock."""
    found, at = [], since_ms
    while (at := next_due_ms(text, zone, at)) <= until_ms:
        found.append(datetime.fromtimestamp(at / 1000, zone_of(zone)))
    return found


@pytest.mark.parametrize("clock", ["30 2", "0 2", "0 3", "59 1", "0 0"])
def test_a_daily_schedule_is_due_once_a_day_of_the_year(clock: str) -> None:
    """Also at 02:30, which one Sunday has not and another has twice."""
    found = due(f"{clock} * * *", BERLIN, ms(2026, 1, 1, zone=BERLIN) - 1, ms(2027, 1, 1, zone=BERLIN) - 1)
    assert len(found) == 365
    assert len({one.date() for one in found}) == 365
    minute, hour = map(int, clock.split())
    odd = [one for one in found if (one.hour, one.minute) != (hour, minute)]
    assert [one.strftime("%m-%d %H:%M") for one in odd] == (
        ["03-29 03:" + one for one in clock.split()[:1]]
        if hour == 2 and minute
        else ["03-29 03:00"]
        if hour == 2
        else []
    )


@pytest.mark.parametrize(("day", "hours"), [((2026, 3, 29), 23), ((2026, 10, 25), 25), ((2026, 6, 1), 24)])
def test_an_hourly_schedule_goes_by_the_time_that_passes(day: tuple[int, int, int], hours: int) -> None:
    begin = ms(*day, zone=BERLIN)
    end = int((datetime(*day, tzinfo=zone_of(BERLIN)) + timedelta(days=1)).timestamp() * 1000)
    assert len(due("15 * * * *", BERLIN, begin - 1, end - 1)) == hours
    assert len(due("*/5 * * * *", BERLIN, begin - 1, end - 1)) == 12 * hours


FIELD = st.sampled_from(["*", "*/7", "3", "1-5", "2,4", "1-6/2"])


@settings(max_examples=60, deadline=None)
@given(FIELD, FIELD, FIELD, FIELD, FIELD, st.integers(0, 60 * 24 * 400))
def test_the_next_moment_is_the_one_that_a_search_minute_by_minute_finds(
    minute: str, hour: str, day: str, month: str, weekday: str, start: int
) -> None:
    text = " ".join((minute, hour, day, month, weekday))
    begun = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=start)
    found = datetime.fromtimestamp(next_due_ms(text, "UTC", int(begun.timestamp() * 1000)) / 1000, UTC)
    schedule = cron(text)

    def fits(at: datetime) -> bool:
        by_month, by_week = at.day in schedule.days, at.isoweekday() % 7 in schedule.weekdays
        both = day.startswith("*") or weekday.startswith("*")
        days = (by_month and by_week) if both else (by_month or by_week)
        return at.minute in schedule.minutes and at.hour in schedule.hours and at.month in schedule.months and days

    assert found > begun
    assert fits(found)
    between = (begun + timedelta(minutes=n) for n in range(1, min(int((found - begun).total_seconds() // 60), 3_000)))
    assert not any(map(fits, between))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("* * * *", "five fields"),
        ("60 * * * *", "minutes of 0 to 59"),
        ("* * 0 * *", "days of 1 to 31"),
        ("* * * * 8", "weekdays of 0 to 7"),
        ("*/0 * * * *", "minutes"),
        ("5-1 * * * *", "minutes"),
        ("a * * * *", "minutes"),
        ("0 0 31 2,4,6 *", "never comes"),
    ],
)
def test_what_is_no_schedule_is_refused_in_words(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        cron(text)


def test_a_leap_day_comes() -> None:
    assert next_due_ms("0 0 29 2 *", "UTC", ms(2026, 1, 1)) == ms(2028, 2, 29)
