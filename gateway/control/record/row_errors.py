"""Which errors a row may be at fault for, and which are trouble of the store or of the machine.

Rule: after an error of a row the recorder looks for that row and sets it aside; after any other it waits, and skips
nothing.
"""

from __future__ import annotations

import sqlite3
from typing import Final

from sqlalchemy.exc import DBAPIError, SQLAlchemyError, StatementError

from gateway.store.fleet.lease import LeaseLost

#: SQLite's codes for what is wrong with a row: too big, a constraint, a type, a number of bounds.
_SQLITE_ROW: Final = frozenset({18, 19, 20, 25})
#: PostgreSQL's classes of errors that are the store's trouble, and pass or need an operator: connections,
#: authorisation, transactions, names that are not there, resources, locks, operators, the system, and itself.
_POSTGRESQL_TROUBLE: Final = frozenset(
    {"08", "0A", "25", "28", "2D", "3D", "3F", "40", "42", "53", "55", "57", "58", "F0", "HV", "XX"}
)


def is_of_a_row(error: Exception) -> bool:
    """Return whether a row may be at fault, and not the store, whose trouble passes or needs an operator.

    The class of the error does not decide: to PostgreSQL it is an operational error that an index cannot hold a text.
    A lost lease and exhausted memory say nothing about a row.
    """
    if isinstance(error, StatementError) and not isinstance(error, DBAPIError):
        return isinstance(error.orig, Exception) and is_of_a_row(error.orig)
    if isinstance(error, DBAPIError):
        if error.connection_invalidated:
            return False
        state = getattr(error.orig, "sqlstate", None)
        if state is not None:
            return str(state)[:2] not in _POSTGRESQL_TROUBLE
        code = getattr(error.orig, "sqlite_errorcode", None)
        if code is not None:
            return code & 0xFF in _SQLITE_ROW
        # The driver refused a value before it asked the database.
        return type(error.orig).__name__ in {"DataError", "OverflowError"}
    return not isinstance(error, SQLAlchemyError | OSError | sqlite3.Error | LeaseLost | MemoryError)
