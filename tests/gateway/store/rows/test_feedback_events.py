"""Feedback events go to and from the table by position."""

from __future__ import annotations

from gateway.store.rows.feedback_events import Event, _event, _row, new_event
from gateway.store.schema.row_tables import feedback
from router.records import Feedback, new_feedback

GIVEN = Feedback("m", {"v": 1}, 2, "p", "r", "k", "i", "e", 3, 4)
EVENT = Event(GIVEN, "id", "t", "joined", "c", 5, 6)
COLUMNS = {
    "seq": 6,
    "identity": "id",
    "revision": 3,
    "received_ms": 2,
    "occurred_ms": 4,
    "event_ms": 4,
    "metric": "m",
    "value": '{"v":1}',
    "prediction_id": "p",
    "route": "r",
    "key": "k",
    "item": "i",
    "event_id": "e",
    "target": "t",
    "status": "joined",
    "counted": "c",
    "due_ms": 5,
}


def test_an_event_is_written_and_read_in_the_order_of_the_columns() -> None:
    assert [column.name for column in feedback.columns] == list(COLUMNS)
    row = tuple(COLUMNS.values())
    assert _row(EVENT) == row[1:]
    assert _event(row) == EVENT


def test_makers_take_every_field() -> None:
    assert new_feedback(("m", {"v": 1}, 2, "p", "r", "k", "i", "e", 3, 4)) == GIVEN
    assert new_event((GIVEN, "id", "t", "joined", "c", 5, 6, ())) == EVENT
    assert (len(GIVEN), len(EVENT)) == (10, 8)
