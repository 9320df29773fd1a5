"""Each version of a variant has its own evidence, within one epoch: a new version of one leaves that of the others."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from gateway.cli.report_tables import of_route
from gateway.control.plan.planner import evidence_of
from gateway.report import report
from gateway.store.counts import plans
from gateway.store.counts.ledger import CALLS, Ledger, TallyKey, versioned
from gateway.store.schema.count_tables import faults, latency, signs
from policies.types import Tally
from router.scores import Agreement
from router.snapshot import Backend, Snapshot
from tests.gateway.admin.fake import Control, ask
from tests.gateway.control import builders
from tests.gateway.control.builders import Desk, at_desk, call, event, metric

CLICK = metric("event", "k", missing=0.0)


def of(desk: Desk, **versions: str) -> Snapshot:
    backends = {
        name: Backend(name=name, urls=("http://127.0.0.1:9001",), version=version, model="m")
        for name, version in versions.items()
    }
    return replace(desk.snapshot, backends=backends)


def by_name(shown: dict[str, Any]) -> dict[str, Any]:
    return {variant["name"]: variant for variant in shown["variants"]}


def two_periods(desk: Desk) -> None:
    """In period 1, b is of version 1 and fails half of its calls; from period 2 on it is of version 2, and sound."""
    for number in range(400):
        variant, late = "ab"[number % 2], number >= 200
        broken = variant == "b" and not late and number % 4 == 1
        desk.journal.calls(
            call(
                number,
                variant,
                period=1 + late,
                version="2" if variant == "b" and late else "1",
                status=None if broken else 200,
                fault="timeout" if broken else None,
                latency_ms=1000.0 if variant == "b" and not late else 1.0,
            )
        )
        if variant == "a" or (late and number % 4 == 1):
            desk.journal.events(event(number, 1, at=number))
    desk.journal.beat(30_000)


def test_a_new_version_has_its_own_numbers_and_the_others_keep_theirs(tmp_path: Path) -> None:
    async def story(desk: Desk) -> tuple[Snapshot, Ledger]:
        two_periods(desk)
        return of(desk, a="1", b="2"), await desk.record()

    snapshot, ledger = at_desk(Desk(tmp_path, CLICK), story)
    shown = report(snapshot, ledger)
    a, b = (by_name(shown)[name] for name in "ab")
    assert (a["predictions"], a["metrics"]["k"]["mature"]["n"]) == (200, 200)
    assert (b["predictions"], b["failures"], b["metrics"]["k"]["mature"]["n"]) == (100, 0, 100)
    assert b["metrics"]["k"]["mature"]["mean"] == 0.5
    assert b["latency_ms"]["p50"] < 2
    assert (shown["faults"], shown["problems"]) == ({}, [])
    [before] = shown["earlier_versions"]
    assert (before["name"], before["version"], before["predictions"], before["failures"]) == ("b", "1", 100, 50)
    evidence = evidence_of(ledger, snapshot)
    assert {name: evidence.tally(name, "k").d for name in "ab"} == {"a": 200, "b": 100}

    back = report(replace(snapshot, backends=of_back(snapshot)), ledger)
    assert (by_name(back)["b"]["predictions"], by_name(back)["b"]["failures"]) == (100, 50)
    assert by_name(back)["a"]["predictions"] == 200

    page = ask(Control(snapshot, {"r": ledger}), "/routes/r").text
    assert "b 1 (100 calls)" in page
    assert of_route(shown, boxed=False) is not None


def of_back(snapshot: Snapshot) -> dict[str, Backend]:
    return {**snapshot.backends, "b": replace(snapshot.backends["b"], version="1")}


def test_a_new_version_is_compared_with_what_ran_beside_it(tmp_path: Path) -> None:
    """In period 1 everyone clicks; a's clicks of that time say nothing about b's version of period 2."""

    async def story(desk: Desk) -> tuple[Snapshot, Ledger]:
        async with desk.store.begin() as connection:
            for period in (1, 2):
                [route] = builders.snapshot(period=period, revision=period).routes.values()
                await plans.write_plans(connection, [route], 0)
        for number in range(800):
            variant, late = "ab"[number % 2], number >= 400
            version = "2" if variant == "b" and late else "1"
            desk.journal.calls(call(number, variant, period=1 + late, revision=1 + late, version=version))
            if not late or number % 8 < 2:
                desk.journal.events(event(number, 1, at=number))
        desk.journal.beat(30_000)
        return of(desk, a="1", b="2"), await desk.record()

    snapshot, ledger = at_desk(Desk(tmp_path, CLICK), story)
    [compared] = report(snapshot, ledger)["verdict"]["comparisons"]
    assert compared["status"] == "no_difference_yet"
    assert abs(compared["difference"]) < 0.01


def test_what_was_counted_without_versions_is_of_the_first(tmp_path: Path) -> None:
    """Earlier programs counted faults, times and signs by variant alone: an epoch had one version of each."""

    async def story(desk: Desk) -> tuple[Snapshot, Ledger]:
        two_periods(desk)
        await desk.record()
        async with desk.store.begin() as connection:
            for table in (faults, latency, signs):
                await connection.execute(
                    table.update().where(table.c.variant == versioned("b", "1")).values(variant="b")
                )
        return of(desk, a="1", b="2"), await desk.ledger()

    snapshot, ledger = at_desk(Desk(tmp_path, CLICK), story)
    assert by_name(report(snapshot, ledger))["b"]["latency_ms"]["p50"] < 2
    assert report(snapshot, ledger)["faults"] == {}
    assert report(replace(snapshot, backends=of_back(snapshot)), ledger)["faults"] == {
        "b": {"primary": {"timeout": 50}}
    }


def key(period: int, variant: str, version: str, **more: Any) -> TallyKey:
    content = {"role": "primary", "against": "", "metric": CALLS, "definition": "", "phase": "live"}
    return TallyKey(period=period, variant=variant, version=version, **(content | more))


def test_pairs_are_of_the_periods_in_which_both_had_their_present_versions() -> None:
    """The version of a copy is in its tally's key; that of the answer it is paired with is its period's."""
    one = Tally.of_unit(1.0, 1.0)
    shadow: dict[str, Any] = {"role": "shadow"}
    tallies = {
        key(1, "a", "1"): one,
        key(2, "a", "2"): one,
        **{key(period, "s", "1", **shadow): one for period in (1, 2)},
        **{key(period, "s", "1", against="a", metric="k", phase="mature", **shadow): one for period in (1, 2)},
        **{key(period, "s", "1", metric=Agreement.name, **shadow): one for period in (1, 2)},
    }
    left = Ledger("r", "e", tallies=tallies).of_versions({"a": "2", "s": "1"}).tallies
    assert {(one.period, one.variant, one.metric) for one in left} == {
        (2, "a", CALLS),
        (1, "s", CALLS),
        (2, "s", CALLS),
        (2, "s", "k"),
        (2, "s", Agreement.name),
    }
