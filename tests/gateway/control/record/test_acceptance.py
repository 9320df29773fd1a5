"""The acceptance matrix of joins: one table of what happened and what must be counted of it, on both stores.

Two journals tell each case: one as it happened, with a look after every line; the other all at once, backwards as far
as a journal can be. Either must come to the same.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from gateway.store.counts import tallies
from gateway.store.rows.feedback_status import UNKNOWN
from router.records import Feedback, Prediction
from router.snapshot import Metric
from tests.gateway.control.builders import T0, Desk, at_desk, call, event, keyed, metric, sums, uuid

#: A window of a second, and what is missing counts 0.
CLICK = metric("event", missing=0.0)
#: The same for numbers, without a default.
AMOUNT = metric("value")
TOTAL = metric("value", fold="sum")
YEARS = 3 * 365 * 86_400_000

Values = dict[str, tuple[float, float]]


@dataclass(frozen=True)
class Case:
    """What happened, and what is true at ``watermark`` ms. ``live`` and ``mature`` are (ΣM, ΣD) by variant.

    ``states`` are those of predictions, by number; ``account`` counts events by status, those of no known prediction
    under "unknown".
    """

    name: str
    happened: tuple[Prediction | Feedback, ...]
    watermark: int
    account: dict[str, int]
    states: dict[int, str] = field(default_factory=dict)
    live: Values = field(default_factory=dict)
    mature: Values = field(default_factory=dict)
    closed: Values = field(default_factory=dict)
    metric: Metric = CLICK
    route: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.name


def exposure(number: int, at: int, value: Any = 1, **more: Any) -> Feedback:
    return event(number, value, at, metric="exposed", **more)


TWICE = (call(10, "a", key="loan"), call(500, "b", key="loan"), keyed("loan", 3, at=700))
ONE: Values = {"a": (1.0, 1.0)}
NONE: Values = {"a": (0.0, 1.0)}
EXPOSING = {"require_exposure": True}

CASES = [
    Case(
        "in window, and held until it closes",
        (call(10), event(10, 1, at=900)),
        watermark=1_010,
        account={"joined": 1},
        states={10: "rewarded"},
        live=ONE,
    ),
    Case(
        "in window, and it has closed",
        (call(10), event(10, 1, at=900)),
        watermark=1_011,
        account={"joined": 1},
        states={10: "rewarded"},
        live=ONE,
        mature=ONE,
        closed=NONE,
    ),
    Case(
        "nothing came yet",
        (call(10),),
        watermark=1_010,
        account={},
        states={10: "open"},
    ),
    Case(
        "nothing came",
        (call(10),),
        watermark=1_011,
        account={},
        states={10: "defaulted"},
        live=NONE,
        mature=NONE,
        closed=NONE,
    ),
    Case(
        "nothing came, and there is no default",
        (call(10),),
        watermark=1_011,
        account={},
        states={10: "excluded"},
        closed=NONE,
        metric=AMOUNT,
    ),
    Case(
        "several rewards, the last one counts",
        (call(10), event(10, 3, at=20, item="x"), event(10, 5, at=40, item="y"), event(10, 4, at=30, item="z")),
        watermark=2_000,
        account={"joined": 3},
        states={10: "rewarded"},
        live={"a": (5.0, 1.0)},
        mature={"a": (5.0, 1.0)},
        closed=NONE,
        metric=AMOUNT,
    ),
    Case(
        "several rewards are added up",
        (call(10), event(10, 3, at=20, event_id="1"), event(10, -5, at=30, event_id="2")),
        watermark=2_000,
        account={"joined": 2},
        states={10: "rewarded"},
        live={"a": (-2.0, 1.0)},
        mature={"a": (-2.0, 1.0)},
        closed=NONE,
        metric=TOTAL,
    ),
    Case(
        "at the last moment of the window",
        (call(10), event(10, 1, at=1_010)),
        watermark=2_000,
        account={"joined": 1},
        states={10: "rewarded"},
        live=ONE,
        mature=ONE,
        closed=NONE,
    ),
    Case(
        "out of window",
        (call(10), event(10, 1, at=1_011)),
        watermark=2_000,
        account={"late": 1},
        states={10: "defaulted"},
        live=NONE,
        mature=NONE,
        closed=NONE,
    ),
    Case(
        "a window of years, closed by event time",
        (call(10), event(10, 1, at=YEARS)),
        watermark=YEARS + 11,
        account={"joined": 1},
        states={10: "rewarded"},
        live=ONE,
        mature=ONE,
        closed=NONE,
        metric=metric("event", missing=0.0, window_ms=YEARS),
    ),
    Case(
        "before its prediction, inside the backward window",
        (call(500), event(500, 1, at=510, occurred_ms=T0 + 300)),
        watermark=2_000,
        account={"joined": 1},
        states={500: "rewarded"},
        live=ONE,
        mature=ONE,
        closed=NONE,
        metric=metric("event", missing=0.0, before_ms=200),
    ),
    Case(
        "before its prediction, outside the backward window",
        (call(500), event(500, 1, at=510, occurred_ms=T0 + 299)),
        watermark=2_000,
        account={"late": 1},
        states={500: "defaulted"},
        live=NONE,
        mature=NONE,
        closed=NONE,
        metric=metric("event", missing=0.0, before_ms=200),
    ),
    Case(
        "by key, before its prediction, inside the backward window",
        (keyed("loan", 3, at=300), call(500, key="loan"), call(501, "b", key="loan")),
        watermark=1_000,
        account={"joined": 1},
        states={500: "rewarded", 501: "open"},
        live={"a": (3.0, 1.0)},
        metric=metric("value", before_ms=200),
    ),
    Case(
        "by key, before its prediction, outside the backward window, and it may still come",
        (keyed("loan", 3, at=300), call(501, key="loan")),
        watermark=5_300,
        account={"waiting": 1},
        states={501: "excluded"},
        closed=NONE,
        metric=metric("value", before_ms=200),
    ),
    Case(
        "by key, before its prediction, without a backward window",
        (keyed("loan", 3, at=300), call(301, key="loan")),
        watermark=5_301,
        account={"orphaned": 1},
        states={301: "excluded"},
        closed=NONE,
        metric=AMOUNT,
    ),
    Case(
        "an orphan, without a later prediction",
        (event(10, 1, at=20),),
        watermark=5_021,
        account={"unknown orphaned": 1},
    ),
    Case(
        "feedback that is faster than its prediction's row",
        (event(10, 1, at=20),),
        watermark=5_020,
        account={"unknown waiting": 1},
    ),
    Case(
        "an orphan, with a later prediction",
        (event(6_000, 1, at=20), call(6_000)),
        watermark=8_000,
        account={"joined": 1},
        states={6_000: "rewarded"},
        live=ONE,
        mature=ONE,
        closed=NONE,
    ),
    Case(
        "duplicates",
        (call(10), event(10, 1, at=20), event(10, 1, at=20), event(10, 0, at=30), call(10)),
        watermark=2_000,
        account={"joined": 1, "repeated": 2},
        states={10: "rewarded"},
        live=ONE,
        mature=ONE,
        closed=NONE,
    ),
    Case(
        "a correction",
        (call(10), event(10, 3, at=20), event(10, 8, at=30, revision=2), event(10, 5, at=40, revision=1)),
        watermark=2_000,
        account={"joined": 1, "corrected": 2},
        states={10: "rewarded"},
        live={"a": (8.0, 1.0)},
        mature={"a": (8.0, 1.0)},
        closed=NONE,
        metric=AMOUNT,
    ),
    Case(
        "a retraction",
        (call(10), event(10, 1, at=20), event(10, None, at=30, revision=1)),
        watermark=2_000,
        account={"joined": 1, "corrected": 1},
        states={10: "defaulted"},
        live=NONE,
        mature=NONE,
        closed=NONE,
    ),
    Case(
        "a retraction of one of several, by its own id",
        (
            call(10),
            event(10, 3, at=20, event_id="1"),
            event(10, 4, at=30, event_id="2"),
            event(10, None, at=40, event_id="1", revision=1),
        ),
        watermark=2_000,
        account={"joined": 2, "corrected": 1},
        states={10: "rewarded"},
        live={"a": (4.0, 1.0)},
        mature={"a": (4.0, 1.0)},
        closed=NONE,
        metric=TOTAL,
    ),
    Case(
        "not exposed",
        (call(10), call(11), event(10, 1, at=20)),
        watermark=2_000,
        account={"not_exposed": 1},
        states={10: "not_exposed", 11: "not_exposed"},
        route=EXPOSING,
    ),
    Case(
        "exposed, after its feedback came and its window closed",
        (
            *(call(10), event(10, 1, at=20), call(11)),
            exposure(11, at=2_000, occurred_ms=T0 + 30),
            exposure(10, at=2_000, occurred_ms=T0 + 15),
        ),
        watermark=2_000,
        account={"joined": 3},
        states={10: "rewarded", 11: "defaulted"},
        live={"a": (1.0, 2.0)},
        mature={"a": (1.0, 2.0)},
        closed={"a": (0.0, 2.0)},
        route=EXPOSING,
    ),
    Case(
        "an exposure that is taken back",
        (call(10), event(10, 1, at=20), exposure(10, at=30), exposure(10, at=40, value=None, revision=1)),
        watermark=2_000,
        account={"not_exposed": 1, "joined": 1, "corrected": 1},
        states={10: "not_exposed"},
        route=EXPOSING,
    ),
    Case(
        "two predictions per key: the latest before the event",
        TWICE,
        watermark=2_000,
        account={"joined": 1},
        states={10: "excluded", 500: "rewarded"},
        live={"b": (3.0, 1.0)},
        mature={"b": (3.0, 1.0)},
        closed={"a": (0.0, 1.0), "b": (0.0, 1.0)},
        metric=AMOUNT,
    ),
    Case(
        "two predictions per key: the first",
        TWICE,
        watermark=2_000,
        account={"joined": 1},
        states={10: "rewarded", 500: "excluded"},
        live={"a": (3.0, 1.0)},
        mature={"a": (3.0, 1.0)},
        closed={"a": (0.0, 1.0), "b": (0.0, 1.0)},
        metric=AMOUNT,
        route={"key_rule": "first"},
    ),
    Case(
        "two predictions per key: all, and the event is one event",
        TWICE,
        watermark=2_000,
        account={"joined": 1},
        states={10: "rewarded", 500: "rewarded"},
        live={"a": (3.0, 1.0), "b": (3.0, 1.0)},
        mature={"a": (3.0, 1.0), "b": (3.0, 1.0)},
        closed={"a": (0.0, 1.0), "b": (0.0, 1.0)},
        metric=AMOUNT,
        route={"key_rule": "all"},
    ),
    Case(
        "two predictions per key: all, but one is out of window",
        (*TWICE[:2], keyed("loan", 3, at=1_100)),
        watermark=2_000,
        account={"joined": 1},
        states={10: "excluded", 500: "rewarded"},
        live={"b": (3.0, 1.0)},
        mature={"b": (3.0, 1.0)},
        closed={"a": (0.0, 1.0), "b": (0.0, 1.0)},
        metric=AMOUNT,
        route={"key_rule": "all"},
    ),
    Case(
        "two predictions per key: all, and a correction corrects both",
        (*TWICE, keyed("loan", 5, at=800, revision=1)),
        watermark=2_000,
        account={"joined": 1, "corrected": 1},
        states={10: "rewarded", 500: "rewarded"},
        live={"a": (5.0, 1.0), "b": (5.0, 1.0)},
        mature={"a": (5.0, 1.0), "b": (5.0, 1.0)},
        closed={"a": (0.0, 1.0), "b": (0.0, 1.0)},
        metric=AMOUNT,
        route={"key_rule": "all"},
    ),
    Case(
        "two predictions per key: all, of which one was exposed",
        (*TWICE, exposure(10, at=50)),
        watermark=2_000,
        account={"joined": 2},
        states={10: "rewarded", 500: "not_exposed"},
        live={"a": (3.0, 1.0)},
        mature={"a": (3.0, 1.0)},
        closed={"a": (0.0, 1.0)},
        metric=AMOUNT,
        route={"key_rule": "all", "require_exposure": True},
    ),
]


async def tell(desk: Desk, case: Case, *, backwards: bool) -> None:
    """Write what happened: line by line in order of time, or feedback first, the newest before the oldest."""
    if not backwards:
        for one in case.happened:
            desk.journal.calls(one) if isinstance(one, Prediction) else desk.journal.events(one)
            await desk.recorder.step()
        desk.journal.beat(case.watermark)
        return
    desk.journal.beat(case.watermark)
    await desk.record()
    # Repeats are distinguished by their time of receipt; those of one millisecond are alike.
    for one in reversed(case.happened):
        if isinstance(one, Feedback):
            desk.journal.events(one)
            await desk.recorder.step()
    desk.journal.calls(*(one for one in reversed(case.happened) if isinstance(one, Prediction)))


async def account(desk: Desk) -> dict[str, int]:
    async with desk.store.begin() as connection:
        total = await tallies.feedback_total(connection)
    found: dict[str, int] = {}
    for (route, _, status), n in total.items():
        name = f"unknown {status}" if route == UNKNOWN else status
        found[name] = found.get(name, 0) + n
    return found


@pytest.mark.parametrize("backwards", [False, True], ids=["as it happened", "backwards"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_join(tmp_path: Path, store: str, case: Case, backwards: bool) -> None:
    async def story(desk: Desk) -> None:
        await tell(desk, case, backwards=backwards)
        ledger = await desk.record()
        assert (sums(ledger, "live"), sums(ledger), sums(ledger, "closed")) == (case.live, case.mature, case.closed)
        assert await account(desk) == case.account
        assert sum(case.account.values()) == sum(isinstance(one, Feedback) for one in case.happened)
        for number, expected in case.states.items():
            found = await desk.store.prediction(uuid(number))
            assert found is not None
            assert found["states"]["k"]["state"] == expected, number

    at_desk(Desk(tmp_path, case.metric, store=store, **case.route), story)
