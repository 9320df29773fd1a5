"""Where every request is drawn anew, mature values are kept by stretch: under each plan revision, with its shares."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from gateway.store.counts import history, plans
from gateway.store.counts.ledger import Ledger, Stretch, TallyKey
from gateway.store.schema import migrations
from gateway.store.schema.tables import schema_version
from policies.plans import Weighted
from policies.types import Evidence, StretchTallies, Tally
from tests.gateway.control.builders import T0, Desk, at_desk, call, event, metric, snapshot


def by_revision(ledger: Ledger, phase: str = "mature") -> dict[int, tuple[int, float]]:
    """(n, ΣM) of variant a by revision."""
    return {
        key.revision: (tally.n, tally.m)
        for key, tally in ledger.tallies.items()
        if (key.variant, key.metric, key.phase) == ("a", "k", phase)
    }


async def plan(desk: Desk, revision: int, share: float) -> Mapping[str, float]:
    made = Weighted((("a", share), ("b", 1 - share)), sticky=False)
    async with desk.store.begin() as connection:
        await plans.write_plans(connection, snapshot(revision=revision, plan=made).routes.values(), T0)
    return made.shares


def test_a_corrected_label_moves_its_own_stretch(tmp_path: Path, store: str) -> None:
    async def story(desk: Desk) -> None:
        shares = {revision: await plan(desk, revision, revision / 10) for revision in (1, 2, 3)}
        desk.journal.calls(*(call(n, revision=1 + n % 2) for n in range(8)))
        desk.journal.events(*(event(n, 1, 10) for n in range(8)))
        ledger = await desk.record()
        assert by_revision(ledger) == {1: (4, 4.0), 2: (4, 4.0)}
        assert by_revision(ledger, "live") == {0: (8, 8.0)}
        assert ledger.shares == {1: shares[1], 2: shares[2]}
        desk.journal.events(event(0, 0, 20, revision=1), event(2, None, 21, revision=1))
        assert by_revision(await desk.record()) == {1: (3, 2.0), 2: (4, 4.0)}
        planned = (await desk.store.evidence([("r", "e")]))["r", "e"]
        assert (by_revision(planned), planned.shares) == ({1: (3, 2.0), 2: (4, 4.0)}, ledger.shares)

    at_desk(Desk(tmp_path, metric("value", mature="arrival"), store=store), story)


def test_units_and_pairs_are_not_split(tmp_path: Path) -> None:
    """A unit's values under several plans are one unit's; and of a pair it does not matter who drew the primary."""

    async def story(desk: Desk) -> None:
        for revision in (1, 2):
            shadow = {"role": "shadow", "prediction": 2, "revision": revision}
            desk.journal.calls(call(revision, prediction=1, revision=revision), call(revision, "b", **shadow))
            desk.journal.calls(call(10 + revision, unit="u", by_unit=True, prediction=1, revision=revision))
            desk.journal.calls(call(20 + revision, by_unit=True, prediction=1, revision=revision))
        desk.journal.events(*(event(n + revision, 1, 30) for n in (0, 10, 20) for revision in (1, 2)))
        desk.journal.beat(2_000)
        ledger = await desk.record()
        mature = {
            (key.variant, key.against, key.revision): (tally.n, tally.d)
            for key, tally in ledger.tallies.items()
            if key.phase == "mature"
        }
        alone = {("a", "", 1): (1, 1.0), ("a", "", 2): (1, 1.0)}
        # A request without a unit, on a route that counts units, is a unit of its own.
        assert mature == {**alone, ("a", "", 0): (3, 4.0), ("b", "", 0): (2, 2.0), ("b", "a", 0): (2, 2.0)}

    at_desk(Desk(tmp_path, metric()), story)


def test_the_shares_of_packed_plans_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: str) -> None:
    monkeypatch.setattr(history, "KEPT", 2)
    monkeypatch.setattr(history, "PACK", 3)

    async def story(desk: Desk) -> None:
        shares = {revision: await plan(desk, revision, revision / 20) for revision in range(1, 12)}
        desk.journal.calls(*(call(n, revision=n) for n in range(1, 13)))
        desk.journal.events(*(event(n, 1, 20) for n in range(1, 13)))
        await desk.record()
        async with desk.store.begin() as connection:
            while await history.fold(connection, "r"):
                pass
        assert (await desk.ledger()).shares == shares  # of the twelfth no plan was stored

    at_desk(Desk(tmp_path, metric("value", mature="arrival"), store=store), story)


def test_what_was_counted_before_stretches_stays_where_it_is(
    tmp_path: Path, store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether a call was counted by an earlier version is known by its time, so its correction finds its value."""
    number = next(number for number, step in migrations.STEPS.items() if "by stretch" in step.what)

    async def older(desk: Desk) -> None:
        desk.journal.calls(*(call(n, revision=7) for n in range(4)))
        desk.journal.events(*(event(n, 1, 10) for n in range(4)))
        await desk.record()
        async with desk.store.begin() as connection:
            for statement in (
                "DROP INDEX tallies_stretch",
                "UPDATE tallies SET revision = 0",
                "ALTER TABLE tallies DROP COLUMN revision",
                """CREATE UNIQUE INDEX tallies_place ON tallies
                   (route, epoch, period, variant, version, role, against, metric, definition, phase)""",
            ):
                await connection.execute(text(statement))
            await connection.execute(schema_version.update(), {"version": number - 1})
        monkeypatch.setattr(migrations, "VERSION", number)

    async def newer(desk: Desk) -> None:
        assert desk.store.migrated.before == number - 1
        desk.journal.calls(*(call(n, revision=7) for n in range(4, 8)))
        desk.journal.events(*(event(n, 1, 10) for n in range(4, 8)), event(0, 0, 20, revision=1))
        assert by_revision(await desk.record()) == {0: (4, 3.0), 7: (4, 4.0)}
        desk.journal.events(event(1, None, 21, revision=1), event(4, None, 21, revision=1))
        assert by_revision(await desk.record()) == {0: (3, 2.0), 7: (3, 3.0)}

    desk = Desk(tmp_path, metric("value", mature="arrival"), store=store)
    at_desk(desk, older)
    at_desk(desk, newer)


