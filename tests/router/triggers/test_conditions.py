"""What every condition promises: missing data never fires it, and the whole interval must lie beyond its bound."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.triggers.condition import Condition, Since
from router.triggers.conditions import CONDITIONS
from router.triggers.conditions.labels import LabelledRows
from router.triggers.conditions.limit import MetricLimit
from router.triggers.conditions.past import WorseThanPast
from router.triggers.readings import Hour, TriggerReadings, Values

HOUR = 3_600_000
NOW = 10_000 * HOUR
SINCE = Since(at_ms=NOW - HOUR, epoch="e")
NOTHING = TriggerReadings(at_ms=NOW, route="r", epoch="e", variant="v", baseline="b", version="1")

VALUES: dict[str, Any] = {
    "metric": "correct",
    "worse_by": 0.1,
    "at_least": 5,
    "below": 0.5,
    "cron": "0 4 * * *",
    "status": ("worse",),
}


def every() -> list[Condition]:
    """One of each kind."""
    return [kind(**{f.name: VALUES[f.name] for f in fields(kind) if f.name in VALUES}) for kind in CONDITIONS]  # type: ignore[arg-type]


def values(mean: float, n: int = 50, hours: int = 168, begin: int = NOW - 168 * HOUR, **more: Any) -> Values:
    """So many values an hour, of which this share is 1, alternating a little from hour to hour."""
    made = tuple(Hour(begin + i * HOUR, HOUR, n, n * min(max(mean + 0.01 * (-1) ** i, 0), 1)) for i in range(hours))
    return Values(made, bounds=(0.0, 1.0), **more)


@pytest.mark.parametrize("condition", every(), ids=lambda one: one.kind)
def test_no_data_is_never_a_reason(condition: Condition) -> None:
    judged = condition.judge(NOTHING, SINCE)
    assert judged.state in ("unknown", "clear")
    assert judged.state == "unknown" or not condition.needs
    assert judged.said


def test_kinds_have_names_of_their_own() -> None:
    assert len({kind.kind for kind in CONDITIONS}) == len(CONDITIONS)


@pytest.mark.parametrize(
    ("mean", "n", "state"),
    [(0.80, 50, "met"), (0.95, 50, "clear"), (0.90, 50, "clear"), (0.899, 50, "between"), (0.80, 1, "between")],
)
def test_a_limit_is_met_where_the_whole_interval_lies_beyond(mean: float, n: int, state: str) -> None:
    seen = replace(NOTHING, values={"correct": values(mean, n, hours=168 if n > 1 else 40, begin=NOW - 168 * HOUR)})
    judged = MetricLimit(metric="correct", below=0.9).judge(seen, SINCE)
    assert judged.state == state, judged


def test_values_that_cannot_be_known_yet_are_not_asked_for() -> None:
    """With a window of a week, the last week's predictions have no mature value: the week before that is meant."""
    week = 168 * HOUR
    late = values(0.5, begin=NOW - 2 * week, delay_ms=week)
    condition = MetricLimit(metric="correct", below=0.9)
    assert condition.judge(replace(NOTHING, values={"correct": late}), SINCE).state == "met"
    assert condition.judge(replace(NOTHING, values={"correct": replace(late, delay_ms=0)}), SINCE).state == "unknown"


@pytest.mark.parametrize(
    ("lower", "now", "state"), [(False, 0.7, "met"), (False, 0.9, "clear"), (True, 0.9, "clear"), (True, 0.97, "met")]
)
def test_worse_than_the_past_is_worse_whichever_direction_is_good(lower: bool, now: float, state: str) -> None:
    week = 168 * HOUR
    before, after = values(0.85, begin=NOW - 5 * week, hours=4 * 168), values(now)
    both = Values((*before.hours, *after.hours), bounds=(0.0, 1.0), lower_is_better=lower)
    judged = WorseThanPast(metric="correct", worse_by=0.08).judge(replace(NOTHING, values={"correct": both}), SINCE)
    assert judged.state == state, judged


@given(st.floats(0, 1), st.integers(1, 200), st.floats(0, 1))
def test_a_limit_is_never_met_and_cleared_at_once_and_more_values_narrow_it(mean: float, n: int, limit: float) -> None:
    few = values(mean, n).mean(0, NOW)
    many = values(mean, 4 * n).mean(0, NOW)
    assert few is not None
    assert many is not None
    assert few.low <= few.value <= few.high
    assert many.high - many.low <= few.high - few.low + 1e-9
    seen = replace(NOTHING, values={"correct": values(mean, n)})
    below = MetricLimit(metric="correct", below=limit).judge(seen, SINCE)
    above = MetricLimit(metric="correct", above=limit).judge(seen, SINCE)
    assert (below.state, above.state) != ("met", "met")


def test_labelled_rows_count_from_the_last_firing_and_anew_in_another_epoch() -> None:
    condition, seen = LabelledRows(metric="correct", at_least=100), replace(NOTHING, labels={"correct": 150})
    assert condition.judge(seen, replace(SINCE, labels={"correct": 51})).state == "clear"
    assert condition.judge(seen, replace(SINCE, labels={"correct": 50})).state == "met"
    assert condition.judge(seen, replace(SINCE, epoch="before", labels={"correct": 149})).state == "met"
