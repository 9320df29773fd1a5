"""Whatever bytes an identifier has, it is recorded, joined by what names it, and found when it is erased."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sqlalchemy import func, select

from gateway.cli.local.explain import explained
from gateway.files.pseudonym import names_of
from gateway.proxy.feedback.validate import read_events
from gateway.store import unit_data
from gateway.store.schema import row_tables
from router.extract import identifier
from router.router import Router
from router.unit import reference
from tests.gateway.control.builders import T0, Desk, at_desk, call, keyed, metric, snapshot, statuses, sums
from tests.router.builders import RequestFacts

FACTS = RequestFacts("POST", "/r", "", ())
LONG = "u" * 8_192

#: Any text: of any length up to some kilobytes, with NUL, half characters and whatever else Unicode has.
characters = st.one_of(st.characters(), st.sampled_from("\0\ud800\udfff\u0001\U0001f600é\\\"'%"))
texts = st.one_of(
    st.text(characters, min_size=1, max_size=40),
    st.tuples(st.text(characters, min_size=1, max_size=4), st.integers(1, 4_000)).map(lambda pair: pair[0] * pair[1]),
)


def asked(text: str) -> str:
    """The identifier of a request that carries this text."""
    found = reference("body:/u").identity(FACTS, {"u": text})
    assert found is not None
    return found


@given(text=texts)
def test_an_identifier_is_short_text_that_every_store_keeps_and_its_own(text: str) -> None:
    name = identifier(text)
    assert len(name.encode()) <= 256
    assert "\0" not in name
    assert identifier(name) == name
    assert name == text or name.startswith("hashed:")
    assert identifier(text + "x") != name


async def recorded(desk: Desk, text: str) -> None:
    async with desk:
        unit, item = asked(text), identifier(text)
        desk.journal.calls(call(0, unit=unit, by_unit=True, key=unit), call(1, unit="other", by_unit=True))
        try:
            body = orjson.dumps({"route": "r", "key": text, "item": text, "metric": "k", "value": 1})
        except TypeError:  # JSON has no half characters: what holds one comes by no feedback
            desk.journal.events(keyed(unit, 1, at=10, item=item))
        else:
            events, problems, _ = read_events(body, desk.snapshot, T0 + 10)
            assert problems == []
            desk.journal.events(*events)
        desk.journal.beat(60_000)
        ledger = await desk.record()
        assert dict(desk.met) == {}, "every line is recorded"
        assert statuses(ledger) == {"joined": 1}, "a request and its feedback meet"
        assert sums(ledger)["a"] == (1.0, 1.0)
        erased = await unit_data.erase(desk.store, names_of(text, None))
        assert (erased.calls, erased.feedback) == (1, 1), "erasure finds the unit"
        async with desk.store.begin() as connection:
            assert (await connection.execute(select(func.count()).select_from(row_tables.calls))).scalar() == 1


@settings(max_examples=6, deadline=None, suppress_health_check=list(HealthCheck))
@given(text=texts)
@example(text=LONG)
@example(text="\x01" * 256)
@example(text="a\0b")
@example(text="\ud800")
def test_any_identifier_is_recorded_and_met_and_erased(new_store: Callable[[], str], text: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        desk = Desk(Path(folder), metric("event"), store=new_store(), key="body:/u", unit="body:/u", by_unit=True)
        asyncio.run(recorded(desk, text))


def test_a_journal_of_an_older_version_with_long_identifiers_is_recorded(tmp_path: Path, store: str) -> None:
    """At 30d391e one unit or key of 8,000 bytes stopped recording on PostgreSQL for good."""

    async def story(desk: Desk) -> Any:
        noise = "".join(chr(0x4E00 + index * 7919 % 20_000) for index in range(4_000))  # compression does not save it
        desk.journal.calls(call(0, unit=noise, by_unit=True, key=noise))
        desk.journal.events(keyed(noise, 1, at=10, item=noise))
        desk.journal.beat(60_000)
        ledger = await desk.record()
        assert dict(desk.met) == {}
        return sums(ledger)

    desk = Desk(tmp_path, metric("event"), store=store, key="body:/u", unit="body:/u", by_unit=True)
    assert at_desk(desk, story) == {"a": (1.0, 1.0)}


@pytest.mark.parametrize("text", ["user-17", LONG, "a\0b"])
def test_explain_names_the_variant_that_a_request_of_the_unit_meets(text: str) -> None:
    made = snapshot(metric("event"), unit="body:/u", by_unit=True)
    route = made.routes["r"]
    met = Router(made).route(route, FACTS, "id", {"u": text}).decision.answering
    assert explained(route, text)["answering"] == list(met)


def test_what_was_kept_before_identifiers_were_hashed_is_found_to_be_erased() -> None:
    assert LONG in names_of(LONG, None)
    assert "a\N{REPLACEMENT CHARACTER}b" in names_of("a\0b", None)
