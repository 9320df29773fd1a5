"""One database, opened by one controller, with tables of a known version."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import BigInteger, Text, select, text
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.schema import CreateIndex, CreateTable

from gateway.store import LoggedEvent, Store, StoreError
from gateway.store.counts import plans
from gateway.store.counts.ledger import Ledger
from gateway.store.rows import calls, shared_fields
from gateway.store.rows.calls import Span
from gateway.store.rows.shared_fields import SharedFields
from gateway.store.schema import sql, tables
from router.outcomes import counted
from router.records import CALL_FIELDS, Prediction
from tests.gateway.control.builders import T0, WRITER, call, metric, row, snapshot


def in_store(where: str, path: Path, story: Callable[[Store], Awaitable[None]]) -> None:
    async def run() -> None:
        opened = await Store.open(where, path)
        try:
            await story(opened)
        finally:
            await opened.close()

    asyncio.run(run())


def test_nothing_is_counted_in_an_empty_store(tmp_path: Path, store: str) -> None:
    async def story(opened: Store) -> None:
        assert await opened.ledger("r", "e") == Ledger("r", "e")
        assert await opened.prediction("p") is None
        assert await opened.events() == []
        assert await opened.plans("r") == []

    in_store(store, tmp_path, story)


def test_a_store_is_open_once(tmp_path: Path) -> None:
    async def story(store: Store) -> None:
        with pytest.raises(StoreError, match="another controller"):
            await Store.open("sqlite", tmp_path)

    in_store("sqlite", tmp_path, story)
    in_store("sqlite", tmp_path, lambda store: store.make_durable())


@pytest.mark.parametrize("obstacle", ["a directory", "not a database", "a folder without a name"])
def test_a_store_that_cannot_be_opened_says_so_and_can_be_tried_again(tmp_path: Path, obstacle: str) -> None:
    async def story(store: Store) -> None:
        pass

    path = tmp_path / "turnout.db"
    if obstacle == "a directory":
        path.mkdir()
    elif obstacle == "not a database":
        path.write_text("a shopping list\n" * 1_000)
    else:
        (tmp_path / "x").write_text("a file")
        with pytest.raises(StoreError):
            in_store("sqlite", tmp_path / "x", story)
        return
    with pytest.raises(StoreError, match="cannot be opened"):
        in_store("sqlite", tmp_path, story)
    path.rmdir() if path.is_dir() else path.unlink()
    in_store("sqlite", tmp_path, story)


def test_a_transaction_that_fails_leaves_nothing(tmp_path: Path, store: str) -> None:
    async def story(opened: Store) -> None:
        async def failing() -> None:
            async with opened.begin() as connection:
                await calls.write(connection, [row(call(1))])
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await failing()
        assert await opened.prediction(call(1).id) is None

    in_store(store, tmp_path, story)


def test_rows_by_the_hundred_are_the_rows_that_were_written(tmp_path: Path, store: str) -> None:
    """Many rows are written by COPY where the database has it; no character may have a special meaning there."""
    strange = ["a\tb", "a\nb\r", "\\N", "\\.", "", '"', "é\u2028", "NULL", "\\x41", "{a,b}", "%s"]
    made = [row(call(n, unit=strange[n % 11], by_unit=True, key=strange[n // 11], prediction=n)) for n in range(121)]

    async def story(opened: Store) -> None:
        async with opened.begin() as connection:
            await calls.write(connection, made)
            found = await calls.of(connection, [one.id for one in made])
            assert [found[one.id] for one in made] == [[one] for one in made]

        async def again() -> None:
            async with opened.begin() as connection:
                await calls.write(connection, made)

        with pytest.raises(IntegrityError):
            await again()

    in_store(store, tmp_path, story)


@pytest.mark.parametrize(
    "prediction",
    [
        call(1),
        call(2, prediction=None, features={"x": [1, None]}, items=("a", "b"), key="k", unit="u", by_unit=True),
        call(3, prediction={"a": [1.5, True, "é\x00"]}, fault="timeout", status=None, propensity=None, forced=True),
        call(4, prediction=2**64 - 1, served="b", request_id="r", traceparent="t", reported_version="9"),
    ],
)
def test_a_call_comes_back_as_it_was_written(tmp_path: Path, store: str, prediction: Prediction) -> None:
    async def story(opened: Store) -> None:
        async with opened.begin() as connection:
            made = row(prediction, "open")
            await calls.write(connection, [made])
            shared_fields._BY_VALUES.clear()
            shared_fields._BY_NUMBER.clear()
            [found] = (await calls.of(connection, [prediction.id]))[prediction.id]
            assert (found.row, calls.as_json(found)) == (made.row, calls.as_json(made))
            assert await calls.open_of(connection, WRITER) == [found]

    in_store(store, tmp_path, story)


def test_every_field_of_a_call_can_be_asked_for_in_sql(tmp_path: Path, store: str) -> None:
    """The tables store most fields once for many calls; the view ``predictions`` shows them with each call."""

    async def story(opened: Store) -> None:
        async with opened.begin() as connection:
            made = call(2, prediction=[7], request_id="r", unit="u", status=503)
            await calls.write(connection, [row(made), row(call(3), "open")])
            found = (await connection.execute(text("SELECT * FROM predictions ORDER BY id"))).mappings().all()
        names = {one.name for one in CALL_FIELDS if one.storage != "rare"} - {"predicted"}
        assert set(found[0]) == names | {"more", "open"}
        assert {name: found[0][name] for name in ("variant", "unit", "status", "prediction", "more", "open")} == {
            "variant": "a",
            "unit": "u",
            "status": 503,
            "prediction": "[7]",
            "more": '{"request_id":"r"}',
            "open": 0,
        }
        assert [one["open"] for one in found] == [0, 1]

    in_store(store, tmp_path, story)


def test_what_calls_share_is_stored_once_and_remembered_within_bounds(
    tmp_path: Path, store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bandit makes a new plan every second, and a client may send any method."""
    monkeypatch.setattr(shared_fields, "MOST", 5)

    async def story(opened: Store) -> None:
        known = set[int]()
        for number in range(40):
            async with opened.begin() as connection:
                await calls.write(connection, [row(call(number, method=f"M{number % 20}"))], stored=known)
            assert max(len(known), len(shared_fields._BY_VALUES), len(shared_fields._BY_NUMBER)) <= 6
        async with opened.begin() as connection:
            assert (await connection.execute(text("SELECT count(*) FROM kin"))).scalar() == 20
            found = await calls.of(connection, [call(7).id, call(39).id])
        assert {one.shared.method for (one,) in found.values()} == {"M7", "M19"}

    in_store(store, tmp_path, story)


