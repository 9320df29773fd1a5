"""A captured body is stored once, and shown with its prediction."""

from __future__ import annotations

from pathlib import Path

from gateway.control.record.lines import Batch
from gateway.journal.seal import sealed
from gateway.journal.segments import PREDICTIONS
from router.records import body_line
from tests.gateway.control.builders import T0, WRITER, Desk, at_desk, call, metric, uuid

K = metric()


def test_what_was_captured_is_shown_with_its_prediction(tmp_path: Path, store: str) -> None:
    line = body_line(uuid(1), T0 + 1, "r", {"/text": "a\0b"}, None)

    async def story(desk: Desk) -> None:
        desk.journal.calls(call(1), call(2))
        desk.journal.write(PREDICTIONS, [line, line])
        await desk.record()
        desk.restart()
        desk.journal.write(PREDICTIONS, [line])
        await desk.record()
        found, other = await desk.store.prediction(uuid(1)), await desk.store.prediction(uuid(2))
        assert found is not None
        assert found["captured"] == {"request": {"/text": "a\0b"}, "answer": None}
        assert other is not None
        assert other["captured"] is None

    at_desk(Desk(tmp_path, K, store=store), story)


def test_a_line_that_is_no_body_is_corrupt_and_stops_nothing() -> None:
    batch = Batch()
    lines = [
        b'{"line":"body"}\n',
        b'{"line":"body","id":"i","at_ms":1,"route":"r","request":[],"answer":null}\n',
        b'{"line":"body","id":"i","at_ms":1.5,"route":"r","request":{},"answer":null}\n',
        b'{"line":"body","id":"i","at_ms":1,"route":"r","request":{},"answer":{"/a":1}}\n',
    ]
    batch.read([sealed(line, number)[:-1] for number, line in enumerate(lines)], WRITER)
    assert (batch.corrupt, len(batch.bodies)) == (3, 1)
