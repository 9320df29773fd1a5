"""A unit is new once in an epoch while its salt stays: only then did chance choose, and only that can show a fault."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from math import log
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from gateway.report import report
from gateway.report.account import account_of
from gateway.report.verdict import cause_of
from gateway.store import Store, unit_data
from gateway.store.counts import plans, tallies
from gateway.store.counts.deltas import Deltas
from gateway.store.rows.bounded_reads import newest_drawn
from gateway.store.schema import migrations, tables
from policies.chance import chance
from policies.statistics.sample_ratio import sample_ratio
from router.snapshot import Backend
from tests.gateway.control.builders import Desk, at_desk, call, metric, row, snapshot

RAMP = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.4, 0.3, 0.2, 0.1)


def chosen(salt: str, share: float) -> list[str]:
    """The variant of each of 500 users, as ``pick`` chooses it."""
    users = [f"u{i}" for i in range(500)]
    # The waiting times are exponential: the ratio of two logarithms decides.
    return [
        "b" if -log(chance(salt, user, "b")) / share < -log(chance(salt, user, "a")) / (1 - share) else "a"
        for user in users
    ]


def alarmed(salt: str, *, once: bool) -> bool:
    """Whether the check alarms: the users arrive over the ramp; ``once`` counts each in the first stretch alone."""
    stretches = []
    for step, share in enumerate(RAMP):
        there = chosen(salt, share)[: 50 * (step + 1)]
        new = there[50 * step :] if once else there
        stretches.append(({"a": new.count("a"), "b": new.count("b")}, {"a": 1 - share, "b": share}))
    return not sample_ratio(stretches).ok


def test_users_who_meet_ten_edits_of_the_shares_give_no_alarm() -> None:
    """Counted once per period they did, in 7 of a hundred sound experiments."""
    salts = [f"experiment {number}" for number in range(100)]
    assert sum(alarmed(salt, once=True) for salt in salts) == 0
    assert sum(alarmed(salt, once=False) for salt in salts) >= 3


async def given(desk: Desk) -> Mapping[tuple[int, int], Mapping[str, int]]:
    ledger = await desk.record()
    return {(one.period, one.revision): dict(one.counts) for one in ledger.stretches}


async def in_force(desk: Desk, period: int, assigned: int = 0) -> None:
    """Store a plan of a period, which is its revision too."""
    [route] = snapshot(period=period, revision=period, assigned=assigned).routes.values()
    async with desk.store.begin() as connection:
        await plans.write_plans(connection, [route], 0)


def visits(desk: Desk, first: int, users: range, period: int, variant: str = "a", **more: Any) -> None:
    shared = {"by_unit": True, "period": period, "revision": period}
    desk.journal.calls(*(call(first + u, variant, unit=f"u{u}", **shared, **more) for u in users))


def test_a_unit_is_new_in_the_first_period_that_it_is_seen_in(tmp_path: Path, store: str) -> None:
    async def story(desk: Desk) -> None:
        for period in (1, 2):
            await in_force(desk, period)
        visits(desk, 100, range(20), 1)
        visits(desk, 200, range(30), 2)  # in the same transaction
        assert await given(desk) == {(1, 1): {"a": 20}, (2, 2): {"a": 10}}
        desk.restart()
        visits(desk, 300, range(40), 2, "b")
        assert await given(desk) == {(1, 1): {"a": 20}, (2, 2): {"a": 10, "b": 10}}
        visits(desk, 50, range(35), 1, "b")  # recorded late: their first requests were in period 1
        assert await given(desk) == {(1, 1): {"a": 0, "b": 35}, (2, 2): {"a": 0, "b": 5}}

    at_desk(Desk(tmp_path, store=store), story)


def test_a_new_assignment_key_makes_every_unit_new_once_more(tmp_path: Path, store: str) -> None:
    async def story(desk: Desk) -> None:
        for period, assigned in ((1, 0), (2, 0), (3, 3), (4, 3)):
            await in_force(desk, period, assigned)
        for period in (1, 2, 3, 4):
            visits(desk, 100 * period, range(20), period)
        assert await given(desk) == {(1, 1): {"a": 20}, (3, 3): {"a": 20}}

    at_desk(Desk(tmp_path, store=store), story)


def test_a_forced_request_makes_nobody_known(tmp_path: Path) -> None:
    """Its variant was not drawn: the first request whose variant was, counts."""

    async def story(desk: Desk) -> None:
        for period in (1, 2):
            await in_force(desk, period)
        visits(desk, 100, range(20), 1, forced=True)
        visits(desk, 200, range(20), 2, "b")
        assert await given(desk) == {(2, 2): {"b": 20}}

    at_desk(Desk(tmp_path), story)


def test_a_units_data_say_when_it_was_new(tmp_path: Path) -> None:
    async def story(desk: Desk) -> None:
        visits(desk, 100, range(1), 7)
        await desk.record()
        [arrival] = await unit_data.arrived(desk.store, ["u0"])
        assert (arrival["kind"], arrival["period"], arrival["variant"]) == ("arrival", 7, "a")
        assert "in_period" not in arrival

    at_desk(Desk(tmp_path), story)


def test_the_report_says_where_the_shares_are_off(tmp_path: Path, store: str) -> None:
    """Of each unit one request is looked at; forced ones and other epochs are left out."""

    async def story(desk: Desk) -> None:
        await in_force(desk, 1)
        shared: dict[str, Any] = {"by_unit": True}
        for u in range(1_200):
            country = "de" if u < 400 else "fr"
            variant = "b" if u < 320 else "ab"[u % 2]
            for visit in (0, 1):
                number = 2 * u + visit
                desk.journal.calls(call(number, variant, unit=f"u{u}", features={"country": country}, **shared))
        desk.journal.calls(call(5_000, "a", forced=True, unit="x", features={"country": "fr"}, **shared))
        ledger = await desk.record()
        async with desk.store.read() as connection:
            drawn = await newest_drawn(connection, "r", "e", 0)
        assert len(drawn) == 1_200
        backends = {name: Backend(name=name, urls=("http://127.0.0.1:1",), version="1", model="m") for name in "ab"}
        served = replace(desk.snapshot, backends=backends)
        shown = report(served, ledger, cause=cause_of(account_of(served, ledger), drawn))
        cause = shown["checks"]["sample_ratio"]["cause"]
        assert (cause["feature"], cause["value"], cause["observed"]) == ("country", "de", {"b": 360, "a": 40})
        assert "most of it where country = de: 40 to 360 (a to b)" in shown["verdict"]["sentence"]

    at_desk(Desk(tmp_path, metric("event"), store=store, by_unit=True), story)


ARRIVED = (
    ("u1", 1, 100, "a"),
    ("u1", 2, 200, "b"),
    ("u1", 3, 300, "b"),
    ("u2", 2, 150, "b"),
    ("u2", 3, 310, "a"),
    ("u3", 3, 320, "a"),
)


def test_arrivals_of_an_older_program_count_once(tmp_path: Path, store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It counted a unit in each period. Requests without a unit stay as they were counted."""
    number = next(number for number, step in migrations.STEPS.items() if "new once" in step.what)

    async def story() -> dict[tuple[int, str], int]:
        older = await Store.open(store, tmp_path)
        async with older.begin() as connection:
            for statement in ("ALTER TABLE arrivals DROP COLUMN in_period", "DROP TABLE assignments"):
                await connection.execute(text(statement))
            for unit, period, at_ms, variant in ARRIVED:
                await connection.execute(
                    text(
                        "INSERT INTO arrivals (route, epoch, period, unit, at_ms, id, revision, variant)"
                        " VALUES ('r', 'e', :period, :unit, :at_ms, 'x', :period, :variant)"
                    ),
                    {"unit": unit, "period": period, "at_ms": at_ms, "variant": variant},
                )
                await connection.execute(
                    text(
                        "INSERT INTO stretches VALUES ('r', 'e', :period, :period, :variant, 1 + 10)"
                        " ON CONFLICT (route, epoch, period, revision, variant) DO UPDATE SET n = stretches.n + 1"
                    ),
                    {"period": period, "variant": variant},
                )
            await connection.execute(tables.schema_version.update(), {"version": number - 1})
        await older.close()
        monkeypatch.setattr(migrations, "VERSION", number)
        newer = await Store.open(store, tmp_path)
        deltas = Deltas()
        shared: dict[str, Any] = {"by_unit": True, "period": 3, "revision": 3}
        deltas.calls([row(call(n, "b", unit=unit, **shared)) for n, unit in enumerate(("u1", "u2", "u3", "u4"))])
        async with newer.begin() as connection:
            await tallies.apply(connection, deltas, tallies.TallyCache())
            found = await connection.execute(text("SELECT revision, variant, n FROM stretches"))
            counts = {(revision, variant): n for revision, variant, n in found}
        await newer.close()
        return counts

    # u1 in period 1, u2 in 2, u3 in 3, and the fourth is new.
    assert asyncio.run(story()) == {(1, "a"): 11, (2, "b"): 11, (3, "b"): 11, (3, "a"): 11}
