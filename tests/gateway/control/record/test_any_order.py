"""In any order, with any repeats and interruptions, the store equals the exact fold of everything."""

from __future__ import annotations

import asyncio
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from gateway.journal.segments import FEEDBACK, PREDICTIONS
from gateway.store.counts import tallies
from gateway.store.counts.hours import HourKey
from gateway.store.counts.ledger import Ledger, TallyKey
from gateway.store.schema import count_tables
from router.records import UNCOUNTED, Feedback, Prediction, feedback_line, mark_line
from router.snapshot import Metric
from tests.gateway.control.builders import OTHER, RUN, T0, WRITER, Desk, call, comparable, event, keyed, metric
from tests.gateway.control.fold import fold
from tests.router.journal_lines import call_line

#: A life of the second worker that ended without a clean end in the journal.
DEAD = f"{RUN}-01-{T0 - 1:012x}"

METRICS = (
    metric("label", "label", fold="last"),
    metric("label", "error", score="absolute_error", fold="mean", missing=2.0),
    metric("event", "click", missing=0.0, window_ms=300, before_ms=150),
    metric("value", "money", fold="sum", mature="arrival"),
)
VALUES: dict[str, Any] = {
    "label": st.sampled_from([0, 1, 2, True, "x", None]),
    "error": st.sampled_from([0, 1, 2.5, None]),
    "click": st.sampled_from([0, 1, True, None]),
    "money": st.sampled_from([-1, 0.25, 4, None]),
    "stray": st.just(1),
    "exposed": st.sampled_from([0, 1, 1, 1, None]),
}

numbers = st.integers(0, 5).map(lambda i: i * 100)
faults = st.sampled_from([None, None, None, None, "timeout", "client_gone"])


@dataclass(frozen=True)
class Line:
    """One line of the journal; ``after`` is the line that must stand before it in the same segment."""

    folder: str
    writer: str
    content: bytes
    after: bytes | None = None


@st.composite
def requests(draw: Callable[[Any], Any]) -> list[Prediction]:
    """Some requests with all their calls."""
    rows: list[Prediction] = []
    by_unit = draw(st.sampled_from([True, True, False, None]))
    for number in sorted(draw(st.sets(numbers, max_size=5))):
        shared = {
            "unit": draw(st.sampled_from(["u", "v", None])),
            "by_unit": draw(st.booleans()) if by_unit is None else by_unit,
            "key": draw(st.sampled_from(["k1", "k2", None])),
            "forced": draw(st.sampled_from([False, False, False, True])),
            "revision": draw(st.integers(1, 2)),
            "period": draw(st.sampled_from([1, 1, 2, 3])),
            "reason": draw(st.sampled_from(["unit", "unit", "unit", UNCOUNTED])),
        }
        prediction = st.sampled_from([{}, {"prediction": 1}, {"prediction": 2}, {"prediction": True}])
        if draw(st.sampled_from([False, False, True])):
            shown = draw(st.sampled_from([None, ("x", "w", "z", "y")]))
            for ranker, items in (("a", ("x", "y")), ("b", ("z",))):
                fault = draw(faults)
                merged = {} if fault else {"items": items, "shown": shown if ranker == "a" else None}
                rows.append(call(number, ranker, role="draft", fault=fault, **merged, **{**shared, "forced": False}))
            continue
        variant = draw(st.sampled_from("ab"))
        fault = draw(faults)
        served = draw(st.sampled_from([None, "z"])) if fault else None
        role = draw(st.sampled_from(["primary", "primary", "primary", "holdout"]))
        rows.append(call(number, variant, role=role, fault=fault, served=served, **shared, **draw(prediction)))
        if draw(st.booleans()):
            fault = draw(st.sampled_from([None, None, "reset", "dropped"]))
            rows.append(call(number, "s", role="shadow", fault=fault, **shared, **draw(prediction)))
    return rows


