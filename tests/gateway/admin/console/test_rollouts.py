"""What the console shows of routes that move: what is frozen, who did what, and where guardrails lie."""

from __future__ import annotations

import asyncio
import re
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from gateway.admin import app
from gateway.admin.api.triggers_api import TriggersAPI
from gateway.admin.console.bands import band
from gateway.amounts import stands
from gateway.control.event_log import now_ms
from gateway.files.overrides import Override
from gateway.store.audit import Entry, append
from gateway.store.rows import deliveries
from policies.rollouts.standing import Standing
from policies.types import Evidence
from router.compile import compile_snapshot
from router.config.config import parse
from router.snapshot import Guardrail, Sink
from tests.gateway.admin.console.test_console import outline
from tests.gateway.admin.fake import Control, ask, control
from tests.gateway.admin.samples import SINK
from tests.gateway.control.test_control import House, recording, shown, until
from tests.gateway.ledgers import Book, route, snapshot


@pytest.mark.parametrize("path", ["/", "/routes/digits", "/routes/search", "/events", "/predictions/none"])
def test_a_frozen_route_is_said_on_every_page_also_with_the_store_down(path: str) -> None:
    fake = control()
    assert 'role="alert"' not in ask(fake, path).text
    fake.frozen["digits"] = Override(to="old", at_ms=5, who="ann by the command line", why="<incident 7>")
    fake.frozen["search"] = Override(to=None, at_ms=6)
    for ready in (True, False):
        fake.store_ready = ready
        text = ask(fake, path).text
        outline(text)
        said = re.search(r'<div class="freeze".*?</div>', text, re.DOTALL)
        assert said is not None
        for words in ("digits</a> goes to <b>old</b>", "ann by the command line", "&lt;incident 7&gt;"):
            assert words in said[0]
        assert "search" not in said[0]


def test_the_overview_says_what_needs_a_hand_first() -> None:
    fake = control()
    assert "What needs a hand" not in ask(fake, "/").text
    fake.frozen["search"] = Override(to="old", at_ms=5)
    fake.books["digits"] = Book().rate("old", "correct", 70, 100).calls("new", 100, failed=60).ledger()
    text = ask(fake, "/").text
    needs = text[text.index("What needs a hand") : text.index("<article")]
    assert needs.index('href="/routes/digits"') < needs.index('href="/routes/search"')
    assert "failing" in needs
    assert "a person sends everything to old" in needs


@pytest.mark.parametrize(
    ("low", "high", "bound", "higher_is_worse", "inside"),
    [(0.0, 1.0, 2.0, True, True), (3.0, 4.0, 2.0, True, False), (-1.0, 0.0, -2.0, False, True)],
)
def test_the_side_of_the_bound_that_is_harm_is_drawn(
    low: float, high: float, bound: float, higher_is_worse: bool, inside: bool
) -> None:
    found = band(low, (low + high) / 2, high, bound, higher_is_worse=higher_is_worse, zero=True)
    assert found is not None
    assert found.middle is not None
    assert 0 <= found.low <= found.middle <= found.low + found.width <= 100
    harm = found.worse_from <= found.middle <= found.worse_from + found.worse_width
    assert harm is not inside


def test_a_guardrail_is_drawn_beside_its_bound_and_one_without_an_interval_is_not() -> None:
    bounds = (Guardrail(metric="correct", worse_by=0.05), Guardrail(metric="latency_ms.p95", limit=30.0))
    book = Book().rate("old", "correct", 700, 1000).rate("new", "correct", 710, 1000)
    given = snapshot(route(guardrails=bounds))
    text = ask(Control(given, {"digits": book.ledger()}), "/routes/digits").text
    outline(text)
    assert text.count('<svg class="band"') == 2  # failures, which every route has, and correct; no latency is known
    assert 'aria-label="correct of new: ' in text


def test_the_audit_log_is_a_page_of_its_entries_the_newest_first(tmp_path: Path) -> None:
    async def story() -> None:
        async with recording(House(tmp_path).control()) as real:
            await until(lambda: real.queries.ready)
            assert real.opened is not None
            async with real.opened.store.change() as connection:
                for n in range(3):
                    entry = Entry(who=f"p{n}", via="api", act="rollback", route="r", changed="b <out>", why="it burns")
                    await append(connection, entry, n)
            transport = httpx.ASGITransport(app.create(shown(real)))
            async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:9090") as client:
                text = (await client.get("/audit")).text
                outline(text)
                assert text.index(">p2<") < text.index(">p1<") < text.index(">p0<")
                assert "b &lt;out&gt;" in text
                older = (await client.get("/audit?before=2")).text
                assert ">p2<" not in older

    asyncio.run(story())
    fake = replace(control(), store_ready=False)
    assert ask(fake, "/audit").status_code == 503


LADDER = """
schema_version = 1
[backends.old]
url = "http://127.0.0.1:1"
version = "1.3.0"
[backends.new]
url = "http://127.0.0.1:1"
version = "2.0.0"
[metrics.click]
kind = "event"
missing = 0
[routes.r]
path = "/r"
unit = "header:x-user-id"
metrics = ["click"]
prediction = "/p"
[routes.r.policy]
kind = "rollout"
stable = "old"
candidate = "new"
steps = [{ shadow = 1.0, pairs = 500 }, { share = 0.1, units = 200, approve = true }, { share = 1.0 }]
"""


