"""An export holds the calls that were logged, with their outcomes, and does not delay recording."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from gateway.store.export_batches import ExportBatch, exported
from gateway.store.rows.calls import Span
from tests.gateway.control.builders import T0, Desk, at_desk, call, event, metric, sums, uuid

K = metric(window_ms=50)


async def rows_of(desk: Desk, since: int = 0, until: int = 10**6, batch: int = 2_000) -> list[dict[str, Any]]:
    span = Span("r", T0 + since, T0 + until)
    return [row async for part in exported(desk.store, span, first=batch) for row in rows_in(part)]


def rows_in(batch: ExportBatch) -> list[dict[str, Any]]:
    return [json.loads(line) for line in batch.lines.splitlines()]


def answered(desk: Desk, numbers: range) -> None:
    for number in numbers:
        variant = "ab"[number % 2]
        desk.journal.calls(
            call(number, variant, unit=f"u{number % 3}", propensity=0.25, prediction=1),
            call(number, "c", role="shadow", propensity=None, prediction=0),
        )
        if number % 4 < 2:
            desk.journal.events(event(number, 1, number + 1))


def test_every_call_comes_once_with_its_propensity_and_its_outcomes(tmp_path: Path, store: str) -> None:
    async def story(desk: Desk) -> None:
        answered(desk, range(40))
        desk.journal.beat(70)  # the windows of the first twenty have closed
        ledger = await desk.record()
        rows = await rows_of(desk, batch=7)
        assert [row["id"] for row in rows] == [uuid(number) for number in range(40) for _ in range(2)]
        assert {row["propensity"] for row in rows if row["role"] == "primary"} == {0.25}
        own = [(row["variant"], one) for row in rows for one in row["outcomes"] if one["against"] is None]
        for variant in "abc":
            live = [one["live"] for name, one in own if name == variant]
            mature = [one["mature"] for name, one in own if name == variant and one["mature"] is not None]
            assert sums(ledger, "live").get(variant) == (sum(live), len(live))
            assert sums(ledger).get(variant) == (sum(mature), len(mature))
        pairs = [one for row in rows for one in row["outcomes"] if one["against"] is not None]
        assert {(one["metric"], one["against"], one["live"]) for one in pairs} == {("k", "a", -1.0), ("k", "b", -1.0)}

    at_desk(Desk(tmp_path, K, store=store), story)


def test_a_span_begins_with_its_first_millisecond_and_ends_before_its_last(tmp_path: Path, store: str) -> None:
    async def story(desk: Desk) -> None:
        answered(desk, range(10))
        await desk.record()
        assert {row["at_ms"] - T0 for row in await rows_of(desk, 3, 6, batch=1)} == {3, 4, 5}
        assert await rows_of(desk, 6, 6) == []

    at_desk(Desk(tmp_path, K, store=store), story)


def test_a_stream_that_has_not_ended_is_left_out(tmp_path: Path) -> None:
    async def story(desk: Desk) -> None:
        desk.journal.opens(call(1, fault="incomplete"))
        desk.journal.calls(call(2))
        await desk.record()
        assert [row["id"] for row in await rows_of(desk)] == [uuid(2)]

    at_desk(Desk(tmp_path, K), story)


def test_recording_goes_on_between_two_batches(tmp_path: Path) -> None:
    """An export of months must not let the journal fill up."""

    async def story(desk: Desk) -> None:
        answered(desk, range(50))
        await desk.record()
        batches = exported(desk.store, Span("r", T0, T0 + 10**6), first=10)
        await anext(batches)
        answered(desk, range(50, 60))
        async with asyncio.timeout(10):
            await desk.record()
        rest = [row["id"] async for part in batches for row in rows_in(part)]
        assert rest[-1] == uuid(59)

    at_desk(Desk(tmp_path, K), story)
