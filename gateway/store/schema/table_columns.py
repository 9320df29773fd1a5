"""How tables and their columns are written down: one short form for each type of column.

Rule: nothing here names a table. Times are Unix milliseconds; JSON is text, written and read by us.
"""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import BigInteger, Boolean, Column, Float, Integer, LargeBinary, MetaData, Table, Text, text

#: What every table is part of; ``tables`` has it with all of them.
metadata: Final = MetaData()

#: SQLite gives a row its own number only to a column that is exactly INTEGER.
_SERIAL: Final = BigInteger().with_variant(Integer, "sqlite")


def string(name: str, *, key: bool = False, null: bool = False) -> Column[Any]:
    return Column(name, Text, primary_key=key, nullable=null)


def prediction_id(name: str, *, key: bool = False, null: bool = False) -> Column[Any]:
    """A prediction's id: everywhere ordered byte by byte, as Python orders it; so ids sort by time."""
    return Column(name, Text().with_variant(Text(collation="C"), "postgresql"), primary_key=key, nullable=null)


def integer(name: str, *, key: bool = False, null: bool = False, begins: int | None = None) -> Column[Any]:
    """A whole number. ``begins`` is what it is in rows of a program that does not know the column."""
    default = None if begins is None else text(str(begins))
    return Column(name, BigInteger, primary_key=key, nullable=null, autoincrement=False, server_default=default)


def serial(name: str) -> Column[Any]:
    """A primary key that the database numbers."""
    return Column(name, _SERIAL, primary_key=True)


def number(name: str, *, null: bool = False, begins: int | None = None) -> Column[Any]:
    """A float; ``begins`` as of ``integer``."""
    return Column(name, Float, nullable=null, server_default=None if begins is None else text(str(begins)))


def flag(name: str) -> Column[Any]:
    return Column(name, Boolean, nullable=False)


def binary(name: str) -> Column[Any]:
    return Column(name, LargeBinary, nullable=False)


def table(name: str, *columns: Column[Any], wide: bool = False, **more: Any) -> Table:
    # Small rows live in the primary key's own tree: one tree to write instead of two. Wide ones would bloat it.
    numbered = any(column.type is _SERIAL for column in columns)
    return Table(name, metadata, *columns, sqlite_with_rowid=wide or numbered, **more)


def counter(name: str, *columns: Column[Any]) -> Table:
    """A table of counts ``n``, by the columns that are its primary key."""
    return table(name, *columns, integer("n"))
