"""The few statement forms that the store uses: insert many rows, find many rows by a list.

Rule: one statement per call, however many rows. What differs between SQLite and PostgreSQL stays in this file.
Statements are compiled once and cached, because compiling one costs as much as running it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from itertools import chain
from typing import Any, Final

import orjson
from sqlalchemy import Dialect, Select, Table, bindparam, case, cast, func, literal_column, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.sql.expression import ColumnElement, Subquery
from sqlalchemy.types import TypeEngine

from gateway.store.schema.single_connection import CancelSafeConnection

#: Rows per statement. A statement's own cost is that of a few rows; the number of its parameters is at most 32,766.
ROWS: Final = 50


async def insert(connection: AsyncConnection, table: Table, rows: Sequence[tuple[Any, ...]]) -> None:
    """Insert rows, each in the order of the table's columns (a serial column left out)."""
    if connection.dialect.name == "postgresql" and len(rows) >= ROWS:
        await _copy(connection, table, rows)
    else:
        await _write(connection, table, rows, "fail")


async def upsert(connection: AsyncConnection, table: Table, rows: Sequence[tuple[Any, ...]]) -> None:
    """Insert rows, of different primary keys; one whose primary key exists replaces the old one."""
    await _write(connection, table, rows, "replace")


async def ensure(connection: AsyncConnection, table: Table, rows: Sequence[tuple[Any, ...]]) -> None:
    """Insert rows, leaving alone what conflicts with one that exists."""
    await _write(connection, table, rows, "ignore")


async def add(connection: AsyncConnection, table: Table, counts: Collection[tuple[tuple[Any, ...], int]]) -> None:
    """Add to the column ``n`` of the rows with these primary keys, which are different and begin at 0."""
    await _write(connection, table, [(*key, n) for key, n in counts if n], "add")


async def note(connection: AsyncConnection, table: Table, seen: Sequence[tuple[Any, ...]]) -> None:
    """Add to ``n`` of rows with different primary keys and widen first_ms to last_ms; a detail replaces the old one."""
    await _write(connection, table, seen, "note")


async def rows(connection: AsyncConnection, query: Select[Any], parameters: Mapping[str, Any]) -> Sequence[Any]:
    """Return a query's rows as the driver's own tuples: for thousands of rows, of types that the driver converts."""
    result = await connection.execute(query, parameters)
    found: Sequence[Any] = result.cursor.fetchall()
    result.close()
    return found


async def _copy(connection: AsyncConnection, table: Table, rows: Sequence[tuple[Any, ...]]) -> None:
    """Insert rows by COPY: it takes a third less time, here and on the server, than statements of fifty rows."""
    statement = _copy_statement(table)
    driver: Any = (await connection.get_raw_connection()).driver_connection

    async def copying() -> None:
        async with driver.cursor() as cursor, cursor.copy(statement) as copy:
            for row in rows:
                await copy.write_row(row)

    try:
        await (connection.run_to_end(copying()) if isinstance(connection, CancelSafeConnection) else copying())
    except connection.dialect.loaded_dbapi.Error as error:
        # SQLAlchemy does not translate errors of direct calls: callers catch the same error, however a row was written.
        base = connection.dialect.loaded_dbapi.Error
        raise DBAPIError.instance(statement, None, error, base, dialect=connection.dialect) from error


@lru_cache(maxsize=16)
def _copy_statement(table: Table) -> str:
    names = ", ".join(f'"{column.name}"' for column in table.columns if column is not table.autoincrement_column)
    return f"COPY {table.name} ({names}) FROM STDIN"


async def _write(connection: AsyncConnection, table: Table, rows: Sequence[tuple[Any, ...]], conflict: str) -> None:
    whole = len(rows) - len(rows) % ROWS
    if whole:
        many = [tuple(chain.from_iterable(rows[at : at + ROWS])) for at in range(0, whole, ROWS)]
        await connection.exec_driver_sql(_insert(connection.dialect, table, conflict, ROWS), many)
    if whole < len(rows):
        await connection.exec_driver_sql(_insert(connection.dialect, table, conflict), list(rows[whole:]))