def moving(standing: Standing, book: Book | None = None) -> Control:
    """A route with three steps that stands so, and what was counted since."""
    config = parse(LADDER, "turnout.toml")
    made = compile_snapshot(
        config, evidence=lambda *_: Evidence(), previous=None, now_ms=1_000, revision=1, standings={"r": standing}
    )
    return Control(made, {} if book is None else {"r": book.ledger()}, config=config)


def main_of(fake: Control, path: str = "/routes/r") -> str:
    text = ask(fake, path).text
    outline(text)
    return " ".join(text.partition("<main>")[2].split())


def test_a_rollouts_page_shows_its_steps_its_shares_and_what_it_waits_for() -> None:
    began = now_ms() - 3_600_000
    at = Standing(number=4, policy="rollout", step=1, since_ms=began, of={"new": "2.0.0"})
    fake = moving(at, Book("r").calls("old", 950, period=began).calls("new", 50, period=began))
    text = main_of(fake)
    assert "Rollout: step 2 of 3" in text
    places = re.findall(r'<li class="(done|now|next)"', text)
    assert places == ["done", "now", "next"]
    assert 'aria-current="step"' in text
    assert "200 units, approval" in text
    assert "50 of 200 units of new" in text
    assert "at today" in text
    assert "step 2 needs a person" in text
    for number in ("10.0 %", "5.0 %", "95.0 %"):
        assert number in text
    assert '<span class="status waiting">running</span>' in text
    overview = main_of(fake, "/")
    assert "waits for approval" in overview


def test_what_was_done_by_hand_and_why_is_said_beside_what_the_file_says() -> None:
    hand = {"verb": "pause", "who": "ann", "at_ms": 5_000}
    detail = {"because": "ann paused step 2 of 3", "by_hand": hand}
    paused = Standing(
        number=5, policy="rollout", step=1, state="paused", since_ms=1_000, of={"new": "2.0.0"}, detail=detail
    )
    fake = moving(paused)
    move = {"reason": "it <looks> odd", "evidence": {"units": {"new": 1_200}, "errors": ["recording is behind"]}}
    event = {"at_ms": 5_000, "kind": "act", "route": "r", "detail": "ann paused step 2 of 3", "author": "ann"}
    other = {"at_ms": 5_000, "kind": "act", "route": "s", "detail": "elsewhere"}
    fake.events = [{**event, "change": "paused", "number": 5, "move": move}, other]
    text = main_of(fake)
    for words in ("ann paused step 2 of 3", "By hand: pause by ann", "reason given: it &lt;looks&gt; odd"):
        assert words in text
    assert "units new 1,200" in text
    assert "recording is behind" in text
    assert "elsewhere" not in text
    assert 'value="resume"' in text
    assert 'value="pause"' not in text
    assert '<input type="hidden" name="saw" value="5">' in text
    assert "paused" in main_of(fake, "/")


def test_the_terminal_has_a_line_of_where_a_route_stands() -> None:
    at = Standing(number=4, policy="rollout", step=1, since_ms=1_000, of={"new": "2.0.0"})
    fake = moving(at, Book("r").calls("new", 50))
    report = ask(fake, "/api/v1/routes/r").json()
    rolled = replace(at, state="rolled_back", detail={"because": "new fails"})
    back = ask(moving(rolled), "/api/v1/routes/r").json()
    first, waits = stands(report)
    assert first == "rollout: running, step 2 of 3 (10.0%)"
    assert waits.startswith("waits for: ")
    assert "50 of 200 units of new" in waits
    assert stands(back) == ["rollout: rolled back, step 2 of 3 (10.0%): new fails"]
    assert ask(control(), "/api/v1/routes/digits").json()["rollout"] is None


def test_triggers_and_deliveries_are_tables_with_what_was_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    condition = {"kind": "metric_below", "state": "met", "said": "correct is <b>"}
    trigger: dict[str, object] = {
        "name": "retrain",
        "route": "digits",
        "variant": None,
        "needs": "all",
        "conditions": [condition],
    }
    trigger |= {"webhook": "hook", "freeze": None, "pause": True, "fired": 2, "fired_ms": 5, "asked": True}

    async def tried(*_: object) -> list[deliveries.Try]:
        return [deliveries.Try(7_000, "e1", 503, 12, "it answers 503"), deliveries.Try(6_000, "e2", None, 10_000, None)]

    async def dead(*_: object) -> list[dict[str, object]]:
        return [{"event": "e0", "made_ms": 1, "died_ms": 2, "tries": 40, "why": "no answer for a day", "content": {}}]

    monkeypatch.setattr(TriggersAPI, "shown", lambda *_: [trigger])
    monkeypatch.setattr(deliveries, "tries", tried)
    monkeypatch.setattr(deliveries, "dead", dead)
    fake = control()
    assert "Nothing was sent by webhook yet" in ask(fake, "/triggers").text
    hook = Sink(name="hook", kind="webhook", url="http://127.0.0.1:1", events=("rollout",))
    fake.snapshot = replace(fake.snapshot, sinks={"hook": hook})
    fake.sinks = [{**SINK, "name": "hook", "kind": "webhook"}]
    text = main_of(fake, "/triggers")
    for words in ("retrain", "asked to fire", "metric below: met, correct is &lt;b&gt;", "it answers 503", "Given up"):
        assert words in text
    assert text.index("<code>e1</code>") < text.index("<code>e2</code>")
    assert ask(replace(fake, store_ready=False), "/triggers").status_code == 503
