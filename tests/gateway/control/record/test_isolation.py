"""What cannot be recorded or joined is set aside alone, and everything else is recorded."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from gateway.cli import run
from gateway.control.record.row_errors import is_of_a_row
from gateway.store.fleet.lease import LeaseLost
from router.records import mark_line
from tests.gateway.admin.fake import control
from tests.gateway.cli.running import admin_port, write_config
from tests.gateway.control.builders import T0, Desk, at_desk, call, event, keyed, metric, statuses, sums, uuid

ROUTE: dict[str, Any] = {"key": "body:/k"}
K = metric("value", fold="sum")


async def spoiled(desk: Desk, *rows: str) -> None:
    """Make stored rows unreadable, as a damaged page or a faulty program would."""
    async with desk.store.begin() as connection:
        for row in rows:
            await connection.execute(text(row))


async def aside(desk: Desk) -> list[tuple[Any, ...]]:
    return [(one["kind"], one["prediction"]) for one in await desk.store.set_aside(100)]


def test_a_stored_event_that_cannot_be_looked_up_is_set_aside_itself(tmp_path: Path, store: str) -> None:
    """At 30d391e the heartbeat that made it due was set aside instead, and no window closed any more."""

    async def story(desk: Desk) -> None:
        desk.journal.calls(*(call(n, key=f"k{n}") for n in range(6)))
        desk.journal.beat(10)
        desk.journal.events(*(keyed(f"k{n}", n, at=100 + n, event_id=f"e{n}") for n in range(6)))
        await desk.record()
        await spoiled(desk, "UPDATE feedback SET value = 'damaged' WHERE event_id = 'e3'")
        desk.journal.beat(50_000)
        ledger = await desk.record()
        assert ledger.watermark_ms == T0 + 50_000
        assert sums(ledger) == {"a": (0 + 1 + 2 + 4 + 5, 5.0)}
        assert statuses(ledger) == {"joined": 5, "set_aside": 1}
        assert await aside(desk) == [("event", None)]
        assert desk.met == {"unsettled_events": 1}, "and no line was blamed"

    at_desk(Desk(tmp_path, K, store=store, **ROUTE), story)


def test_a_prediction_whose_window_cannot_close_is_set_aside_itself(tmp_path: Path, store: str) -> None:
    """Also where two predictions are of one millisecond."""

    async def story(desk: Desk) -> None:
        desk.journal.calls(*(call(n) for n in range(6)), call(7, at_ms=T0 + 3))
        desk.journal.events(*(event(n, n, at=100 + n, event_id=f"e{n}") for n in (0, 1, 2, 3, 4, 5, 7)))
        await desk.record()
        await spoiled(desk, "UPDATE feedback SET value = 'damaged' WHERE event_id = 'e3'")
        desk.journal.beat(50_000)
        ledger = await desk.record()
        assert ledger.watermark_ms == T0 + 50_000
        assert sums(ledger) == {"a": (0 + 1 + 2 + 4 + 5 + 7, 6.0)}
        assert await aside(desk) == [("prediction", uuid(3))]
        assert desk.met == {"unsettled_predictions": 1}
        desk.restart()
        desk.journal.calls(call(60_000))
        desk.journal.beat(70_000)
        assert (await desk.record()).watermark_ms == T0 + 70_000

    at_desk(Desk(tmp_path, K, store=store), story)


def test_a_call_is_not_blamed_for_the_event_that_waited_for_it(tmp_path: Path, store: str) -> None:
    async def story(desk: Desk) -> None:
        desk.journal.events(event(3, 1, at=10, event_id="bad"), event(3, 5, at=11, event_id="good"))
        await desk.record()
        await spoiled(desk, "UPDATE feedback SET value = 'damaged' WHERE event_id = 'bad'")
        desk.journal.calls(call(3), call(4))
        desk.journal.beat(50_000)
        ledger = await desk.record()
        assert sums(ledger) == {"a": (5.0, 1.0)}
        assert await aside(desk) == [("event", uuid(3))]
        assert desk.met == {"unsettled_events": 1}

    at_desk(Desk(tmp_path, K, store=store), story)


def test_a_line_that_an_index_cannot_hold_is_set_aside_and_listed(tmp_path: Path, store: str) -> None:
    """PostgreSQL calls it an operational error, as it does a lost connection."""
    route = "".join(chr(0x4E00 + index * 7919 % 20_000) for index in range(4_000))  # compression does not save it

    async def story(desk: Desk) -> None:
        desk.journal.calls(*(call(n) for n in range(5)), call(5, route=route), *(call(n) for n in range(6, 70)))
        desk.journal.beat(50_000)
        assert (await desk.record()).watermark_ms == T0 + 50_000
        async with desk.store.begin() as connection:
            assert (await connection.execute(text("SELECT count(*) FROM calls WHERE route = 'r'"))).scalar() == 69
        refused = store != "sqlite"  # SQLite has no such bound
        assert await aside(desk) == [("line", uuid(5))] * refused
        assert desk.met == ({"unrecordable_lines": 1} if refused else {})

    at_desk(Desk(tmp_path, K, store=store), story)


@pytest.mark.parametrize(
    ("error", "row"),
    [
        (psycopg.errors.ProgramLimitExceeded(), True),  # index row size exceeds …
        (psycopg.errors.UntranslatableCharacter(), True),
        (psycopg.errors.NumericValueOutOfRange(), True),
        (psycopg.errors.CheckViolation(), True),
        (psycopg.errors.RaiseException(), True),
        (psycopg.DataError("text fields cannot contain NUL"), True),
        (psycopg.errors.DiskFull(), False),
        (psycopg.errors.ReadOnlySqlTransaction(), False),
        (psycopg.errors.AdminShutdown(), False),
        (psycopg.errors.QueryCanceled(), False),
        (psycopg.errors.LockNotAvailable(), False),
        (psycopg.errors.DeadlockDetected(), False),
        (psycopg.errors.UndefinedTable(), False),
        (psycopg.errors.DataCorrupted(), False),
        (psycopg.OperationalError("connection lost"), False),
        (sqlite3.OperationalError("disk I/O error"), False),
    ],
    ids=lambda one: type(one).__name__,
)
def test_the_stores_own_trouble_is_never_a_rows(error: Exception, row: bool) -> None:
    assert is_of_a_row(DBAPIError("INSERT", None, error)) is row


@pytest.mark.parametrize(("error", "row"), [(ValueError(), True), (UnicodeEncodeError("a", "b", 0, 1, "c"), True)])
def test_an_error_of_ours_is_a_rows(error: Exception, row: bool) -> None:
    assert is_of_a_row(error) is row
    assert not is_of_a_row(OSError("no space left"))
    assert not is_of_a_row(TimeoutError())
    assert not is_of_a_row(LeaseLost("another node has it"))
    assert not is_of_a_row(MemoryError())


def test_what_was_set_aside_is_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fake = control()
    with admin_port(fake) as address:
        command = ["feedback", "set-aside", "-c", str(write_config(tmp_path, admin=address))]
        assert run(command) == 0
        assert "nothing was set aside" in capsys.readouterr().out
        one = {"at_ms": 1_760_000_000_000, "kind": "event", "identity": "17", "prediction": "p-1", "why": "damaged [x]"}
        fake.aside = [one]
        assert run(command) == 0
        assert "event 17 about p-1: damaged [x]" in capsys.readouterr().out
        assert run([*command, "--json"]) == 0
        assert '"why": "damaged [x]"' in capsys.readouterr().out


def test_a_rejected_count_is_no_reason_to_stop(tmp_path: Path, store: str) -> None:
    """A stored row without which a line cannot be counted is set aside as well, whatever the line is."""

    async def story(desk: Desk) -> None:
        desk.journal.write("predictions", [mark_line("rejected", T0, events=2**63 - 1)] * 2)
        desk.journal.calls(call(1))
        desk.journal.beat(50_000)
        assert (await desk.record()).watermark_ms == T0 + 50_000

    at_desk(Desk(tmp_path, K, store=store), story)
