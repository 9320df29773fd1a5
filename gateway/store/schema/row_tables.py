"""The tables of rows: calls, feedback, captured bodies, and events that wait for sinks.

Rule: that of ``tables``, for every column, index and change.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import DDL, Index, event, select, text

from gateway.store.schema.table_columns import (
    binary,
    counter,
    flag,
    integer,
    metadata,
    number,
    prediction_id,
    serial,
    string,
    table,
)

#: The values that many calls share (``rows/shared_fields``); ``id`` is a hash of the other columns. In the database the
#: table, and the column by which a call refers to it, are named kin.
shared_values: Final = table(
    "kin",
    integer("id", key=True),
    string("route"),
    string("epoch"),
    integer("period"),
    integer("revision"),
    string("variant"),
    string("model"),
    string("version"),
    string("role"),
    string("reason"),
    number("propensity", null=True),
    flag("by_unit"),
    flag("forced"),
    string("method"),
    integer("status", null=True),
    string("fault", null=True),
    string("served", null=True),
)

#: One call of one request, as its journal line said. ``prediction`` is JSON, or NULL where there was none; fields that
#: few calls have are in ``more``, as JSON. ``open_by`` is its writer until the end of its stream is known.
#: PostgreSQL has a partition for each day (``partitions``), and there a primary key must contain ``at_ms``.
calls: Final = table(
    "calls",
    prediction_id("id", key=True),
    integer("kin", key=True),
    string("route"),
    integer("at_ms", key=True),
    string("unit", null=True),
    string("key", null=True),
    number("latency_ms", null=True),
    number("overhead_ms", null=True),
    string("prediction", null=True),
    string("more", null=True),
    string("open_by", null=True),
    wide=True,
    postgresql_partition_by="RANGE (at_ms)",
)
Index("calls_at", calls.c.route, calls.c.at_ms)
_KEYED = calls.c.key.is_not(None)
Index(
    "calls_key",
    *(calls.c.route, calls.c.key, calls.c.at_ms),
    sqlite_where=_KEYED,
    postgresql_where=_KEYED,
)
_OPEN = calls.c.open_by.is_not(None)
Index("calls_open", calls.c.open_by, sqlite_where=_OPEN, postgresql_where=_OPEN)

#: A view for operators who query in SQL: each call with all its fields.
PREDICTIONS: Final = select(
    *(
        calls.c.id,
        calls.c.at_ms,
        *(column for column in shared_values.c if column.name != "id"),
        calls.c.unit,
        calls.c.key,
    ),
    *(calls.c.latency_ms, calls.c.overhead_ms, calls.c.prediction, calls.c.more),
    _OPEN.label("open"),
).join_from(calls, shared_values, shared_values.c.id == calls.c.kin)
_VIEW: Final = DDL(f"CREATE VIEW predictions AS {PREDICTIONS}")  # type: ignore[no-untyped-call]
event.listen(metadata, "after_create", _VIEW)

#: One feedback event. ``target`` is the prediction it is about, once known; ``counted`` the route it is counted under;
#: ``due_ms`` the watermark at which a waiting event must be examined again.
feedback: Final = table(
    "feedback",
    serial("seq"),
    string("identity"),
    integer("revision"),
    integer("received_ms"),
    integer("occurred_ms", null=True),
    integer("event_ms"),
    string("metric"),
    string("value"),
    string("prediction_id", null=True),
    string("route", null=True),
    string("key", null=True),
    string("item", null=True),
    string("event_id", null=True),
    prediction_id("target", null=True),
    string("status"),
    string("counted"),
    integer("due_ms"),
)
#: Events with an id or a key. Other events are found by their prediction, so they need no entry in the index of
#: identities: that saves one write at a random place for each.
NAMED: Final = text("(event_id IS NOT NULL OR key IS NOT NULL)")
Index("feedback_identity", feedback.c.identity, sqlite_where=NAMED, postgresql_where=NAMED)
Index("feedback_target", feedback.c.target)
_BY_KEY = feedback.c.key.is_not(None)
Index(
    "feedback_key",
    *(feedback.c.route, feedback.c.key, feedback.c.event_ms),
    sqlite_where=_BY_KEY,
    postgresql_where=_BY_KEY,
)
_WAITING = text("status = 'waiting'")
Index("feedback_due", feedback.c.due_ms, sqlite_where=_WAITING, postgresql_where=_WAITING)

#: Events that count nowhere, in the order in which they arrived.
ORPHANED: Final = text("status = 'orphaned'")
REPEATED: Final = text("status = 'repeated'")
Index("feedback_orphaned", feedback.c.seq, sqlite_where=ORPHANED, postgresql_where=ORPHANED)
Index("feedback_repeated", feedback.c.seq, sqlite_where=REPEATED, postgresql_where=REPEATED)

#: Further predictions that an event by key is about, where the route's rule is "all"; ``feedback.target`` is the first.
feedback_targets: Final = table("feedback_targets", prediction_id("target", key=True), integer("seq", key=True))
Index("feedback_targets_seq", feedback_targets.c.seq)

#: What was captured of a request and of its answer, as JSON: the fields that the route allows to be captured.
bodies: Final = table(
    "bodies",
    prediction_id("id", key=True),
    integer("at_ms"),
    string("route"),
    string("request", null=True),
    string("answer", null=True),
    wide=True,
)

#: What could not be recorded or joined (``rows/set_aside_items``).
set_aside: Final = table(
    "set_aside",
    serial("seq"),
    integer("at_ms"),
    string("kind"),
    string("identity"),
    string("prediction", null=True),
    string("why"),
)

#: ``n`` events that wait for a sink, as JSON Lines; the least ``seq`` of a sink is sent first. A number is never given
#: twice: what is sent is deleted by it, whatever was erased meanwhile.
outbox: Final = table(
    "outbox",
    serial("seq"),
    string("sink"),
    integer("at_ms"),
    integer("n"),
    integer("bytes"),
    binary("events"),
    integer("tries", begins=0),
    integer("tried_ms", null=True),
    integer("due_ms", begins=0),
    sqlite_autoincrement=True,
)
Index("outbox_sink", outbox.c.sink, outbox.c.seq)
Index("outbox_due", outbox.c.sink, outbox.c.due_ms, outbox.c.seq)

#: The last tries to deliver events of webhooks: what was answered (``status`` NULL: nothing), or why it failed.
deliveries: Final = table(
    "deliveries",
    serial("seq"),
    string("sink"),
    integer("at_ms"),
    string("event"),
    integer("status", null=True),
    integer("took_ms"),
    string("why", null=True),
)
Index("deliveries_sink", deliveries.c.sink, deliveries.c.seq)

#: Events of webhooks that could not be delivered, and are not tried any more.
dead_letters: Final = table(
    "dead_letters",
    serial("seq"),
    string("sink"),
    integer("made_ms"),
    integer("died_ms"),
    integer("tries"),
    string("why"),
    string("event"),
    binary("content"),
)
Index("dead_letters_sink", dead_letters.c.sink, dead_letters.c.seq)

#: Webhooks whose receiver wants no events any more. ``target`` is a hash of the url that was asked.
disabled_sinks: Final = table(
    "disabled_sinks", string("sink", key=True), string("target"), integer("at_ms"), string("why")
)

#: What became of a sink's events: how many were made, and of those delivered, refused, dropped, erased, dead, pending.
sink_counts: Final = counter("sink_counts", string("sink", key=True), string("result", key=True))
