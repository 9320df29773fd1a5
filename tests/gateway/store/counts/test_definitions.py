"""A prediction is judged by the definition in force when it was made."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from gateway.store.counts import plans
from gateway.store.counts.definitions import Definition, Definitions, newly_defined
from gateway.store.counts.ledger import Ledger
from tests.gateway.control.builders import T0, Desk, at_desk, call, event, keyed, metric, snapshot, statuses, sums


def by_definition(ledger: Ledger, phase: str = "mature") -> dict[str, tuple[float, float]]:
    return {key.definition: (t.m, t.d) for key, t in ledger.tallies.items() if (key.metric, key.phase) == ("k", phase)}


def test_the_newest_definition_that_is_not_younger_applies() -> None:
    old, new = metric(), metric(window_ms=5)
    definitions = Definitions([Definition("r", "k", 0, old, 0), Definition("r", "k", 100, new, 100)])
    definitions.append(Definition("r", "k", 200, None, 200))
    found = [definitions.at("r", "k", at) for at in (0, 99, 100, 199, 200)]
    assert [d and d.metric for d in found] == [old, old, new, new, None]
    assert definitions.at("r", "other", 0) is None
    assert definitions.at("other", "k", 0) is None


def test_each_definition_closes_up_to_the_next_and_by_its_own_window() -> None:
    definitions = Definitions([Definition("r", "k", 0, metric(window_ms=50), 0)])
    definitions.append(Definition("r", "k", 100, metric(window_ms=5), 100))
    assert [d.closes_until(120) for d in definitions] == [70, 115]
    assert [d.closes_until(500) for d in definitions] == [100, 495]


def test_only_what_changes_a_number_begins_a_definition() -> None:
    first = metric()
    definitions = Definitions([Definition("r", "k", 0, first, 0)])
    assert newly_defined(definitions, "r", [replace(first, better="lower")]) == {}
    assert newly_defined(definitions, "r", [metric(window_ms=5)]) == {"k": metric(window_ms=5)}
    assert newly_defined(definitions, "r", []) == {"k": None}
    assert newly_defined(definitions, "new", [first]) == {"k": first}
    definitions.append(Definition("r", "k", 100, None, 100))
    assert newly_defined(definitions, "r", []) == {}
    assert newly_defined(definitions, "r", [first]) == {"k": first}


def test_a_changed_metric_counts_anew_and_disturbs_nothing(tmp_path: Path, store: str) -> None:
    async def story(desk: Desk) -> None:
        old, new = desk.snapshot.metrics["k"], metric(window_ms=3_000)
        desk.journal.calls(call(10, prediction=7), call(400, prediction=7))
        desk.journal.events(event(10, 7, at=20))
        desk.journal.beat(500)
        await desk.record()
        desk.adopt(snapshot(new), at=500)
        desk.journal.calls(call(600, prediction=7))
        desk.journal.events(event(400, 7, at=1_300), event(600, 8, at=3_500), event(10, 7, at=3_000, event_id="x"))
        desk.journal.beat(4_000)
        ledger = await desk.record()
        assert by_definition(ledger) == {old.definition: (2.0, 2.0), new.definition: (0.0, 1.0)}
        assert by_definition(ledger, "closed") == {old.definition: (0.0, 2.0), new.definition: (0.0, 1.0)}
        assert statuses(ledger) == {"joined": 3, "late": 1}, "the first one's window is still one second"

    at_desk(Desk(tmp_path, metric(), store=store), story)


def test_a_metric_that_is_added_applies_from_then_on_and_resets_nothing(tmp_path: Path, store: str) -> None:
    async def story(desk: Desk) -> None:
        desk.journal.calls(call(10, prediction=7))
        await desk.record()
        desk.adopt(snapshot(metric(), metric("event", "click")), at=500)
        desk.journal.calls(call(600, prediction=7))
        desk.journal.events(event(10, 1, at=700, metric="click"), event(600, 1, at=700, metric="click"))
        desk.journal.events(event(10, 7, at=700))
        ledger = await desk.record()
        assert sums(ledger, "live") == {"a": (1.0, 1.0)}
        assert ledger.feedback == {("click", "not_applicable"): 1, ("click", "joined"): 1, ("k", "joined"): 1}

    at_desk(Desk(tmp_path, metric(), store=store), story)


def test_a_metric_that_is_removed_still_judges_what_was_made_before(tmp_path: Path, store: str) -> None:
    async def story(desk: Desk) -> None:
        desk.journal.calls(call(10, prediction=7))
        await desk.record()
        desk.adopt(snapshot(), at=500)
        desk.journal.calls(call(600, prediction=7))
        desk.journal.events(event(10, 7, at=700), event(600, 7, at=700))
        desk.journal.beat(5_000)
        ledger = await desk.record()
        assert sums(ledger) == {"a": (1.0, 1.0)}
        assert statuses(ledger) == {"joined": 1, "not_applicable": 1}

    at_desk(Desk(tmp_path, metric(), store=store), story)


def test_a_definition_never_reaches_back_to_what_was_counted_under_another(tmp_path: Path, store: str) -> None:
    """The clock of the controller, which reads the edit, may be behind that of a worker."""

    async def story(desk: Desk) -> None:
        desk.journal.calls(call(900, prediction=7))
        desk.journal.events(event(900, 7, at=910))
        await desk.record()
        desk.adopt(snapshot(metric(window_ms=5)), at=100)
        desk.journal.events(event(900, 8, at=1_500, revision=1))
        ledger = await desk.record()
        assert by_definition(ledger, "live") == {metric().definition: (0.0, 1.0)}

    at_desk(Desk(tmp_path, metric(), store=store), story)


def test_the_first_definition_of_a_route_applies_to_everything(tmp_path: Path, store: str) -> None:
    """A journal that is replayed into an empty store is older than the store."""

    async def story(desk: Desk) -> None:
        desk.restart()
        desk.adopt(desk.snapshot, at=10**9)
        desk.journal.calls(call(10, prediction=7))
        desk.journal.events(event(10, 7, at=20))
        assert sums(await desk.record(), "live") == {"a": (1.0, 1.0)}
        async with desk.store.begin() as connection:
            assert [d.since_ms for d in await plans.read_definitions(connection)] == [0]

    at_desk(Desk(tmp_path, metric(), store=store), story)


def test_another_key_rule_begins_a_definition_and_is_kept(tmp_path: Path, store: str) -> None:
    """Events that were looked up by one rule are not looked up anew by another."""

    async def story(desk: Desk) -> None:
        desk.journal.calls(call(10, key="k", prediction=7), call(20, "b", key="k", prediction=7))
        desk.journal.events(keyed("k", 7, at=30))
        desk.journal.beat(500)
        await desk.record()
        desk.adopt(snapshot(metric(), key_rule="first"), at=400)
        desk.journal.calls(*(call(n, "a" if n == 600 else "b", key="l", prediction=7) for n in (600, 610)))
        desk.journal.events(keyed("k", 7, at=40, item="x"), keyed("l", 7, at=620))
        desk.journal.beat(700)
        assert sums(await desk.record(), "live") == {"a": (1.0, 1.0), "b": (1.0, 1.0)}
        desk.restart()
        desk.adopt(desk.snapshot, at=800)
        await desk.record()
        async with desk.store.begin() as connection:
            found = [(d.since_ms - T0, d.key_rule) for d in await plans.read_definitions(connection)]
        assert sorted(found) == [(-T0, "latest"), (400, "first")]

    at_desk(Desk(tmp_path, metric(), store=store), story)
