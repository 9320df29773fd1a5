"""How columns and tables are declared: their types, alike in SQLite and PostgreSQL.

Rule: every table of the store is made by ``table``, in one ``metadata``.
"""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import BigInteger, Boolean, Column, Float, Integer, MetaData, Table, Text

metadata: Final = MetaData()

#: SQLite gives a row its own number only to a column that is exactly INTEGER.
Serial = BigInteger().with_variant(Integer, "sqlite")


def string(name: str, *, key: bool = False, null: bool = False) -> Column[Any]:
    return Column(name, Text, primary_key=key, nullable=null)


def prediction_id(name: str, *, key: bool = False, null: bool = False) -> Column[Any]:
    """A prediction's id: everywhere ordered byte by byte, as Python orders it; so ids sort by time."""
    return Column(name, Text().with_variant(Text(collation="C"), "postgresql"), primary_key=key, nullable=null)


def integer(name: str, *, key: bool = False, null: bool = False) -> Column[Any]:
    return Column(name, BigInteger, primary_key=key, nullable=null, autoincrement=False)


def number(name: str, *, null: bool = False) -> Column[Any]:
    return Column(name, Float, nullable=null)


def flag(name: str) -> Column[Any]:
    return Column(name, Boolean, nullable=False)


def table(name: str, *columns: Column[Any], wide: bool = False, **more: Any) -> Table:
    # Small rows live in the primary key's own tree: one tree to write instead of two. Wide ones would bloat it.
    serial = any(column.type is Serial for column in columns)
    return Table(name, metadata, *columns, sqlite_with_rowid=wide or serial, **more)


def counter(name: str, *columns: Column[Any]) -> Table:
    """A table of counters: ``n`` by the columns of its key."""
    return table(name, *columns, integer("n"))
