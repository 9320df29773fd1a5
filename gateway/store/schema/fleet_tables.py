"""The tables of how far journals are read, and of the nodes that share one PostgreSQL.

A SQLite file has one node: ``lease``, ``nodes``, ``intake``, ``publications`` and ``assignment_keys`` are empty there.
Where ``offsets``, ``writers`` and ``journal_numbers`` name something of a node's journal, the node's name and "/" come
first.

Rule: that of ``tables``, for every column, index and change.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import Index

from gateway.store.schema.table_columns import binary, flag, integer, serial, string, table

#: How many bytes of each segment of the journal are recorded. ``segment`` is its folder and file name.
offsets: Final = table("offsets", string("segment", key=True), integer("offset"))

#: The last mark in each writer's journal; ``gone`` once the writer has ended and all its lines are recorded.
writers: Final = table("writers", string("writer", key=True), integer("mark_ms"), flag("bye"), flag("gone"))

#: Single numbers by name.
numbers: Final = table("numbers", string("name", key=True), integer("value"))

#: The number that the next line of the journal must have, by folder and writer.
journal_numbers: Final = table("journal_numbers", string("chain", key=True), integer("number"))

#: Which node joins, plans and acts, and until when by the database's clock. ``fencing`` grows with every holder;
#: ``backend`` is the server process that the holder is connected to.
lease: Final = table(
    "lease",
    string("name", key=True),
    string("holder"),
    integer("fencing"),
    integer("expires_ms"),
    integer("backend"),
)

#: Every node, and the number of its newest process (its life), which alone may write in its name; ``config`` and
#: ``revision`` are what it routes by.
nodes: Final = table(
    "nodes", string("node", key=True), integer("life"), string("config"), integer("revision"), integer("seen_ms")
)

#: Journal lines on their way from a node to the holder of the lease: ``n`` lines of one writer, of which the first
#: ``taken`` bytes are recorded.
intake: Final = table(
    "intake",
    serial("seq"),
    string("node"),
    string("writer"),
    integer("n"),
    integer("bytes"),
    integer("taken"),
    binary("lines"),
)
Index("intake_node", intake.c.node)

#: The plans of each numbered snapshot; the rest of a snapshot each node makes of its own file.
publications: Final = table(
    "publications",
    integer("revision", key=True),
    string("config"),
    string("node"),
    integer("at_ms"),
    string("body"),
)
Index("publications_config", publications.c.config, publications.c.revision)

#: The assignment keys of a fleet; the newest is in use (``gateway.control.agreement``).
assignment_keys: Final = table("assignment_keys", integer("number", key=True), string("secret"), integer("made_ms"))
