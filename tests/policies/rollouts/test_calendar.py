"""Change windows are of the clock on the wall, on the days on which that is changed as well."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.rollouts.calendar import (
    ChangeWindow,
    closed_by,
    days_of,
    hours_of,
    is_open,
    opens_ms,
    stretch_of,
    zone_of,
)

BERLIN = ZoneInfo("Europe/Berlin")
WORK = ChangeWindow(days="mon-thu", hours="09:00-17:00", zone="Europe/Berlin")


def at(text: str, zone: ZoneInfo = BERLIN, fold: int = 0) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=zone, fold=fold).timestamp() * 1000)


@pytest.mark.parametrize(
    ("moment", "opened"),
    [
        ("2026-03-02T08:59:59", False),
        ("2026-03-02T09:00:00", True),
        ("2026-03-02T16:59:59", True),
        ("2026-03-02T17:00:00", False),
        ("2026-03-06T12:00:00", False),  # a Friday
        ("2026-03-30T09:00:00", True),  # the first Monday in summer time
    ],
)
def test_a_window_is_open_in_its_hours(moment: str, opened: bool) -> None:
    assert is_open(WORK, (), at(moment)) is opened


def test_a_window_over_midnight_belongs_to_the_day_on_which_it_begins() -> None:
    night = ChangeWindow(days="sat", hours="22:00-06:00", zone="Europe/Berlin")
    assert is_open(night, (), at("2026-03-08T05:59:00"))
    assert not is_open(night, (), at("2026-03-07T05:59:00"))
    assert not is_open(night, (), at("2026-03-08T22:30:00"))


def test_on_the_day_of_25_hours_the_hour_that_comes_twice_is_in_the_window_twice() -> None:
    window = ChangeWindow(hours="02:00-03:00", zone="Europe/Berlin")
    hours = [at("2026-10-25T02:30:00", fold=fold) for fold in (0, 1)]
    assert hours[1] - hours[0] == 3_600_000
    assert all(is_open(window, (), hour) for hour in hours)


def test_on_the_day_of_23_hours_a_window_in_the_hour_that_is_left_out_does_not_open() -> None:
    window = ChangeWindow(hours="02:00-03:00", zone="Europe/Berlin")
    assert opens_ms(window, (), at("2026-03-29T00:00:00")) == at("2026-03-30T02:00:00")
    longer = ChangeWindow(hours="02:30-05:00", zone="Europe/Berlin")
    assert opens_ms(longer, (), at("2026-03-29T00:00:00")) == at("2026-03-29T03:00:00")


def test_a_freeze_is_of_whole_days_in_the_windows_zone() -> None:
    days = ("2026-12-20/2027-01-03",)
    assert closed_by(WORK, days, at("2026-12-21T12:00:00")) == "nothing is changed from 2026-12-20 to 2027-01-03"
    assert opens_ms(WORK, days, at("2026-12-18T12:00:00")) == at("2027-01-04T09:00:00")
    assert is_open(None, days, int(datetime(2026, 12, 19, 23, 59, tzinfo=UTC).timestamp() * 1000))
    assert not is_open(None, ("2026-12-24",), int(datetime(2026, 12, 24, tzinfo=UTC).timestamp() * 1000))


def test_a_window_that_never_opens_says_so() -> None:
    assert opens_ms(WORK, ("2026-01-01/2099-01-01",), at("2026-03-02T12:00:00")) is None


#: 2026-01-01, in minutes.
BEGIN = 29_453_760

WINDOWS = st.builds(
    ChangeWindow,
    days=st.sampled_from(["mon-sun", "mon-thu", "sat", "fri-mon", "mon,wed"]),
    hours=st.sampled_from(["09:00-17:00", "22:00-06:00", "00:00-24:00", "02:30-02:45", "02:00-03:00", "01:30-02:30"]),
    zone=st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe"]),
)


@settings(max_examples=60, deadline=None)
@given(
    WINDOWS,
    st.integers(BEGIN, BEGIN + 730 * 1_440),
    st.sampled_from([(), ("2026-03-25/2026-04-02",)]),
)
def test_the_next_opening_is_the_first_minute_that_is_open(
    window: ChangeWindow, minute: int, no_changes: tuple[str, ...]
) -> None:
    now = minute * 60_000
    opens = opens_ms(window, no_changes, now)
    assert opens is not None
    assert is_open(window, no_changes, opens)
    minutes = range(max(now, opens - 86_400_000), opens, 300_000)
    assert not any(is_open(window, no_changes, minute) for minute in minutes)


@pytest.mark.parametrize(
    ("parse", "text"),
    [
        (days_of, "mo"),
        (days_of, ""),
        (days_of, "mon-"),
        (days_of, "mon--thu"),
        (hours_of, "9-17"),
        (hours_of, "09:00"),
        (hours_of, "09:00-09:00"),
        (hours_of, "24:00-06:00"),
        (hours_of, "09:60-17:00"),
        (hours_of, "09:00-24:01"),
        (hours_of, "0٩:00-17:00"),
        (zone_of, "Mars/Olympus"),
        (zone_of, "../etc/passwd"),
        (zone_of, ""),
        (zone_of, "Europe"),
        (stretch_of, "2026-12-20"[:-1]),
        (stretch_of, "2027-01-03/2026-12-20"),
        (stretch_of, "christmas"),
    ],
)
def test_what_is_none_is_refused_in_words(parse: object, text: str) -> None:
    with pytest.raises(ValueError, match=r"^must (be|end)"):
        parse(text)  # type: ignore[operator]


def test_a_day_of_the_week_runs_over_sunday() -> None:
    assert days_of("fri-mon") == {4, 5, 6, 0}
    assert days_of("mon-mon") == {0}
    assert stretch_of("2026-12-24") == (date(2026, 12, 24),) * 2
    assert timedelta(minutes=hours_of("22:00-06:00")[1]) == timedelta(hours=30)