CALLS = [
    call(1),
    call(1, "s", role="shadow"),
    call(1, "t", role="shadow", fault="dropped"),
    call(2, "b", forced=True),
    call(3, "b", fault="timeout"),
    call(4, role="draft", items=("x",)),
    call(5, fault="client_gone"),
    call(6),
]


@pytest.mark.parametrize("kind", ["label", "event"])
def test_a_span_is_counted_in_sql_as_calls_are_one_by_one(tmp_path: Path, store: str, kind: str) -> None:
    async def story(opened: Store) -> None:
        span, judged = Span("r", T0 + 1, T0 + 6), metric(kind)
        async with opened.begin() as connection:
            await calls.write(connection, [row(one) for one in CALLS])
            await calls.write(connection, [row(call(2, "z"), "open")])
            found = await calls.counted_in(connection, span, judged)
        expected: dict[SharedFields, int] = {}
        for one in CALLS:
            if span.since_ms <= one.at_ms < span.until_ms and counted(one, judged):
                expected[row(one).shared] = expected.get(row(one).shared, 0) + 1
        assert {shared: n for shared, n, _ in found} == expected

    in_store(store, tmp_path, story)


def test_a_chunk_of_predictions_never_splits_a_millisecond(tmp_path: Path, store: str) -> None:
    async def story(opened: Store) -> None:
        async with opened.begin() as connection:
            await calls.write(connection, [row(one) for one in CALLS])
            reached = await calls.reach(connection, "r", T0, T0 + 100, 3)
            assert reached == T0 + 2
            assert set(await calls.ids_in(connection, Span("r", T0, reached))) == {call(1).id}
            assert await calls.reach(connection, "r", T0 + 1, T0 + 100, 1) == T0 + 2
            assert await calls.reach(connection, "r", T0, T0 + 100, 50) == T0 + 100

    in_store(store, tmp_path, story)


#: SQLite's JSON ends a string at NUL, and PostgreSQL refuses it: ``lines`` replaces it.
texts = st.text(alphabet=st.characters(exclude_categories=["Cs"], exclude_characters="\0"))


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(rows=st.lists(st.tuples(st.integers(-(2**62), 2**62), texts)))
def test_any_values_can_be_passed_as_a_list(store: str, rows: list[tuple[int, str]]) -> None:
    async def run() -> None:
        engine = create_async_engine(
            "sqlite+aiosqlite://" if store == "sqlite" else store.replace("postgresql", "postgresql+psycopg", 1)
        )
        try:
            async with engine.connect() as connection:
                listed = sql.listed(engine.dialect.name, BigInteger(), Text())
                found = await connection.execute(select(listed), sql.as_list(rows))
                assert [tuple(row) for row in found] == rows
                among = sql.among(engine.dialect.name, Text())
                found = await connection.execute(among, sql.as_values([text for _, text in rows]))
                assert [row[0] for row in found] == [text for _, text in rows]
        finally:
            await engine.dispose()

    asyncio.run(run())


def test_plans_and_epochs_are_stored_once(tmp_path: Path, store: str) -> None:
    async def story(opened: Store) -> None:
        async with opened.begin() as connection:
            assert await plans.newest_revision(connection) == 0
            route = snapshot().routes["r"]
            assert await plans.write_plans(connection, [route], 5) == [route]
            assert await plans.write_plans(connection, [route], 6) == []
            assert await plans.newest_revision(connection) == 1
            stored = LoggedEvent(7, "epoch_began", "r", "e")
            await plans.write_events(connection, [stored, stored._replace(at_ms=8)])
        [plan] = await opened.plans("r")
        assert (plan["revision"], plan["epoch"], plan["at_ms"], plan["shares"]) == (1, "e", 5, {"a": 0.5, "b": 0.5})
        assert [one.at_ms for one in await opened.events()] == [8, 7]

    in_store(store, tmp_path, story)


def test_the_tables_can_be_made_by_postgresql() -> None:
    dialect = postgresql.dialect()  # type: ignore[no-untyped-call]
    for table in tables.metadata.sorted_tables:
        made = str(CreateTable(table).compile(dialect=dialect))
        assert "WITHOUT ROWID" not in made
        for index in table.indexes:
            assert str(CreateIndex(index).compile(dialect=dialect))
