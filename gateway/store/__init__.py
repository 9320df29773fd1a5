"""The store: what the journal said, as tables; one embedded file, or PostgreSQL.

Rule: opened by the controller alone, over one connection. Everything that must be true together is written in one
transaction; the journal stays the record until that transaction is safe on the disk.
"""

from gateway.store.counts.plans import LoggedEvent
from gateway.store.store import Store, StoreError, password_in, reason

__all__ = ["LoggedEvent", "Store", "StoreError", "password_in", "reason"]
