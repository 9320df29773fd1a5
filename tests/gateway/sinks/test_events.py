"""Everything that is recorded is sent to the sinks once, with the field names of the log."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import orjson
from sqlalchemy import delete

from gateway.sinks.cloudevents import events
from gateway.store import unit_data
from gateway.store.rows import outbox
from gateway.store.rows.recorded import Recorded, RecordedCall
from gateway.store.schema import row_tables
from router.records import body_line
from router.snapshot import Sink
from tests.gateway.control.builders import (
    T0,
    Desk,
    at_desk,
    call,
    event,
    keyed,
    metric,
    row,
    snapshot,
    statuses,
    sums,
    uuid,
)
from tests.gateway.sinks.builders import sink


def sent(news: Recorded, **settings: Any) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in events(sink(**settings), news, T0)]


def by_type(found: list[dict[str, Any]]) -> Counter[str]:
    return Counter(one["type"] for one in found)


async def waiting(desk: Desk, name: str = "lake") -> list[dict[str, Any]]:
    """Take everything out of the outbox, in order."""
    found: list[dict[str, Any]] = []
    while True:
        async with desk.store.change() as connection:
            batch = await outbox.first(connection, name)
            if batch is None:
                return found
            found += map(orjson.loads, batch.lines)
            await outbox.finish(connection, batch, 0)


def at(desk: Desk, *sinks: Sink) -> Desk:
    """Return the desk with these sinks."""
    desk.snapshot = replace(desk.snapshot, sinks={one.name: one for one in sinks})
    return desk


def test_a_call_makes_a_request_a_decision_and_a_response() -> None:
    made = call(
        3,
        prediction={"label": "é"},
        unit="u1",
        key="loan-7",
        features={"country": "de"},
        latency_ms=12.5,
        traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    )
    request, decision, response = sent(Recorded(calls=[RecordedCall(row(made), True)]))
    assert request == {
        "specversion": "1.0",
        "id": f"{uuid(3)}.request",
        "source": "/turnout/routes/r",
        "type": "turnout.request",
        "subject": uuid(3),
        "time": "2023-11-14T22:13:20.003Z",
        "datacontenttype": "application/json",
        "route": "r",
        "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "data": {
            "prediction_id": uuid(3),
            "route": "r",
            "method": "POST",
            "unit": "u1",
            "key": "loan-7",
            "features": {"country": "de"},
            "request_id": None,
        },
    }
    assert decision["type"] == "turnout.decision"
    assert decision["variant"] == "a"
    assert (decision["data"]["propensity"], decision["data"]["reason"]) == (0.5, "unit")
    assert response["data"]["prediction"] == {"label": "é"}
    assert response["time"] == "2023-11-14T22:13:20.015Z"
    assert (response["data"]["status"], response["data"]["failed"]) == (200, False)


def test_every_event_has_what_cloudevents_requires_and_names_that_it_allows() -> None:
    calls = [
        RecordedCall(row(call(1, prediction=1)), True),
        RecordedCall(row(call(1, "b", role="shadow", prediction=1)), True),
        RecordedCall(row(call(2, "a", role="draft", items=("x", "y"))), True),
        RecordedCall(row(call(2, "b", role="draft", items=("z",))), True),
    ]
    found = sent(Recorded(calls=calls))
    assert by_type(found) == {"turnout.request": 2, "turnout.decision": 3, "turnout.response": 4}
    assert len({(one["source"], one["id"]) for one in found}) == len(found)
    for one in found:
        assert one["specversion"] == "1.0"
        assert all(one[name] for name in ("id", "source", "type"))
        assert all(name.isascii() and name.isalnum() and name == name.lower() for name in one)
        assert datetime.fromisoformat(one["time"]).tzinfo is not None


def test_the_end_of_a_stream_makes_only_a_response() -> None:
    begun, ended = row(call(1, fault="incomplete"), "open"), row(call(1), "close")
    assert by_type(sent(Recorded(calls=[RecordedCall(begun, True)]))) == {"turnout.request": 1, "turnout.decision": 1}
    (response,) = sent(Recorded(calls=[RecordedCall(ended, False)]))
    assert (response["type"], response["data"]["fault"]) == ("turnout.response", None)


def test_a_sink_gets_the_kinds_and_routes_it_asks_for_with_its_own_prefix() -> None:
    news = Recorded(calls=[RecordedCall(row(call(1)), True), RecordedCall(row(call(2, route="other")), True)])
    prefix = "org.kubeflow.serving.inference."
    found = sent(news, events=("request",), routes=("other",), type_prefix=prefix)
    assert [(one["type"], one["subject"]) for one in found] == [(f"{prefix}request", uuid(2))]


def test_a_time_that_no_calendar_has_is_sent_as_the_nearest_one(tmp_path: Path) -> None:
    """A time that a caller made up must not stop recording."""

    async def story(desk: Desk) -> None:
        desk.journal.events(event(1, 1, 5, occurred_ms=2**62), event(2, 1, 5, occurred_ms=-(2**62)))
        await desk.record()
        times = {one["time"] for one in await waiting(desk)}
        assert times == {"9999-12-31T23:59:59.999Z", "0001-01-01T00:00:00.000Z"}

    at_desk(at(Desk(tmp_path, metric()), sink()), story)


def test_what_is_recorded_is_sent_once_whatever_comes_twice(tmp_path: Path, store: str) -> None:
    """Calls, labels before and after them, repeats, corrections; in small batches, with restarts in between."""

    async def story(desk: Desk) -> None:
        desk.journal.calls(*(call(n, prediction=1, key=f"loan-{n}") for n in range(20)), call(3, prediction=1))
        desk.journal.events(
            *(event(n, n % 2, 40 + n) for n in range(0, 20, 2)),
            event(4, 0, 90),  # again: a repeat
            event(6, 1, 91, revision=1),  # a correction
            event(8, None, 92, revision=1),  # a retraction
            keyed("loan-5", 1, 30),
            event(77, 1, 30),  # of nothing
        )
        desk.journal.beat(9_000)
        for _ in range(12):
            desk.restart()
            await desk.recorder.step()
        ledger = await desk.record()
        found = await waiting(desk)
        assert by_type(found)["turnout.request"] == 20
        assert by_type(found)["turnout.decision"] == 20
        assert by_type(found)["turnout.response"] == 20
        assert len({one["id"] for one in found}) == len(found)
        newest: dict[tuple[Any, ...], str] = {}
        for one in found:
            if one["type"] == "turnout.feedback":
                data = one["data"]
                newest[data["prediction_id"] or data["key"], data["revision"], data["received_at"]] = data["status"]
        assert Counter(newest.values())["joined"] == statuses(ledger)["joined"]
        assert Counter(newest.values())["orphaned"] == 1
        outcomes = [one["data"] for one in found if one["type"] == "turnout.outcome"]
        for phase in ("live", "mature"):
            moved = [one[phase] for one in outcomes]
            m = sum((one["after"] or 0) - (one["before"] or 0) for one in moved)
            d = sum((one["after"] is not None) - (one["before"] is not None) for one in moved)
            assert (m, d) == sums(ledger, phase)["a"]

    at_desk(at(Desk(tmp_path, metric(), lines=5, store=store), sink()), story)


def test_what_is_captured_is_sent_to_sinks_that_ask_for_it(tmp_path: Path) -> None:
    async def story(desk: Desk) -> None:
        desk.journal.calls(call(1))
        desk.journal.write("predictions", [body_line(uuid(1), T0 + 1, "r", {"/who": "me"}, None)])
        await desk.record()
        (body,) = [one for one in await waiting(desk) if one["type"] == "turnout.body"]
        assert body["data"] == {"prediction_id": uuid(1), "route": "r", "request": {"/who": "me"}, "answer": None}
        assert not [one for one in await waiting(desk, "plain") if one["type"] == "turnout.body"]

    plain = Sink(name="plain", kind="stdout")
    at_desk(at(Desk(tmp_path), sink(), plain), story)


def test_events_beyond_the_bound_are_dropped_and_counted(tmp_path: Path, store: str) -> None:
    small, large = sink("small", max_pending_bytes=2**20), sink("large")

    async def story(desk: Desk) -> None:
        for at_ in range(0, 6_000, 1_000):
            desk.journal.calls(*(call(at_ + n, prediction="x" * 300) for n in range(1_000)))
            await desk.record()
        async with desk.store.begin() as connection:
            counts = await outbox.counted(connection)
        assert len(await waiting(desk, "large")) == counts["large"]["made"] == counts["large"]["pending"] == 18_000
        assert counts["small"]["made"] == 18_000
        left = len(await waiting(desk, "small"))
        assert left == counts["small"]["pending"] == 18_000 - counts["small"]["dropped"]
        assert 0 < counts["small"]["pending_bytes"] <= 2**20
        assert counts["small"]["dropped"] > 0
        async with desk.store.begin() as connection:
            after = await outbox.counted(connection)
        assert [after[name][what] for name in after for what in ("pending", "pending_bytes")] == [0, 0, 0, 0]

    at_desk(at(Desk(tmp_path, store=store), small, large), story)


def test_after_a_reload_events_go_to_the_sinks_of_the_new_file(tmp_path: Path) -> None:
    async def story(desk: Desk) -> None:
        desk.journal.calls(call(1))
        await desk.record()
        desk.adopt(replace(snapshot(revision=2), sinks={"lake": sink()}))
        desk.journal.calls(call(2))
        await desk.record()
        assert {one["subject"] for one in await waiting(desk)} == {uuid(2)}

    at_desk(Desk(tmp_path), story)


def test_nothing_is_sent_of_what_is_not_recorded(tmp_path: Path, store: str) -> None:
    """The events are in the transaction of the rows: a store that cannot be written has neither."""

    async def story(desk: Desk) -> None:
        desk.journal.calls(call(1))
        await desk.recorder.step()
        await waiting(desk)
        desk.journal.calls(call(2))
        await desk.read_only(True)
        assert not await desk.recorder.drain(1)
        await desk.read_only(False)
        assert await waiting(desk) == []
        await desk.record()
        assert {one["subject"] for one in await waiting(desk)} == {uuid(2)}

    at_desk(at(Desk(tmp_path, store=store), sink()), story)


def test_waiting_events_of_an_erased_unit_are_erased(tmp_path: Path, store: str) -> None:
    async def story(desk: Desk) -> None:
        desk.journal.calls(
            *(call(n, unit="zeus", by_unit=True, key=f"loan-{n}", prediction=1) for n in range(3)),
            *(call(n, unit="hera", by_unit=True, prediction=1) for n in range(3, 6)),
        )
        desk.journal.events(event(1, 1, 20), event(4, 1, 20), keyed("loan-2", 1, 25))
        await desk.record()
        erased = await unit_data.erase(desk.store, ["zeus"])
        async with desk.store.begin() as connection:
            counts = (await outbox.counted(connection))["lake"]
        assert counts["pending"] == counts["made"] - counts["erased"]
        left = await waiting(desk)
        assert {one["subject"] for one in left} == {uuid(3), uuid(4), uuid(5)}
        assert counts["erased"] == erased.events == counts["made"] - len(left)
        assert b"zeus" not in orjson.dumps(left)

    at_desk(at(Desk(tmp_path, metric(), store=store), sink()), story)


def test_events_that_wait_for_a_removed_sink_are_dropped(tmp_path: Path, store: str) -> None:
    async def story(desk: Desk) -> None:
        desk.journal.calls(call(1))
        await desk.record()
        async with desk.store.change() as connection:
            assert await outbox.drop(connection, ["lake"]) == {"old"}
            counts = await outbox.counted(connection)
        assert (counts["old"]["made"], counts["old"]["dropped"], counts["old"]["pending"]) == (3, 3, 0)
        assert await waiting(desk, "old") == []
        assert len(await waiting(desk)) == counts["lake"]["pending"] == 3

    at_desk(at(Desk(tmp_path, store=store), sink(), sink("old")), story)


def test_batches_keep_their_order_and_bounds(tmp_path: Path) -> None:
    """Many events are sent in batches of bounded size, and none of them twice."""

    async def story(desk: Desk) -> None:
        desk.journal.calls(*(call(n, prediction="y" * (n % 700)) for n in range(1_500)))
        await desk.record()
        seen: list[str] = []
        while True:
            async with desk.store.change() as connection:
                batch = await outbox.first(connection, "lake")
                if batch is None:
                    break
                assert len(batch.lines) <= outbox.MOST_EVENTS
                assert sum(map(len, batch.lines)) <= outbox.MOST_BYTES
                seen += [orjson.loads(line)["id"] for line in batch.lines]
                await outbox.finish(connection, batch, 0)
                await asyncio.sleep(0)
        kinds = ("request", "decision", "response.primary.a")
        assert seen == [f"{uuid(n)}.{kind}" for n in range(1_500) for kind in kinds]

    at_desk(at(Desk(tmp_path), sink()), story)


def test_events_of_others_with_the_same_key_are_not_erased(tmp_path: Path, store: str) -> None:
    """Many units may use one key."""

    async def story(desk: Desk) -> None:
        for n, unit in enumerate(("zeus", "hera")):
            desk.journal.calls(call(n, unit=unit, by_unit=True, key="article-7", prediction=1))
        desk.journal.events(event(1, 1, 20))
        await desk.record()
        await unit_data.erase(desk.store, ["zeus"])
        left = await waiting(desk)
        assert {one["subject"] for one in left} == {uuid(1)}
        assert len(left) == 5  # request, decision, response, feedback, outcome

    at_desk(at(Desk(tmp_path, metric(), store=store), sink()), story)


def test_waiting_events_are_erased_though_their_prediction_is_gone(tmp_path: Path, store: str) -> None:
    """A sink may be down for longer than predictions are kept."""

    async def story(desk: Desk) -> None:
        desk.journal.calls(call(1, unit="zeus", by_unit=True), call(2, unit="hera", by_unit=True))
        await desk.record()
        async with desk.store.change() as connection:
            await connection.execute(delete(row_tables.calls))
        assert (await unit_data.erase(desk.store, ["zeus"])).events == 3
        assert {one["subject"] for one in await waiting(desk)} == {uuid(2)}

    at_desk(at(Desk(tmp_path, store=store), sink()), story)


def test_what_comes_after_an_erased_batch_is_not_taken_for_it(tmp_path: Path, store: str) -> None:
    """A batch is being sent while all of it is erased and the next one is made: the next one is sent later."""

    async def story(desk: Desk) -> None:
        desk.journal.calls(call(1, unit="zeus", by_unit=True))
        await desk.record()
        async with desk.store.begin() as connection:
            on_its_way = await outbox.first(connection, "lake")
        assert on_its_way is not None
        await unit_data.erase(desk.store, ["zeus"])
        desk.journal.calls(call(2, unit="hera", by_unit=True))
        await desk.record()
        async with desk.store.change() as connection:
            await outbox.finish(connection, on_its_way, 0)
            assert (await outbox.counted(connection))["lake"]["delivered"] == 0
        assert {one["subject"] for one in await waiting(desk)} == {uuid(2)}

    at_desk(at(Desk(tmp_path, store=store), sink()), story)