def key(period: int, variant: str, revision: int, **more: Any) -> TallyKey:
    content = {"version": "1", "role": "primary", "against": "", "metric": "k", "definition": "d", "phase": "mature"}
    merged: dict[str, Any] = content | more
    return TallyKey(period=period, variant=variant, revision=revision, **merged)


def test_plans_learn_from_stretches_in_order_with_the_shares_of_each() -> None:
    """A variant that served in another version has no share: that nothing of it is counted says nothing of it."""
    one = Tally.of_unit(1.0, 1.0)
    ledger = Ledger(
        "r",
        "e",
        tallies={
            key(2, "b", 3): one + one,
            key(2, "a", 3): one,
            key(1, "a", 0): one,
            key(1, "a", 1): one,
            key(2, "b", 3, phase="live"): one,
            key(2, "b", 3, definition="other"): one,
            key(2, "b", 0, role="shadow"): one,
            key(2, "b", 0, against="a"): one,
        },
        shares={1: {"a": 0.2, "b": 0.8}, 3: {"a": 0.4, "b": 0.6}},
    )
    evidence = ledger.evidence({"k": "d"})
    assert evidence.tallies == {("a", "k"): one + one + one, ("b", "k"): one + one}
    assert evidence.stretches == (
        StretchTallies({}, {("a", "k"): one}),
        StretchTallies({"a": 0.2}, {("a", "k"): one}),
        StretchTallies({"a": 0.4, "b": 0.6}, {("a", "k"): one, ("b", "k"): one + one}),
    )
    kept = replace(ledger, stretches=(Stretch(1, 1, {"a": 0.2, "b": 0.8}, {"a": 1}),))
    assert kept.evidence({"k": "d"}).stretches[0].shares == {"a": 0.2}
    sticky = Ledger("r", "e", tallies={key(1, "a", 0): one})
    assert sticky.evidence({"k": "d"}) == Evidence({("a", "k"): one})
