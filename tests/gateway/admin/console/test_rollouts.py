"""What the console shows of routes that move: what is frozen, who did what, and where guardrails lie."""

from __future__ import annotations

import asyncio
import re
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from gateway.admin import app
from gateway.admin.console.bands import band
from gateway.files.overrides import act
from gateway.store.audit import Entry, append
from router.snapshot import Guardrail
from tests.gateway.admin.console.test_console import outline
from tests.gateway.admin.fake import Control, ask, control
from tests.gateway.control.test_control import House, recording, shown, until
from tests.gateway.ledgers import Book, route, snapshot


@pytest.mark.parametrize("path", ["/", "/routes/digits", "/routes/search", "/events", "/predictions/none"])
def test_a_frozen_route_is_said_on_every_page_also_with_the_store_down(tmp_path: Path, path: str) -> None:
    fake = control(data_dir=str(tmp_path))
    assert 'role="alert"' not in ask(fake, path).text
    act(tmp_path, {"digits": "old"}, who="ann by the command line", why="<incident 7>", via="file")
    for ready in (True, False):
        fake.store_ready = ready
        text = ask(fake, path).text
        outline(text)
        said = re.search(r'<div class="freeze".*?</div>', text, re.DOTALL)
        assert said is not None
        for words in ("digits</a> goes to <b>old</b>", "ann by the command line", "&lt;incident 7&gt;"):
            assert words in said[0]


def test_an_overrides_file_that_cannot_be_read_keeps_what_was_shown(tmp_path: Path) -> None:
    fake = control(data_dir=str(tmp_path))
    app_ = app.create(fake.parts)

    async def get() -> str:
        transport = httpx.ASGITransport(app_)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:9090") as client:
            return (await client.get("/events")).text

    act(tmp_path, {"digits": "new"})
    assert "goes to <b>new</b>" in asyncio.run(get())
    (tmp_path / "overrides.json").write_text("{")
    assert "goes to <b>new</b>" in asyncio.run(get())
    act(tmp_path, {"digits": None})
    assert "goes to" not in asyncio.run(get())


def test_the_overview_says_what_needs_a_hand_first(tmp_path: Path) -> None:
    fake = control(data_dir=str(tmp_path))
    assert "What needs a hand" not in ask(fake, "/").text
    act(tmp_path, {"search": "old"})
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
