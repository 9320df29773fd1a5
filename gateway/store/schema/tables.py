"""All tables together: what a new database is made of.

Rule: a column exists because something asks for it or an operator will in SQL. Whatever is looked up in bulk is found
by a primary key or an index. A change needs a step in ``migrations``. Other modules import ``metadata`` from here,
because it is complete only when every module of tables is imported.
"""

from __future__ import annotations

from typing import Final

from gateway.store.schema import access_tables, count_tables, fleet_tables, row_tables
from gateway.store.schema.table_columns import integer, metadata, table

schema_version: Final = table("schema_version", integer("version", key=True))

__all__ = ["access_tables", "count_tables", "fleet_tables", "metadata", "row_tables", "schema_version"]
