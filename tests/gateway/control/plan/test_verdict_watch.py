"""A verdict that changes is reported once: in the list of events, and to the sinks."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import orjson
import pytest

from gateway.control.control import Control
from gateway.control.plan import verdict_watch
from gateway.control.plan.verdict_watch import EVERY_SECONDS, QUIET_MS, REST, VerdictWatch, changes
from gateway.report.account import Account
from gateway.report.comparison import Comparison
from gateway.report.verdict import Verdict
from gateway.report.verdict_status import Status
from gateway.store.counts.reported import Reported, read_reported
from gateway.store.rows import outbox
from tests.gateway.control.builders import call, event
from tests.gateway.control.plan.test_planner import CONFIG
from tests.gateway.control.test_control import House, clicked, recording, until
from tests.gateway.ledgers import route

SINK = '[sinks.lake]\nkind = "cloudevents"\nurl = "http://127.0.0.1:1"\nevents = ["verdict"]\n'


def judged(status: Status) -> Verdict:
    return Verdict(status, (Comparison("new", "correct", True, status, (900, 900)),), "new is what it is.", None)


def after(before: Status | None, status: Status, ms: int) -> list[str]:
    """What is reported of a status, so long after another was."""
    known = {} if before is None else {"new": Reported(before, 1_000)}
    return [f"{one.before} {one.after}" for one in changes(route(), judged(status), known, 1_000 + ms)]


def test_a_change_is_reported_and_what_stays_is_not() -> None:
    assert after(None, "better", 0) == ["collecting better"]
    assert after(None, "collecting", 0) == []
    assert after("better", "better", QUIET_MS) == []
    assert after("better", "worse", QUIET_MS) == ["better worse"]


def test_what_changes_back_and_forth_waits_unless_it_is_urgent() -> None:
    assert after("better", "no_difference_yet", QUIET_MS - 1) == []
    assert after("better", "failing", 1) == ["better failing"]
    assert after("failing", "better", 1) == []
    assert after("better", "worse", -1) == ["better worse"]  # the clock was set back


def told(control: Control) -> list[dict[str, Any]]:
    return [one for one in control.event_log.newest if one["kind"] == "verdict_changed"]


async def judge(control: Control) -> None:
    """Have every route judged, as a watch does that was just made."""
    assert control.opened is not None
    assert control.in_force.config is not None
    watch = VerdictWatch(control.event_log, lambda: control.in_force.snapshot)
    await watch(control.opened, control.in_force.config, set())


def test_a_verdict_is_reported_once_and_not_again_after_a_restart(tmp_path: Path) -> None:
    async def story() -> None:
        house = House(tmp_path, CONFIG + SINK)
        async with recording(house.control()) as control:
            await until(lambda: control.queries.ready)
            assert control.opened is not None
            store, recorder = control.opened.store, control.opened.recorder
            await judge(control)
            assert told(control) == []
            await control.in_force.save()  # the shares that requests are drawn with
            clicked(house, control, 400)
            assert await recorder.drain(20)
            await judge(control)
            await judge(control)
            [one] = told(control)
            assert (one["route"], one["variant"], one["from"], one["to"]) == ("r", "b", "collecting", "better")
            assert "b's click rate" in one["detail"]
            async with store.change() as connection:
                waiting = await outbox.first(connection, "lake")
            assert waiting is not None
            [event] = map(orjson.loads, waiting.lines)
            assert (event["type"], event["variant"]) == ("turnout.verdict", "b")
            assert event["data"]["status"] == {"before": "collecting", "after": "better"}
            assert event["data"]["sentence"] in one["detail"]
        async with recording(house.control()) as control:
            await until(lambda: control.queries.ready)
            assert len(told(control)) == 1  # recalled
            await judge(control)
            assert len(told(control)) == 1
            assert control.opened is not None
            place = ("r", control.in_force.snapshot.routes["r"].epoch)
            async with control.opened.store.read() as connection:
                assert (await read_reported(connection, [place]))[place]["b"].status == "better"

    asyncio.run(story())


def test_a_route_is_judged_again_when_it_moved_and_not_too_soon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story() -> None:
        house, now, lasts, seen = House(tmp_path), [100.0], [0.0], list[str]()
        more = list[float]()

        def found(account: Account) -> Verdict:
            seen.append(account.route.name)
            now[0] += lasts[0]
            return judged("worse")

        monkeypatch.setattr(verdict_watch, "_verdict", found)
        async with recording(house.control()) as control:
            await until(lambda: control.queries.ready)
            assert control.opened is not None
            assert control.in_force.config is not None
            watch = VerdictWatch(control.event_log, lambda: control.in_force.snapshot, clock=lambda: now[0])

            async def look(seconds: float) -> list[str]:
                now[0] += seconds
                seen.clear()
                assert control.opened is not None
                assert control.in_force.config is not None
                await watch(control.opened, control.in_force.config, set())
                return sorted(seen)

            assert await look(0) == ["r", "s"]
            clicked(house, control)
            assert await control.opened.recorder.drain(20)
            assert await look(EVERY_SECONDS - 1) == []
            assert await look(1) == ["r"]
            assert await look(EVERY_SECONDS) == []
            lasts[0] = 1.0  # one whose judgement takes long rests as many times as long
            for seconds, expected in ((EVERY_SECONDS, ["r"]), (EVERY_SECONDS, []), (REST, ["r"])):
                clicked(house, control, 60 + len(more))
                more.append(seconds)
                assert await control.opened.recorder.drain(20)
                assert await look(seconds) == expected

    asyncio.run(story())


PLANNED = CONFIG.replace(
    'policy = { kind = "thompson", variants = ["a", "b"], reward = "click" }',
    'policy = { kind = "ab", shares = { a = 0.5, b = 0.5 } }\nbaseline = "a"\ntest = { units = 1000 }',
)


def test_a_test_with_a_declared_maximum_is_looked_at_when_it_is_due_and_decided_by_that_look(tmp_path: Path) -> None:
    async def story() -> None:
        house = House(tmp_path, PLANNED)
        async with recording(house.control()) as control:
            await until(lambda: control.queries.ready)
            await control.in_force.save()
            assert control.opened is not None
            store, epoch = control.opened.store, control.in_force.snapshot.routes["r"].epoch
            for days, numbers, looks in ((2, range(100), []), (5, range(100, 600), [0.6])):
                for n in numbers:  # of eight requests a has four, of which one is clicked, and b four and three
                    made = call(
                        n, "ab"[n % 2], epoch=epoch, period=control.in_force.snapshot.routes["r"].period, revision=1
                    )
                    house.journal.calls(made)
                    if n % 8 in (0, 1, 3, 5):
                        house.journal.events(event(n, 1, at=n + 5, metric="click"))
                house.journal.beat(days * 24 * 3_600_000)
                assert await control.opened.recorder.drain(20)
                await judge(control)
                await judge(control)
                found = (await store.ledger("r", epoch)).looks
                assert [look.fraction for one in found.values() for look in one] == looks
            [(tested, [look])] = found.items()
            assert (tested[0], tested[2:]) == ("click", ("b", "1"))
            assert look.decided
            assert look.z > look.boundary
            assert [(one["from"], one["to"]) for one in told(control)] == [("collecting", "better")]

    asyncio.run(story())


def test_a_verdict_that_becomes_invalid_is_reported_with_the_cause(tmp_path: Path) -> None:
    """Requests of one region all reach a; those of the other are split as set."""

    async def story() -> None:
        house = House(tmp_path, PLANNED.replace("test = { units = 1000 }\n", ""))
        async with recording(house.control()) as control:
            await until(lambda: control.queries.ready)
            await control.in_force.save()
            assert control.opened is not None
            placed = control.in_force.snapshot.routes["r"]
            where: dict[str, Any] = {"epoch": placed.epoch, "period": placed.period, "revision": placed.revision}
            for n in range(400):
                eu = n % 2 == 0
                variant = "a" if eu else "ab"[n // 2 % 2]
                house.journal.calls(call(n, variant, features={"region": "eu" if eu else "us"}, **where))
                house.journal.events(event(n, 1, at=n + 5, metric="click"))
            house.journal.beat(2 * 24 * 3_600_000)
            assert await control.opened.recorder.drain(20)
            await judge(control)
            [one] = told(control)
            assert (one["from"], one["to"]) == ("collecting", "invalid")
            assert "most of it where region = eu: 200 to 0 (a to b)" in one["detail"]

    asyncio.run(story())
