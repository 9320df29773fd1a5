"""The store: the contents of the journal as tables, in one embedded file or in PostgreSQL.

Rule: only the controller opens it. Everything that must be true together is written in one transaction; the journal
keeps its lines until that transaction is safe on the disk.
"""

from gateway.store.counts.plans import LoggedEvent
from gateway.store.store import Store, StoreError, password_in, reason

__all__ = ["LoggedEvent", "Store", "StoreError", "password_in", "reason"]
