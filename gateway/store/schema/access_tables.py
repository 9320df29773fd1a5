"""The tables of who did what, and of who may.

Rule: that of ``tables``, for every column, index and change.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import Index

from gateway.store.schema.table_columns import integer, string, table

#: What people and the controller did: each entry's hash covers its content and the hash of the entry before.
audit: Final = table(
    "audit",
    integer("number", key=True),
    integer("at_ms"),
    string("who"),
    string("via"),
    string("act"),
    string("route", null=True),
    string("changed"),
    string("why", null=True),
    string("body"),
    string("hash"),
    wide=True,
)
Index("audit_act", audit.c.act, audit.c.number)

#: The number and the hash of the last entry of ``audit``: one row, which whoever appends locks first.
audit_head: Final = table("audit_head", string("name", key=True), integer("number"), string("hash"))

#: Named tokens, also those that are revoked; ``used_ms`` is the minute in which one was last used.
tokens: Final = table(
    "tokens",
    string("prefix", key=True),
    string("name"),
    string("scope"),
    string("sha256"),
    integer("made_ms"),
    string("made_by"),
    integer("expires_ms", null=True),
    integer("revoked_ms", null=True),
    integer("used_ms", null=True),
)
