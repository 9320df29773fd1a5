"""Feedback and predictions are joined, in small cases by hand: early, twice, corrected, late, orphaned, by key."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway.report import report
from gateway.store.counts import tallies
from gateway.store.counts.ledger import CALLS
from gateway.store.rows.feedback_status import UNKNOWN
from router.records import UNCOUNTED
from router.scores import Agreement
from router.snapshot import Backend
from tests.gateway.control.builders import (
    OTHER,
    T0,
    Desk,
    at_desk,
    call,
    event,
    keyed,
    metric,
    statuses,
    sums,
    uuid,
)


async def everything(desk: Desk) -> dict[tuple[str, str, str], int]:
    async with desk.store.begin() as connection:
        return dict(await tallies.feedback_total(connection))


def test_a_label_in_time_is_live_at_once_and_mature_when_its_window_has_closed(tmp_path: Path, store: str) -> None:
    async def story(desk: Desk) -> None:
        desk.journal.calls(call(10, prediction=7), call(20, "b", prediction=7))
        desk.journal.events(event(10, 7, at=500), event(20, 8, at=600))
        desk.journal.beat(1_010)
        ledger = await desk.record()
        assert sums(ledger, "live") == {"a": (1.0, 1.0), "b": (0.0, 1.0)}
        assert sums(ledger) == {}
        desk.journal.beat(1_011)  # the window of the first, 10 + 1,000, is over; that of the second is not
        ledger = await desk.record()
        assert sums(ledger) == {"a": (1.0, 1.0)}
        assert sums(ledger, "closed") == {"a": (0.0, 1.0)}
        desk.journal.beat(1_021)
        assert sums(await desk.record()) == {"a": (1.0, 1.0), "b": (0.0, 1.0)}

    at_desk(Desk(tmp_path, metric(), store=store), story)


def test_feedback_that_comes_before_its_prediction_waits_for_it(tmp_path: Path, store: str) -> None:
    async def story(desk: Desk) -> None:
        desk.journal.events(event(10, 7, at=20))
        await desk.record()
        assert await everything(desk) == {(UNKNOWN, "k", "waiting"): 1}
        desk.journal.calls(call(10, prediction=7))
        ledger = await desk.record()
        assert sums(ledger, "live") == {"a": (1.0, 1.0)}
        assert await everything(desk) == {("r", "k", "joined"): 1}
        assert [(t.status, t.n) for t in desk.status_deltas] == [("waiting", 1), ("waiting", -1), ("joined", 1)]
        assert desk.status_deltas[-1].delay_seconds == 0.01

    at_desk(Desk(tmp_path, metric(), store=store), story)


def test_an_orphan_is_given_up_five_seconds_later_and_joined_all_the_same_should_its_prediction_come(
    tmp_path: Path,
    store: str,
) -> None:
    async def story(desk: Desk) -> None:
        desk.journal.events(event(10, 7, at=20))
        desk.journal.beat(5_020)
        await desk.record()
        assert await everything(desk) == {(UNKNOWN, "k", "waiting"): 1}
        desk.journal.beat(5_021)
        await desk.record()
        assert await everything(desk) == {(UNKNOWN, "k", "orphaned"): 1}
        desk.journal.calls(call(10, prediction=7))
        ledger = await desk.record()
        assert sums(ledger) == sums(ledger, "live") == {"a": (1.0, 1.0)}
        assert statuses(ledger) == {"joined": 1}

    at_desk(Desk(tmp_path, metric(), store=store), story)


def test_an_id_that_is_none_of_ours_is_an_orphan_at_once(tmp_path: Path, store: str) -> None:
    async def story(desk: Desk) -> None:
        desk.journal.events(event(10, 7, at=20, prediction_id="order-4711"))
        await desk.record()
        assert await everything(desk) == {(UNKNOWN, "k", "orphaned"): 1}

    at_desk(Desk(tmp_path, metric(), store=store), story)


def test_the_same_event_again_is_repeated_and_counts_once(tmp_path: Path, store: str) -> None:
    async def story(desk: Desk) -> None:
        desk.journal.calls(call(10, prediction=7))
        desk.journal.events(event(10, 7, at=20), event(10, 7, at=20), event(10, 8, at=30))
        ledger = await desk.record()
        assert sums(ledger, "live") == {"a": (1.0, 1.0)}
        assert statuses(ledger) == {"joined": 1, "repeated": 2}

    at_desk(Desk(tmp_path, metric(), store=store), story)


@pytest.mark.parametrize("first", ["earlier", "later"])
def test_of_repeats_the_one_received_first_counts_whichever_is_read_first(
    tmp_path: Path, store: str, first: str
) -> None:
    async def story(desk: Desk) -> None:
        earlier, later = event(10, 7, at=20), event(10, 8, at=30)
        desk.journal.calls(call(10, prediction=7))
        for one in (earlier, later) if first == "earlier" else (later, earlier):
            desk.journal.events(one)
            await desk.record()
        ledger = await desk.record()
        assert sums(ledger, "live") == {"a": (1.0, 1.0)}
        assert statuses(ledger) == {"joined": 1, "repeated": 1}

    at_desk(Desk(tmp_path, metric(), store=store), story)


def test_a_correction_moves_tallies_by_the_difference(tmp_path: Path, store: str) -> None:
    async def story(desk: Desk) -> None:
        desk.journal.calls(call(10, prediction=7))
        desk.journal.events(event(10, 8, at=20))
        desk.journal.beat(2_000)
        assert sums(await desk.record()) == {"a": (0.0, 1.0)}
        desk.journal.events(event(10, 7, at=30, revision=1))
        ledger = await desk.record()
        assert sums(ledger) == sums(ledger, "live") == {"a": (1.0, 1.0)}
        assert statuses(ledger) == {"joined": 1, "corrected": 1}
        desk.journal.events(event(10, 9, at=40, revision=0))
        assert statuses(await desk.record()) == {"joined": 1, "corrected": 1, "repeated": 1}

    at_desk(Desk(tmp_path, metric(), store=store), story)


def test_a_correction_that_comes_first_still_wins(tmp_path: Path, store: str) -> None:
    async def story(desk: Desk) -> None:
        desk.journal.events(event(10, 7, at=30, revision=3))
        desk.journal.calls(call(10, prediction=7))
        await desk.record()
        desk.journal.events(event(10, 8, at=20))
        ledger = await desk.record()
        assert sums(ledger, "live") == {"a": (1.0, 1.0)}
        assert statuses(ledger) == {"joined": 1, "corrected": 1}

    at_desk(Desk(tmp_path, metric(), store=store), story)


def test_an_event_after_its_window_is_late_and_counts_nowhere(tmp_path: Path, store: str) -> None:
    async def story(desk: Desk) -> None:
        desk.journal.calls(call(10, prediction=7), call(20, "b", prediction=7))
        desk.journal.events(event(10, 7, at=1_011), event(20, 7, at=1_020))
        desk.journal.beat(3_000)
        ledger = await desk.record()
        assert sums(ledger) == {"b": (1.0, 1.0)}
        assert sums(ledger, "closed") == {"a": (0.0, 1.0), "b": (0.0, 1.0)}
        assert statuses(ledger) == {"late": 1, "joined": 1}

    at_desk(Desk(tmp_path, metric(), store=store), story)


def test_what_happened_in_time_counts_however_late_it_is_heard_of(tmp_path: Path, store: str) -> None:
    async def story(desk: Desk) -> None:
        desk.journal.calls(call(10, prediction=7))
        desk.journal.beat(9_000)
        await desk.record()
        desk.journal.events(event(10, 7, at=9_000, occurred_ms=T0 + 900))
        ledger = await desk.record()
        assert sums(ledger) == sums(ledger, "live") == {"a": (1.0, 1.0)}

    at_desk(Desk(tmp_path, metric(), store=store), story)


def test_a_correction_after_the_window_is_late_and_what_it_would_correct_stays(tmp_path: Path, store: str) -> None:
    async def story(desk: Desk) -> None:
        desk.journal.calls(call(10, prediction=7))
        desk.journal.events(event(10, 7, at=20), event(10, 8, at=5_000, revision=1))
        desk.journal.beat(9_000)
        ledger = await desk.record()
        assert sums(ledger) == {"a": (1.0, 1.0)}
        assert statuses(ledger) == {"joined": 1, "late": 1}

    at_desk(Desk(tmp_path, metric(), store=store), story)


def test_a_retraction_takes_back_what_was_said(tmp_path: Path, store: str) -> None:
    async def story(desk: Desk) -> None:
        desk.journal.calls(call(10), call(11))
        desk.journal.events(event(10, 1, at=20), event(11, 1, at=20))
        desk.journal.beat(2_000)
        assert sums(await desk.record()) == {"a": (2.0, 2.0)}
        desk.journal.events(event(10, None, at=30, revision=1))
        ledger = await desk.record()
        assert sums(ledger) == sums(ledger, "live") == {"a": (1.0, 2.0)}, "as if nothing had ever come: missing"
        assert statuses(ledger) == {"joined": 2, "corrected": 1}
        desk.journal.events(event(10, 1, at=40, revision=2))
        assert sums(await desk.record()) == {"a": (2.0, 2.0)}

    at_desk(Desk(tmp_path, metric("event", missing=0.0), store=store), story)


def test_an_event_too_long_before_its_prediction_is_outside_its_window(tmp_path: Path, store: str) -> None:
    async def story(desk: Desk) -> None:
        desk.journal.calls(call(400, prediction=7), call(401, "b", prediction=7))
        desk.journal.events(event(400, 7, at=500, occurred_ms=T0 + 100), event(401, 7, at=500, occurred_ms=T0 + 100))
        ledger = await desk.record()
        assert sums(ledger, "live") == {"a": (1.0, 1.0)}
        assert statuses(ledger) == {"joined": 1, "late": 1}

    at_desk(Desk(tmp_path, metric(before_ms=300), store=store), story)


def test_an_event_of_a_metric_that_the_route_does_not_list_is_not_applicable(tmp_path: Path, store: str) -> None:
    async def story(desk: Desk) -> None:
        desk.journal.calls(call(10, prediction=7))
        desk.journal.events(event(10, 7, at=20, metric="other"))
        assert (await desk.record()).feedback == {("other", "not_applicable"): 1}

    at_desk(Desk(tmp_path, metric(), store=store), story)


def test_a_key_leads_to_the_latest_prediction_before_the_event(tmp_path: Path, store: str) -> None:
    async def story(desk: Desk) -> None:
        numbers = (10, 20, 30)
        desk.journal.calls(
            *(call(n, variant, key="order", prediction=n) for n, variant in zip(numbers, "abc", strict=True))
        )
        desk.journal.events(keyed("order", 20, at=29))
        desk.journal.beat(29)
        ledger = await desk.record()
        assert statuses(ledger) == {"waiting": 1}, "a prediction at 29 may still be read"
        desk.journal.beat(31)
        ledger = await desk.record()
        assert sums(ledger, "live") == {"b": (1.0, 1.0)}
        assert statuses(ledger) == {"joined": 1}

    at_desk(Desk(tmp_path, metric(), store=store), story)


def test_a_key_that_no_prediction_had_is_an_orphan_of_its_route(tmp_path: Path, store: str) -> None:
    async def story(desk: Desk) -> None:
        desk.journal.calls(call(10, key="order", prediction=7))
        desk.journal.events(keyed("other", 7, at=20), keyed("order", 7, at=9))
        desk.journal.beat(5_009)
        assert statuses(await desk.record()) == {"waiting": 2}
        desk.journal.beat(5_021)
        assert statuses(await desk.record()) == {"orphaned": 2}

    at_desk(Desk(tmp_path, metric(), store=store), story)


def test_a_keyed_prediction_that_was_read_too_late_takes_over_its_event(tmp_path: Path, store: str) -> None:
    """The writer may have died, and its segment been read after the watermark had moved on."""

    async def story(desk: Desk) -> None:
        desk.journal.calls(call(10, key="order", prediction=7))
        desk.journal.events(keyed("order", 7, at=50), keyed("late", 7, at=50))
        desk.journal.beat(6_000)
        ledger = await desk.record()
        assert sums(ledger, "live") == {"a": (1.0, 1.0)}
        assert statuses(ledger) == {"joined": 1, "orphaned": 1}
        desk.journal.calls(
            call(20, "b", key="order", prediction=8), call(30, "b", key="late", prediction=7), writer=OTHER
        )
        ledger = await desk.record()
        assert sums(ledger) == {"b": (1.0, 2.0)}
        assert statuses(ledger) == {"joined": 2}

    at_desk(Desk(tmp_path, metric(), store=store), story)


def test_a_caller_may_move_an_event_to_another_prediction(tmp_path: Path, store: str) -> None:
    async def story(desk: Desk) -> None:
        desk.journal.calls(call(10, prediction=7), call(20, "b", prediction=7))
        desk.journal.events(event(10, 7, at=30, event_id="x"))
        await desk.record()
        desk.journal.events(event(20, 7, at=40, event_id="x", revision=1))
        ledger = await desk.record()
        assert sums(ledger, "live") == {"b": (1.0, 1.0)}
        assert statuses(ledger) == {"joined": 1, "corrected": 1}

    at_desk(Desk(tmp_path, metric(), store=store), story)


def test_a_label_judges_a_shadow_whenever_its_row_comes(tmp_path: Path, store: str) -> None:
    async def story(desk: Desk) -> None:
        desk.journal.calls(call(10, prediction=7))
        desk.journal.events(event(10, 8, at=20))
        desk.journal.beat(2_000)
        assert sums(await desk.record()) == {"a": (0.0, 1.0)}
        desk.journal.calls(call(10, "s", role="shadow", prediction=8))
        ledger = await desk.record()
        assert sums(ledger) == sums(ledger, "live") == {"a": (0.0, 1.0), "s": (1.0, 1.0)}
        assert sums(ledger, "closed") == {"a": (0.0, 1.0), "s": (0.0, 1.0)}
        assert sums(ledger, against="a") == {"s": (1.0, 1.0)}
        assert ledger.pooled("s", "shadow", Agreement.name, "live").mean == 0.0

    at_desk(Desk(tmp_path, metric(), store=store), story)


def test_windows_close_for_successes_and_failures_alike(tmp_path: Path, store: str) -> None:
    """A click comes soon, its absence is never sent: counted at once, every variant would look too good."""

    async def story(desk: Desk) -> None:
        desk.journal.calls(*(call(n, fault="timeout" if n == 14 else None) for n in (10, 11, 12, 13, 14)))
        desk.journal.events(event(10, 1, at=15), event(12, 1, at=900))
        desk.journal.beat(1_000)
        ledger = await desk.record()
        assert (sums(ledger), sums(ledger, "live")) == ({}, {"a": (2.0, 2.0)})
        desk.journal.beat(1_013)
        ledger = await desk.record()
        assert sums(ledger) == {"a": (2.0, 3.0)}
        desk.journal.beat(2_000)
        ledger = await desk.record()
        assert sums(ledger) == sums(ledger, "live") == {"a": (2.0, 5.0)}
        assert sums(ledger, "closed") == {"a": (0.0, 5.0)}

    at_desk(Desk(tmp_path, metric("event", missing=0.0), store=store), story)


def test_a_late_row_whose_window_has_closed_is_mature_at_once(tmp_path: Path, store: str) -> None:
    async def story(desk: Desk) -> None:
        desk.journal.beat(5_000)
        await desk.record()
        desk.journal.calls(call(10, "b"), writer=OTHER)
        ledger = await desk.record()
        assert sums(ledger) == {"b": (0.0, 1.0)}
        assert sums(ledger, "closed") == {"b": (0.0, 1.0)}

    at_desk(Desk(tmp_path, metric("event", missing=0.0), store=store), story)


def test_on_arrival_a_click_is_mature_at_once_and_its_absence_at_the_close(tmp_path: Path, store: str) -> None:
    async def story(desk: Desk) -> None:
        desk.journal.calls(call(10), call(11))
        desk.journal.events(event(10, 1, at=15))
        desk.journal.beat(20)
        assert sums(await desk.record()) == {"a": (1.0, 1.0)}
        desk.journal.beat(2_000)
        assert sums(await desk.record()) == {"a": (1.0, 2.0)}

    at_desk(Desk(tmp_path, metric("event", missing=0.0, mature="arrival"), store=store), story)


def test_units_are_what_is_counted_where_assignment_is_by_unit(tmp_path: Path, store: str) -> None:
    async def story(desk: Desk) -> None:
        for number, unit, clicks in ((10, "u", 1), (11, "u", 1), (12, "u", 0), (13, "v", 0), (14, None, 1)):
            desk.journal.calls(call(number, unit=unit, by_unit=True))
            desk.journal.events(event(number, clicks, at=50))
        desk.journal.beat(2_000)
        ledger = await desk.record()
        tally = ledger.pooled("a", "primary", "k", "mature", definition=desk.snapshot.metrics["k"].definition)
        assert (tally.n, tally.m, tally.m2, tally.d, tally.d2, tally.md, tally.d_max) == (3, 3, 5, 5, 11, 7, 3)
        assert (tally.positive, tally.negative) == (2, 0)
        calls = ledger.pooled("a", "primary", CALLS, "live")
        assert (calls.n, calls.m, calls.d) == (3, 0, 5)

    at_desk(Desk(tmp_path, metric("event"), by_unit=True, store=store), story)


def test_a_merged_answer_votes_by_unit(tmp_path: Path, store: str) -> None:
    async def story(desk: Desk) -> None:
        for number, unit, clicked in ((10, "u", "x"), (11, "u", "x"), (12, "v", "y"), (13, "w", "elsewhere")):
            rows = [
                call(number, ranker, role="draft", items=(item,), unit=unit, by_unit=True)
                for ranker, item in (("a", "x"), ("b", "y"))
            ]
            desk.journal.calls(*rows)
            desk.journal.events(event(number, 1, at=50, item=clicked))
        desk.journal.beat(2_000)
        ledger = await desk.record()
        definition = desk.snapshot.metrics["k"].definition
        votes = ledger.pooled("a", "draft", "k", "mature", against="b", definition=definition)
        assert (votes.n, votes.positive, votes.negative, votes.d) == (2, 1, 1, 3)
        votes = ledger.pooled("b", "draft", "k", "mature", against="a", definition=definition)
        assert (votes.n, votes.positive, votes.negative, votes.m) == (2, 1, 1, -1)
        assert statuses(ledger) == {"joined": 3, "not_applicable": 1}

    at_desk(Desk(tmp_path, metric("event"), by_unit=True, store=store), story)


def test_forced_requests_are_counted_apart_and_nowhere_else(tmp_path: Path, store: str) -> None:
    async def story(desk: Desk) -> None:
        desk.journal.calls(call(10, forced=True, prediction=7, latency_ms=3.0, unit="u", by_unit=True))
        desk.journal.events(event(10, 7, at=20))
        desk.journal.beat(2_000)
        ledger = await desk.record()
        assert ledger.forced == 1
        assert (ledger.tallies, ledger.latency, ledger.faults, ledger.stretches) == ({}, {}, {}, ())
        assert statuses(ledger) == {"joined": 1}

    at_desk(Desk(tmp_path, metric(missing=0.0), store=store), story)


def test_requests_of_a_frozen_route_are_counted_under_a_word_of_their_own_and_nowhere_else(
    tmp_path: Path, store: str
) -> None:
    async def story(desk: Desk) -> None:
        frozen: dict[str, Any] = {"forced": True, "reason": "frozen", "propensity": None}
        desk.journal.calls(call(10, prediction=7, latency_ms=3.0, unit="u", by_unit=True, **frozen))
        desk.journal.calls(call(11, fault="refused", **frozen))
        desk.journal.events(event(10, 7, at=20))
        desk.journal.beat(2_000)
        ledger = await desk.record()
        assert (ledger.forced, {key[1:]: seen.n for key, seen in ledger.signs.items()}) == (
            0,
            {("primary", "frozen"): 2},
        )
        assert (ledger.tallies, ledger.latency, ledger.faults, ledger.stretches) == ({}, {}, {}, ())
        assert statuses(ledger) == {"joined": 1}

    at_desk(Desk(tmp_path, metric(missing=0.0), store=store), story)


def test_requests_of_too_many_new_units_are_counted_apart_and_nowhere_else(tmp_path: Path, store: str) -> None:
    """Nor do their copies, and feedback about them is about nothing that counts."""

    async def story(desk: Desk) -> None:
        shared: dict[str, Any] = {"reason": UNCOUNTED, "prediction": 7, "latency_ms": 3.0, "unit": "u", "by_unit": True}
        desk.journal.calls(call(10, **shared), call(10, "b", role="shadow", **shared), call(11, "b", **shared))
        desk.journal.calls(call(12, "a", role="draft", **shared), call(12, "b", role="draft", **shared))
        desk.journal.events(*(event(number, 7, at=20) for number in (10, 11, 12)))
        desk.journal.beat(2_000)
        ledger = await desk.record()
        seen = {place: one.n for place, one in ledger.signs.items() if place[2] == UNCOUNTED}
        primaries, drafts = (("a@1", "primary"), ("b@1", "primary")), (("a@1", "draft"), ("b@1", "draft"))
        assert seen == {(*place, UNCOUNTED): 1 for place in (*primaries, *drafts, ("b@1", "shadow"))} | {
            ("", "", UNCOUNTED): 3
        }
        assert (ledger.tallies, ledger.latency, ledger.faults, ledger.stretches) == ({}, {}, {}, ())
        assert statuses(ledger) == {"not_applicable": 3}

    at_desk(Desk(tmp_path, metric(missing=0.0), store=store), story)


def test_calls_failures_faults_and_times_are_counted_by_variant_and_role(tmp_path: Path, store: str) -> None:
    async def story(desk: Desk) -> None:
        desk.journal.calls(
            call(10, latency_ms=1.0),
            call(11, status=503, latency_ms=1.0),
            call(12, status=None, fault="timeout"),
            call(13, status=None, fault="client_gone"),
            call(10, "s", role="shadow", status=None, fault="dropped"),
            call(11, "s", role="shadow", latency_ms=100.0),
        )
        ledger = await desk.record()
        calls = ledger.pooled("a", "primary", CALLS, "live")
        assert (calls.m, calls.d) == (2, 4)
        assert ledger.pooled("s", "shadow", CALLS, "live").d == 1
        assert ledger.faults == {
            ("a@1", "primary", "timeout"): 1,
            ("a@1", "primary", "client_gone"): 1,
            ("s@1", "shadow", "dropped"): 1,
        }
        assert ledger.latency == {("a@1", "primary"): {0: 2}, ("s@1", "shadow"): {231: 1}}

    at_desk(Desk(tmp_path, store=store), story)


def test_feedback_about_a_fallbacks_answer_counts_for_nobody_and_is_accounted_for(tmp_path: Path, store: str) -> None:
    """Nor is its window an answer without feedback: it is in no denominator, and nothing waits for it."""

    async def story(desk: Desk) -> None:
        desk.journal.calls(
            call(10, "a", status=502, served="b"),
            call(11, "a"),
            call(12, "a", status=502, served="b"),
            call(13, "b"),
        )
        desk.journal.events(event(10, 1, at=20), event(11, 1, at=20), event(13, 1, at=20))
        desk.journal.beat(5_000)
        ledger = await desk.record()
        assert sums(ledger) == {"a": (1, 1), "b": (1, 1)}
        assert sums(ledger, "closed") == {"a": (0, 1), "b": (0, 1)}
        assert statuses(ledger) == {"joined": 2, "not_applicable": 1}
        assert ledger.signs["", "", "fallback_answered"].n == 1
        backends = {name: Backend(name=name, urls=("http://127.0.0.1:1",), version="1", model="m") for name in "ab"}
        [a, _] = report(replace(desk.snapshot, backends=backends), ledger)["variants"]
        assert (a["predictions"], a["failures"]) == (3, 2)
        assert {name: a["metrics"]["k"][name] for name in ("pending", "coverage")} == {"pending": 0, "coverage": 1.0}

    at_desk(Desk(tmp_path, metric("event", missing=0.0), store=store), story)


def test_a_prediction_is_shown_with_its_calls_feedback_and_outcomes(tmp_path: Path, store: str) -> None:
    async def story(desk: Desk) -> None:
        desk.journal.calls(call(10, prediction=7), call(10, "s", role="shadow", prediction=8))
        desk.journal.events(event(10, 7, at=20), event(10, 7, at=30))
        desk.journal.beat(2_000)
        await desk.record()
        found = await desk.store.prediction(uuid(10))
        assert found is not None
        assert [(c["variant"], c["role"], c["prediction"]) for c in found["calls"]] == [
            ("a", "primary", 7),
            ("s", "shadow", 8),
        ]
        assert [(e["value"], e["status"]) for e in found["feedback"]] == [(7, "joined"), (7, "repeated")]
        assert [(o["variant"], o["against"], o["live"], o["mature"]) for o in found["outcomes"]] == [
            ("a", None, 1.0, 1.0),
            ("s", None, 0.0, 0.0),
            ("s", "a", -1.0, -1.0),
        ]
        assert await desk.store.prediction(uuid(11)) is None

    at_desk(Desk(tmp_path, metric(), store=store), story)


def test_a_conversion_credits_every_earlier_impression_of_its_item(tmp_path: Path, store: str) -> None:
    """Zhang et al., KDD 2025: by key and item, with ``key_rule`` "all". The list of 13 did not have the item, 90 came
    later, and 15 was another user's; of the lists that had it, one gave it to "a" and two to "b"."""

    async def story(desk: Desk) -> None:
        lists = {10: ("x", "y"), 11: ("y", "x"), 12: ("z", "x"), 13: ("p", "q"), 90: ("x", "y"), 15: ("x", "y")}
        for number, (ours, theirs) in lists.items():
            who: dict[str, Any] = {"unit": "u", "key": "v" if number == 15 else "u", "by_unit": True}
            desk.journal.calls(
                call(number, "a", role="draft", items=(ours,), shown=(ours, theirs), **who),
                call(number, "b", role="draft", items=(theirs,), shown=(ours, theirs), **who),
            )
        desk.journal.events(keyed("u", 1, at=50, item="x", event_id="booking"))
        desk.journal.beat(5_000)
        ledger = await desk.record()
        definition = desk.snapshot.metrics["k"].definition
        votes = ledger.pooled("b", "draft", "k", "mature", against="a", definition=definition)
        assert (votes.n, votes.m, votes.d, votes.positive) == (1, 1, 3, 1)
        assert statuses(ledger) == {"joined": 1}

    at_desk(Desk(tmp_path, metric("event"), by_unit=True, key_rule="all", store=store), story)


