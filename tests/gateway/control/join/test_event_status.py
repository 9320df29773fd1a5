"""What events end as, without a store."""

from __future__ import annotations

from itertools import permutations

import pytest

from gateway.control.join.event_status import PredictionFacts, arrived, group_statuses, patience_ends_ms, restate
from gateway.store.rows.feedback_events import Event
from router.records import Feedback
from tests.gateway.control.builders import T0, event, keyed, metric

KNOWN = [PredictionFacts("r", T0 + 10, metric())]


def stored(feedback: Feedback, seq: int | None = None) -> Event:
    return arrived(feedback)._replace(seq=seq)


@pytest.mark.parametrize("order", list(permutations(range(5))))
def test_statuses_do_not_depend_on_the_order(order: tuple[int, ...]) -> None:
    events = [
        event(10, 1, at=20),
        event(10, 2, at=30),
        event(10, 3, at=40, revision=1),
        event(10, 4, at=50, revision=2),
        event(10, 5, at=5_000, revision=3),
    ]
    found = group_statuses([stored(events[i]) for i in order], [KNOWN] * 5, T0)
    assert [found[order.index(i)] for i in range(5)] == ["corrected", "repeated", "corrected", "joined", "late"]


def test_what_is_not_known_waits_and_is_then_given_up() -> None:
    one = [stored(event(10, 1, at=20))]
    assert group_statuses(one, [[]], None) == ["waiting"]
    assert group_statuses(one, [[]], T0 + 5_020) == ["waiting"]
    assert group_statuses(one, [[]], T0 + 5_021) == ["orphaned"]
    assert group_statuses(one, [[PredictionFacts("r", T0, None)]], T0) == ["not_applicable"]


def test_what_was_not_looked_up_yet_is_no_orphan_and_a_prediction_may_come_as_long_as_the_window_reaches_back() -> None:
    early = keyed("k", 1, at=20)
    waits = stored(early)
    assert group_statuses([waits], [[]], T0 + 90_000) == ["waiting"]
    looked_up = waits._replace(due_ms=patience_ends_ms(early, before_ms=60_000))
    assert group_statuses([looked_up], [[]], T0 + 60_020) == ["waiting"]
    assert group_statuses([looked_up], [[]], T0 + 60_021) == ["orphaned"]


def test_an_event_about_several_predictions_ends_as_the_best_of_what_it_is_to_each() -> None:
    one = [stored(event(10, 1, at=1_500))]
    long_ago, lately, elsewhere = (
        PredictionFacts("r", T0, metric()),
        PredictionFacts("r", T0 + 900, metric()),
        PredictionFacts("r", T0, None),
    )
    assert group_statuses(one, [[long_ago, lately]], T0) == ["joined"]
    assert group_statuses(one, [[elsewhere, long_ago]], T0) == ["late"]


def test_a_key_is_looked_up_when_everything_before_the_event_is_known() -> None:
    by_key, by_id = keyed("k", 1, at=900, occurred_ms=T0 + 700), event(10, 1, at=900)
    assert (arrived(by_key).due_ms, patience_ends_ms(by_key)) == (T0 + 700, T0 + 5_900)
    assert arrived(by_id).due_ms == patience_ends_ms(by_id) == T0 + 5_900
    ahead = keyed("k", 1, at=900, occurred_ms=T0 + 9_000)
    assert patience_ends_ms(ahead) == T0 + 9_001


def test_a_change_of_status_moves_both_counters_and_tells_the_delay() -> None:
    waiting = stored(event(10, 1, at=20), seq=1)
    found = restate([waiting], [waiting], lambda _: KNOWN, T0)
    assert [(t.route, t.status, t.n, t.delay_seconds) for t in found.status_deltas] == [
        ("unknown", "waiting", -1, None),
        ("r", "joined", 1, 0.01),
    ]
    [coming] = found.coming.values()
    assert ([e.feedback for e in coming], found.leaving) == ([waiting.feedback], {})
    again = restate(found.changed, found.changed, lambda _: KNOWN, T0)
    assert (again.status_deltas, again.changed, again.coming, again.leaving) == ([], [], {}, {})
