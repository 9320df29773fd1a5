"""The tables. Times are Unix milliseconds; JSON is text, written and read by us.

Rule: a column exists because something asks for it or an operator will in SQL. Whatever is looked up in bulk is found
by a primary key or one of the indexes here. A change here needs a step in ``migrations``.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    DDL,
    Column,
    Index,
    LargeBinary,
    event,
    select,
    text,
)

from gateway.store.schema.columns import Serial, counter, flag, integer, metadata, number, prediction_id, string, table

#: What many calls have in common; ``id`` is a hash of the rest.
kin: Final = table(
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

#: One call of one request, as its journal line said. ``prediction`` is NULL where there was none, and JSON else; what
#: few calls have is in ``more``, as JSON. ``open_by`` is its writer until the end of its stream is known.
#: PostgreSQL has a partition for each day (``partitions``), and its keys must hold what rows are parted by.
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

#: The same for people, who ask in SQL: each call with all its fields.
PREDICTIONS: Final = select(
    *(calls.c.id, calls.c.at_ms, *(column for column in kin.c if column.name != "id"), calls.c.unit, calls.c.key),
    *(calls.c.latency_ms, calls.c.overhead_ms, calls.c.prediction, calls.c.more),
    _OPEN.label("open"),
).join_from(calls, kin, kin.c.id == calls.c.kin)
_VIEW: Final = DDL(f"CREATE VIEW predictions AS {PREDICTIONS}")  # type: ignore[no-untyped-call]
event.listen(metadata, "after_create", _VIEW)

#: One event. ``target`` is the prediction it is about, once known; ``counted`` the route it is counted under;
#: ``due_ms`` the watermark at which a waiting one must be looked at again.
feedback: Final = table(
    "feedback",
    Column("seq", Serial, primary_key=True),
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
#: By event id or key. Any other identity is of one prediction, and its events are found by that: a random place less to
#: write for each.
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

#: Events that count nowhere, by when they came.
ORPHANED: Final = text("status = 'orphaned'")
REPEATED: Final = text("status = 'repeated'")
Index("feedback_orphaned", feedback.c.seq, sqlite_where=ORPHANED, postgresql_where=ORPHANED)
Index("feedback_repeated", feedback.c.seq, sqlite_where=REPEATED, postgresql_where=REPEATED)

#: What a metric meant on a route for predictions since ``since_ms``; ``body`` NULL: nothing any more.
#: Of those, the ones made before ``closed_until`` have their windows closed.
definitions: Final = table(
    "definitions",
    string("route", key=True),
    string("metric", key=True),
    integer("since_ms", key=True),
    string("hash"),
    string("body", null=True),
    integer("closed_until"),
)

epochs: Final = table(
    "epochs",
    string("route", key=True),
    string("epoch", key=True),
    integer("began_ms"),
    string("body"),
)

#: No call of an epoch was made more than an hour later than this (``tallies``). A "#" before the epoch: what is counted
#: of it until then is being removed (``retention``).
newest_calls: Final = table("newest_calls", string("route", key=True), string("epoch", key=True), integer("at_ms"))

plans: Final = table(
    "plans",
    string("route", key=True),
    integer("revision", key=True),
    string("epoch"),
    integer("period"),
    integer("at_ms"),
    string("plan"),
    string("shares"),
)

#: The same for older plans of a route, many in a row: ``body`` has them, packed (``history``). The last was made at
#: ``until_ms``.
plan_packs: Final = table(
    "plan_packs",
    string("route", key=True),
    integer("first", key=True),
    integer("last"),
    string("epoch"),
    integer("period"),
    integer("until_ms"),
    Column("body", LargeBinary, nullable=False),
    wide=True,
)
Index("plan_packs_until", plan_packs.c.until_ms)

tallies: Final = table(
    "tallies",
    Column("id", Serial, primary_key=True),
    string("route"),
    string("epoch"),
    integer("period"),
    string("variant"),
    string("version"),
    string("role"),
    string("against"),
    string("metric"),
    string("definition"),
    string("phase"),
    integer("n"),
    number("m"),
    number("m2"),
    number("d"),
    number("d2"),
    number("md"),
    integer("positive"),
    integer("negative"),
    number("d_max"),
    string("rest", null=True),
)
Index(
    "tallies_place",
    *(tallies.c.route, tallies.c.epoch, tallies.c.period, tallies.c.variant, tallies.c.version, tallies.c.role),
    *(tallies.c.against, tallies.c.metric, tallies.c.definition, tallies.c.phase),
    unique=True,
)

#: A unit's sum and count under one tally. Here and in ``tallies``, ``rest`` is what rounding left out of the sums.
units: Final = table(
    "units",
    integer("tally", key=True),
    string("unit", key=True),
    number("m"),
    number("d"),
    string("rest", null=True),
)

#: Each unit's first request of a period, by (at_ms, id).
arrivals: Final = table(
    "arrivals",
    string("route", key=True),
    string("epoch", key=True),
    integer("period", key=True),
    string("unit", key=True),
    integer("at_ms"),
    string("id"),
    integer("revision"),
    string("variant"),
)

stretches: Final = counter(
    "stretches",
    string("route", key=True),
    string("epoch", key=True),
    integer("period", key=True),
    integer("revision", key=True),
    string("variant", key=True),
)
#: What stretches have shown that are no rows any more (``sample_ratio.SampleRatioState``), as JSON.
courses: Final = table("courses", string("route", key=True), string("epoch", key=True), string("state"))
latency: Final = counter(
    "latency",
    string("route", key=True),
    string("epoch", key=True),
    string("variant", key=True),
    string("role", key=True),
    integer("bucket", key=True),
)
faults: Final = counter(
    "faults",
    string("route", key=True),
    string("epoch", key=True),
    string("variant", key=True),
    string("role", key=True),
    string("fault", key=True),
)
#: What may be wrong, how often and when it was seen (``Ledger.signs``). Of feedback epoch, variant and role are "".
signs: Final = table(
    "signs",
    string("route", key=True),
    string("epoch", key=True),
    string("variant", key=True),
    string("role", key=True),
    string("word", key=True),
    integer("n"),
    integer("first_ms"),
    integer("last_ms"),
    string("detail"),
)
forced: Final = counter("forced", string("route", key=True), string("epoch", key=True))
feedback_counts: Final = counter(
    "feedback_counts", string("route", key=True), string("metric", key=True), string("status", key=True)
)
#: How often what is counted of a route changed: what was made of it before holds while this number does.
moved: Final = counter("moved", string("route", key=True))
#: What the recorder met: duplicate rows; corrupt, torn and lost lines.
counts: Final = counter("counts", string("name", key=True))

#: How far each segment of the journal is drained. ``segment`` is its folder and file name.
offsets: Final = table("offsets", string("segment", key=True), integer("offset"))

#: Each writer's last mark; ``gone`` once it is dead and drained.
writers: Final = table("writers", string("writer", key=True), integer("mark_ms"), flag("bye"), flag("gone"))

#: Single numbers by name.
numbers: Final = table("numbers", string("name", key=True), integer("value"))

#: What happened, for people; ``more`` is JSON: who did it, to which file, and what that changed.
events: Final = table(
    "events",
    Column("seq", Serial, primary_key=True),
    integer("at_ms"),
    string("kind"),
    string("route", null=True),
    string("detail"),
    string("more", null=True),
)

#: What was captured of a request and of its answer, as JSON: the fields that the route allows.
bodies: Final = table(
    "bodies",
    prediction_id("id", key=True),
    integer("at_ms"),
    string("route"),
    string("request", null=True),
    string("answer", null=True),
    wide=True,
)

#: The keys of a fleet, by which units are assigned; the newest is in use (``gateway.control.agreement``).
assignment_keys: Final = table("assignment_keys", integer("number", key=True), string("secret"), integer("made_ms"))

schema_version: Final = table("schema_version", integer("version", key=True))

#: What could not be recorded or joined (``aside``).
set_aside: Final = table(
    "set_aside",
    Column("seq", Serial, primary_key=True),
    integer("at_ms"),
    string("kind"),
    string("identity"),
    string("prediction", null=True),
    string("why"),
)

# The fleet: several nodes on one PostgreSQL (``gateway.control.membership``). With SQLite these are empty.
# Where ``offsets`` and ``writers`` name something of a node's journal, the node's name and "/" come first.

#: Who joins, plans and acts, until when by the database's clock. ``fencing`` grows with every holder;
#: ``backend`` is the server's process that it speaks to.
lease: Final = table(
    "lease",
    string("name", key=True),
    string("holder"),
    integer("fencing"),
    integer("expires_ms"),
    integer("backend"),
)

#: Every node, and which of its lives may write in its name; ``config`` and ``revision`` are what it routes by.
nodes: Final = table(
    "nodes", string("node", key=True), integer("life"), string("config"), integer("revision"), integer("seen_ms")
)

#: Journal lines on their way from a node to whoever holds the lease: ``n`` lines of one writer, the first
#: ``taken`` bytes of them recorded.
intake: Final = table(
    "intake",
    Column("seq", Serial, primary_key=True),
    string("node"),
    string("writer"),
    integer("n"),
    integer("bytes"),
    integer("taken"),
    Column("lines", LargeBinary, nullable=False),
)
Index("intake_node", intake.c.node)

#: Numbered snapshots, as far as they differ between configurations that are the same: their plans.
publications: Final = table(
    "publications",
    integer("revision", key=True),
    string("config"),
    string("node"),
    integer("at_ms"),
    string("body"),
)
Index("publications_config", publications.c.config, publications.c.revision)

# The journal's lines are numbered: which number comes next, by folder and writer.
journal_numbers: Final = table("journal_numbers", string("chain", key=True), integer("number"))

# Events out: what sinks are still to be told (``gateway.sinks``).

#: ``n`` events that wait for a sink, as JSON Lines; the least ``seq`` of a sink is sent first. A number is never given
#: twice: what is sent is deleted by it, whatever was erased meanwhile.
outbox: Final = table(
    "outbox",
    Column("seq", Serial, primary_key=True),
    string("sink"),
    integer("at_ms"),
    integer("n"),
    integer("bytes"),
    Column("events", LargeBinary, nullable=False),
    sqlite_autoincrement=True,
)
Index("outbox_sink", outbox.c.sink, outbox.c.seq)

#: What became of a sink's events: how many were made, and of those delivered, refused, dropped, erased and pending.
sink_counts: Final = counter("sink_counts", string("sink", key=True), string("result", key=True))

# The join: what feedback is about, where that is more than one prediction.

#: Further predictions that an event by key is about, where the route's rule is "all"; ``feedback.target`` is the first.
feedback_targets: Final = table("feedback_targets", prediction_id("target", key=True), integer("seq", key=True))
Index("feedback_targets_seq", feedback_targets.c.seq)