def test_a_delay_is_reported_with_the_variant_whose_prediction_it_was(tmp_path: Path, store: str) -> None:
    async def story(desk: Desk) -> None:
        desk.journal.calls(call(10, "b"), call(10, "s", role="shadow"))
        desk.journal.calls(
            *(call(20, ranker, role="draft", items=(item,)) for ranker, item in (("a", "x"), ("b", "y")))
        )
        desk.journal.events(event(10, 1, at=510), event(20, 1, at=220, item="y"), event(20, 1, at=320, item="z"))
        await desk.record()
        assert [(t.variant, t.delay_seconds) for t in desk.status_deltas] == [("b", 0.5), ("b", 0.2), (None, None)]

    at_desk(Desk(tmp_path, metric("event"), store=store), story)


def test_orphans_are_kept_and_listed_until_their_prediction_comes(tmp_path: Path, store: str) -> None:
    async def story(desk: Desk) -> None:
        desk.journal.events(event(6_000, 1, at=20), keyed("nobody's", 0, at=30), event(7_000, 1, at=9_000))
        desk.journal.beat(6_000)
        await desk.record()
        found = await desk.store.orphans(None, 10)
        assert [(o["prediction_id"], o["key"], o["value"], o["given_up_ms"] - T0) for o in found] == [
            (None, "nobody's", 0, 5_030),
            (uuid(6_000), None, 1, 5_020),
        ]
        assert [o["key"] for o in await desk.store.orphans("r", 10)] == ["nobody's"]
        assert [o["key"] for o in await desk.store.orphans(None, 1)] == ["nobody's"]
        desk.journal.calls(call(6_000))
        await desk.record()
        assert [o["key"] for o in await desk.store.orphans(None, 10)] == ["nobody's"]

    at_desk(Desk(tmp_path, metric("event"), store=store), story)


def test_the_age_of_what_is_pending_is_that_of_the_oldest_open_window(tmp_path: Path, store: str) -> None:
    async def story(desk: Desk) -> None:
        desk.journal.calls(call(10), call(15), call(20, "b"), call(5, epoch="another"))
        desk.journal.beat(500)
        await desk.record()
        assert (await desk.store.ledgers([("r", "e")]))["r", "e"].oldest_ms == {
            ("a", "k"): T0 + 10,
            ("b", "k"): T0 + 20,
        }
        desk.journal.beat(1_012)
        await desk.record()
        assert (await desk.store.ledgers([("r", "e")]))["r", "e"].oldest_ms == {
            ("a", "k"): T0 + 15,
            ("b", "k"): T0 + 20,
        }
        desk.journal.beat(5_000)
        await desk.record()
        assert (await desk.store.ledgers([("r", "e")]))["r", "e"].oldest_ms == {}

    at_desk(Desk(tmp_path, metric("event"), store=store), story)