@st.composite
def feedback(draw: Callable[[Any], Any]) -> list[Feedback]:
    """Some events. Those that share identity, revision and millisecond are alike."""
    events: dict[Any, Feedback] = {}
    for _ in range(draw(st.integers(0, 12))):
        name = draw(st.sampled_from([*VALUES, "exposed", "exposed"]))
        more = {
            "metric": name,
            "item": draw(st.sampled_from(["x", "y", "z", "w", None])),
            "event_id": draw(st.sampled_from(["e1", "e2", None, None])),
            "revision": draw(st.sampled_from([0, 0, 1, 2])),
        }
        at = draw(st.sampled_from([50, 150, 350, 1_090, 1_400]))
        if draw(st.booleans()):
            more["occurred_ms"] = T0 + draw(st.sampled_from([90, 200, 500, 1_500]))
        value = draw(VALUES[name])
        if draw(st.sampled_from([False, False, True])):
            one = keyed(draw(st.sampled_from(["k1", "k2"])), value, at, **more)
        else:
            one = event(draw(numbers), value, at, **more)
        events.setdefault((one.identity, one.revision, one.received_ms), one)
    repeats = draw(st.lists(st.sampled_from(list(events.values())), max_size=3)) if events else []
    return [*events.values(), *repeats]


@st.composite
def journals(draw: Callable[[Any], Any]) -> tuple[list[Prediction], list[Feedback], int, list[Line]]:
    """What happened, the watermark in the end, and the journal's lines in some order of reading."""
    rows, events, watermark = draw(requests()), draw(feedback()), draw(st.sampled_from([120, 700, 1_201, 6_500]))
    lines = [Line(PREDICTIONS, writer, mark_line("beat", T0 + watermark)) for writer in (WRITER, OTHER)]
    lines += [Line(PREDICTIONS, WRITER, mark_line("beat", T0 + watermark // 2))]
    told = []
    for row in rows:
        writer = draw(st.sampled_from([WRITER, OTHER]))
        way = draw(st.sampled_from(["call", "call", "call", "twice", "stream", "died"]))
        open_line = call_line(replace(row, fault="incomplete", predicted=False, prediction=None), "open")
        if way == "died" and row.role == "primary":
            told.append(replace(row, fault="incomplete", predicted=False, prediction=None))
            lines.append(Line(PREDICTIONS, DEAD, open_line))
            continue
        told.append(row)
        if way == "stream":
            lines.append(Line(PREDICTIONS, writer, open_line))
            lines.append(Line(PREDICTIONS, writer, call_line(row, "close"), after=open_line))
        else:
            lines += [Line(PREDICTIONS, writer, call_line(row))] * (2 if way == "twice" else 1)
    lines += [Line(FEEDBACK, draw(st.sampled_from([WRITER, OTHER])), feedback_line(one)) for one in events]
    shuffled = draw(st.permutations(lines))
    # Dead writers write before they have successors, a stream ends after it begins; all else is in any order.
    shuffled.sort(key=lambda line: (line.writer != DEAD, line.after is not None))
    return told, events, T0 + watermark, shuffled


async def counted(desk: Desk) -> tuple[Any, Any, Any, Ledger]:
    ledger = await desk.ledger()
    async with desk.store.begin() as connection:
        feedback = dict(await tallies.feedback_total(connection))
        columns = (count_tables.stretches.c.revision, count_tables.stretches.c.variant, count_tables.stretches.c.n)
        arrivals = Counter[tuple[int, str]]()
        for revision, variant, n in await connection.execute(select(*columns)):
            arrivals[revision, variant] += n
    return comparable(ledger.tallies), feedback, dict(+arrivals), ledger


async def check(
    desk: Desk, lines: list[Line], pauses: set[int], restarts: set[int], expected: Any, watermark: int
) -> None:
    async with desk:
        for index, line in enumerate(lines):
            desk.journal.write(line.folder, [line.content], line.writer)
            if index in pauses:
                await desk.recorder.step()
            if index in restarts:
                desk.restart()
        await desk.record()
        found, feedback, arrivals, ledger = await counted(desk)
        async with desk.store.begin() as connection:
            hours = {HourKey(*row[:8]): row[8:10] for row in await connection.execute(select(count_tables.hours))}
    assert found == comparable(expected.tallies)
    assert feedback == dict(expected.feedback)
    assert arrivals == dict(expected.arrivals)
    assert ledger.watermark_ms == watermark
    for key, tally in ledger.tallies.items():
        assert tally.d_max >= expected.tallies[key].d_max
    assert {key: ledger.buckets.get(key) for key in expected.buckets} == expected.buckets
    assert ledger.few_units == expected.few_units
    assert {key: tuple(sums) for key, sums in hours.items() if tuple(sums) != (0, 0)} == expected.hours


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    journal=journals(),
    pauses=st.sets(st.integers(0, 40), max_size=8),
    restarts=st.sets(st.integers(0, 40), max_size=3),
    batch=st.sampled_from([1, 3, 2_000]),
    key_rule=st.sampled_from(["latest", "first", "all"]),
    exposure=st.booleans(),
)
def test_the_store_equals_the_exact_fold(
    new_store: Callable[[], str],
    journal: tuple[list[Prediction], list[Feedback], int, list[Line]],
    pauses: set[int],
    restarts: set[int],
    batch: int,
    key_rule: str,
    exposure: bool,
) -> None:
    rows, events, watermark, lines = journal
    metrics = {one.name: one for one in METRICS}
    expected = fold(rows, events, metrics, watermark, key_rule=key_rule, exposure=exposure)
    route = {"key_rule": key_rule, "require_exposure": exposure}
    with tempfile.TemporaryDirectory() as folder:
        desk = Desk(Path(folder), *METRICS, store=new_store(), lines=batch, **route)
        asyncio.run(check(desk, lines, pauses, restarts, expected, watermark))


def test_a_replay_into_an_empty_store_gives_the_same_tallies(tmp_path: Path, new_store: Callable[[], str]) -> None:
    """The first run read the journal line by line, the replay reads all of it at once."""
    metrics: dict[str, Metric] = {one.name: one for one in METRICS}
    rows = [
        call(n * 10, "ab"[n % 2], unit=f"u{n % 7}", by_unit=True, prediction=n % 3, key=f"k{n % 5}") for n in range(80)
    ]
    events = [event(n * 10, n % 2, at=n * 10 + 5 + n % 900, metric="label") for n in range(0, 80, 2)]
    events += [keyed(f"k{n % 5}", 1, at=n * 30, metric="click") for n in range(30)]
    calls, told = list(map(call_line, rows)), list(map(feedback_line, events))

    async def story() -> tuple[Any, Any]:
        async with Desk(tmp_path / "live", *METRICS, store=new_store()) as desk:
            for n in range(80):
                desk.journal.write(PREDICTIONS, [calls[n], mark_line("beat", T0 + n * 10)])
                desk.journal.write(FEEDBACK, told[n : n + 1])
                await desk.recorder.step()
            desk.journal.beat(1_450)
            await desk.record()
            live = await counted(desk)
        async with Desk(tmp_path / "replay", *METRICS, store=new_store()) as desk:
            desk.journal.write(FEEDBACK, told)
            for n in range(80):
                desk.journal.write(PREDICTIONS, [calls[n], mark_line("beat", T0 + n * 10)])
            desk.journal.beat(1_450)
            await desk.record()
            return live, await counted(desk)

    live, replayed = asyncio.run(story())
    assert live[:3] == replayed[:3]
    assert live[0] == comparable(fold(rows, events, metrics, T0 + 1_450).tallies)
    assert live[1] == dict(fold(rows, events, metrics, T0 + 1_450).feedback)
    assert Counter(key.phase for key in live[3].tallies if isinstance(key, TallyKey))["mature"] > 0