def listed(dialect: str, *types: TypeEngine[Any]) -> Subquery:
    """Return a table of the columns c0, c1, … whose rows are the parameter ``listed``: ``as_list`` of tuples.

    One parameter however long the list is: databases bound the number of parameters, and parse each.
    """
    if dialect == "sqlite":
        each = func.json_each(bindparam("listed")).table_valued("value")
        # Strings and integers keep their types in JSON, so that nothing need be cast.
        columns: list[ColumnElement[Any]] = [func.json_extract(each.c.value, f"$[{i}]") for i in range(len(types))]
    else:
        parameter = cast(bindparam("listed"), postgresql.JSONB)
        each = func.jsonb_array_elements(parameter).table_valued("value")
        columns = [cast(each.c.value.op("->>")(i), kind) for i, kind in enumerate(types)]
    return select(*(column.label(f"c{i}") for i, column in enumerate(columns))).select_from(each).subquery()


def as_list(rows: Collection[tuple[Any, ...]]) -> dict[str, str]:
    """Return the parameters of a statement that reads ``listed``."""
    return {"listed": orjson.dumps(list(rows)).decode()}


def among(dialect: str, kind: TypeEngine[Any], name: str = "listed") -> Select[Any]:
    """Return the select for ``column.in_(…)`` whose values are the parameter ``name``: ``as_values`` of them."""
    if dialect == "sqlite":
        return select(func.json_each(bindparam(name)).table_valued("value").c.value)
    each = func.jsonb_array_elements_text(cast(bindparam(name), postgresql.JSONB)).table_valued("value")
    return select(cast(each.c.value, kind))


def as_values(values: Collection[str] | Collection[int], name: str = "listed") -> dict[str, str]:
    """Return the parameters of a statement that reads ``among``."""
    return {name: orjson.dumps(list(values)).decode()}


@lru_cache(maxsize=128)
def _insert(dialect: Dialect, table: Table, conflict: str, rows: int = 1) -> str:
    """The statement's text, with one placeholder per column and row: values then go to the driver as they are.

    Binding named parameters row by row through the expression language costs more than the insert itself.
    """
    columns = [column for column in table.columns if column is not table.autoincrement_column]
    keys = [column.name for column in table.primary_key]
    rest = [column.name for column in columns if column.name not in keys]
    build: Any = (sqlite if dialect.name == "sqlite" else postgresql).insert(table)
    if conflict == "ignore":
        build = build.on_conflict_do_nothing()
    elif conflict == "replace":
        build = build.on_conflict_do_update(index_elements=keys, set_={name: build.excluded[name] for name in rest})
    elif conflict == "add":
        build = build.on_conflict_do_update(index_elements=keys, set_={"n": table.c.n + build.excluded.n})
    elif conflict == "note":
        new = build.excluded
        changes = {
            "n": table.c.n + new.n,
            "first_ms": case((new.first_ms < table.c.first_ms, new.first_ms), else_=table.c.first_ms),
            "last_ms": case((new.last_ms > table.c.last_ms, new.last_ms), else_=table.c.last_ms),
            "detail": case((new.detail != literal_column("''"), new.detail), else_=table.c.detail),
        }
        build = build.on_conflict_do_update(index_elements=keys, set_=changes)
    names = [column.name for column in columns]
    compiled = build.compile(dialect=dialect, column_keys=names)
    assert list(compiled.positiontup) == names, "the driver's placeholders must be positional and in column order"
    head, row, tail = _VALUES.fullmatch(str(compiled)).groups()  # type: ignore[union-attr]
    return f"{head}{', '.join([row] * rows)}{tail}"


_VALUES: Final = re.compile(r"(.* VALUES )(\([^()]*\))(.*)", re.DOTALL)
