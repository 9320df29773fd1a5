"""When a trigger fires: once for what it waits for, wherever it was stopped and started again in between."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.settings.trigger import Trigger
from router.triggers.advance import AskedToFire, TriggerStanding, advance, standing_of
from router.triggers.condition import Condition, ConditionJudged, Since
from router.triggers.readings import TriggerReadings, ValueBand

HOUR = 3_600_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Scripted(Condition):
    """Is what the readings say of it, by its name."""

    kind = "scripted"
    name: str = "a"
    about: tuple[str, ...] = ()

    def judge(self, seen: TriggerReadings, since: Since) -> ConditionJudged:
        return ConditionJudged(seen.verdicts.get(self.name, "unknown"), f"{self.name} says so")  # type: ignore[arg-type]

    @property
    def metrics(self) -> tuple[str, ...]:
        return self.about


def trigger(**more: Any) -> Trigger:
    return Trigger(**{"name": "t", "route": "r", "variant": "v", "any": (Scripted(),), **more})


def seen(hour: float, version: str = "1", coverage: float | None = None, **states: str) -> TriggerReadings:
    covered = {} if coverage is None else {"m": ValueBand(coverage, coverage, coverage)}
    return TriggerReadings(
        at_ms=int(hour * HOUR),
        route="r",
        epoch="e",
        variant="v",
        baseline="v",
        version=version,
        verdicts=states,
        coverage=covered,
    )


def fired(of: Trigger, *readings: TriggerReadings) -> list[float]:
    """The hours at which it fires. At every step it is stored as JSON, and read again."""
    standing: TriggerStanding | None = None
    hours = []
    for one in readings:
        standing, _, event = advance(of, standing, one)
        standing = standing_of(json.loads(json.dumps(standing.stored)))
        if event is not None:
            hours.append(one.at_ms / HOUR)
    return hours


def course(states: str, **more: Any) -> list[TriggerReadings]:
    """A reading an hour: m, c, b and u for met, clear, between and unknown."""
    words = {"m": "met", "c": "clear", "b": "between", "u": "unknown"}
    return [seen(hour, a=words[letter], **more) for hour, letter in enumerate(states)]


@pytest.mark.parametrize(
    ("settings", "states", "hours"),
    [
        ({}, "cmmmcm", [1, 5]),
        ({}, "mbbmcb", [0]),  # hysteresis: it was never cleared in between
        ({}, "muuum", [0]),
        ({}, "ubbb", []),  # what is between was never met
        ({"hold": 2 * HOUR}, "mmcmmmm", [5]),
        ({"hold": 2 * HOUR}, "mbbb", [2]),
        ({"hold": 2 * HOUR}, "muuum", [4]),  # unknown neither fires nor clears
        ({"cool_down": 3 * HOUR}, "mcmcmcmm", [0, 4, 7]),
        ({"cool_down": 3 * HOUR}, "mmmmmmm", [0, 3, 6]),
        ({"cool_down": 3 * HOUR, "once_per_version": True}, "mmmmcmm", [0]),
        ({"once_per_version": True}, "mcmcm", [0]),
    ],
)
def test_it_fires_when_its_conditions_come_to_be_met(settings: dict[str, Any], states: str, hours: list[float]) -> None:
    assert fired(trigger(**settings), *course(states)) == hours


def test_another_version_may_fire_again() -> None:
    of = trigger(once_per_version=True)
    assert fired(of, *course("mc"), seen(5, "2", a="met"), seen(6, "2", a="clear"), seen(7, "2", a="met")) == [0, 5]


def test_a_condition_that_stays_met_hides_no_other() -> None:
    of = trigger(any=(Scripted(name="a"), Scripted(name="b")))
    course = [
        seen(0, a="met", b="clear"),
        seen(1, a="met", b="met"),
        seen(2, a="met", b="clear"),
        seen(3, a="met", b="met"),
    ]
    assert fired(of, *course) == [0, 1, 3]


def test_all_of_them_must_be_met_and_held() -> None:
    of = trigger(any=(), all=(Scripted(name="a"), Scripted(name="b")), hold=HOUR)
    course = [seen(0, a="met"), seen(1, a="met", b="met"), seen(2, a="met", b="unknown"), seen(3, a="met", b="met")]
    assert fired(of, *course) == [3]


def test_conditions_on_a_metric_wait_for_its_coverage() -> None:
    of = trigger(any=(Scripted(about=("m",)),), min_coverage=0.5)
    assert fired(of, seen(0, a="met"), seen(1, coverage=0.4, a="met"), seen(2, coverage=0.6, a="met")) == [2]


def test_a_request_fires_it_whatever_it_waits_for() -> None:
    of = trigger(cool_down=10 * HOUR, once_per_version=True, freeze="old", pause=True)
    standing, _, event = advance(of, None, seen(0, a="met"))
    assert event is not None
    standing, _, event = advance(of, standing, seen(1, a="clear"), AskedToFire("ann", "new labels"))
    assert event is not None
    assert (event["cause"], event["why"], event["number"]) == ("request", "ann asked for it: new labels", 2)
    assert standing.owed == ("freeze:old", "pause")


def test_other_conditions_begin_anew_and_the_cool_down_goes_on() -> None:
    of, other = trigger(cool_down=5 * HOUR), trigger(any=(Scripted(name="b"),), cool_down=5 * HOUR)
    standing, _, event = advance(of, None, seen(0, a="met"))
    assert event is not None
    for hour in (1, 4):
        standing, _, event = advance(other, standing, seen(hour, b="met"))
        assert event is None
    assert advance(other, standing, seen(5, b="met")).event is not None


@given(st.text("mcbu", max_size=30), st.integers(0, 3), st.one_of(st.none(), st.integers(1, 4)), st.booleans())
def test_looking_more_often_fires_no_more(states: str, hold: int, cool: int | None, once: bool) -> None:
    """Two nodes, or a restart, look at the same readings again: nothing fires twice."""
    of = trigger(hold=hold * HOUR, cool_down=None if cool is None else cool * HOUR, once_per_version=once)
    once_each = course(states)
    assert fired(of, *once_each) == fired(of, *(one for one in once_each for _ in range(3)))


@given(st.text("mcbu", max_size=30))
def test_between_two_firings_it_was_cleared(states: str) -> None:
    hours = [int(one) for one in fired(trigger(), *course(states))]
    for one, next_one in pairwise(hours):
        assert "c" in states[one:next_one]
    assert all(states[hour] == "m" for hour in hours)


def test_a_standing_of_a_newer_program_is_read() -> None:
    stored = {**TriggerStanding(fired=2).stored, "novelty": 1}
    assert standing_of(stored) == replace(TriggerStanding(), fired=2)
