"""The tables. Times are Unix milliseconds; JSON is text, written and read by us.

Rule: a column exists because something asks for it or an operator will in SQL. Whatever is looked up in bulk is found
by a primary key or one of the indexes here. A change here needs a step in ``migrations``.
"""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import (
    DDL,
    BigInteger,
    Boolean,
    Column,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    event,
    select,
    text,
)

metadata: Final = MetaData()

#: SQLite gives a row its own number only to a column that is exactly INTEGER.
_Serial = BigInteger().with_variant(Integer, "sqlite")


def _text(name: str, *, key: bool = False, null: bool = False) -> Column[Any]:
    return Column(name, Text, primary_key=key, nullable=null)


def _id(name: str, *, key: bool = False, null: bool = False) -> Column[Any]:
    """A prediction's id: ordered byte by byte everywhere, as Python orders it, and as they are made: by time."""
    return Column(name, Text().with_variant(Text(collation="C"), "postgresql"), primary_key=key, nullable=null)


def _integer(name: str, *, key: bool = False, null: bool = False) -> Column[Any]:
    return Column(name, BigInteger, primary_key=key, nullable=null, autoincrement=False)


def _number(name: str, *, null: bool = False) -> Column[Any]:
    return Column(name, Float, nullable=null)


def _flag(name: str) -> Column[Any]:
    return Column(name, Boolean, nullable=False)


def _table(name: str, *columns: Column[Any], wide: bool = False, **more: Any) -> Table:
    # Small rows live in the primary key's own tree: one tree to write instead of two. Wide ones would bloat it.
    serial = any(column.type is _Serial for column in columns)
    return Table(name, metadata, *columns, sqlite_with_rowid=wide or serial, **more)


#: What many calls have in common; ``id`` is a hash of the rest.
kin: Final = _table(
    "kin",
    _integer("id", key=True),
    _text("route"),
    _text("epoch"),
    _integer("period"),
    _integer("revision"),
    _text("variant"),
    _text("model"),
    _text("version"),
    _text("role"),
    _text("reason"),
    _number("propensity", null=True),
    _flag("by_unit"),
    _flag("forced"),
    _text("method"),
    _integer("status", null=True),
    _text("fault", null=True),
    _text("served", null=True),
)

#: One call of one request, as its journal line said. ``prediction`` is NULL where there was none, and JSON else; what
#: few calls have is in ``more``, as JSON. ``open_by`` is its writer until the end of its stream is known.
#: PostgreSQL has a partition for each day (``partitions``), and its keys must hold what rows are parted by.
calls: Final = _table(
    "calls",
    _id("id", key=True),
    _integer("kin", key=True),
    _text("route"),
    _integer("at_ms", key=True),
    _text("unit", null=True),
    _text("key", null=True),
    _number("latency_ms", null=True),
    _number("overhead_ms", null=True),
    _text("prediction", null=True),
    _text("more", null=True),
    _text("open_by", null=True),
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
feedback: Final = _table(
    "feedback",
    Column("seq", _Serial, primary_key=True),
    _text("identity"),
    _integer("revision"),
    _integer("received_ms"),
    _integer("occurred_ms", null=True),
    _integer("event_ms"),
    _text("metric"),
    _text("value"),
    _text("prediction_id", null=True),
    _text("route", null=True),
    _text("key", null=True),
    _text("item", null=True),
    _text("event_id", null=True),
    _id("target", null=True),
    _text("status"),
    _text("counted"),
    _integer("due_ms"),
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
definitions: Final = _table(
    "definitions",
    _text("route", key=True),
    _text("metric", key=True),
    _integer("since_ms", key=True),
    _text("hash"),
    _text("body", null=True),
    _integer("closed_until"),
)

epochs: Final = _table(
    "epochs",
    _text("route", key=True),
    _text("epoch", key=True),
    _integer("began_ms"),
    _text("body"),
)

#: No call of an epoch was made more than an hour later than this (``tallies``). A "#" before the epoch: what is counted
#: of it until then is being removed (``retention``).
newest_calls: Final = _table("newest_calls", _text("route", key=True), _text("epoch", key=True), _integer("at_ms"))

plans: Final = _table(
    "plans",
    _text("route", key=True),
    _integer("revision", key=True),
    _text("epoch"),
    _integer("period"),
    _integer("at_ms"),
    _text("plan"),
    _text("shares"),
)

#: The same for older plans of a route, many in a row: ``body`` has them, packed (``history``). The last was made at
#: ``until_ms``.
plan_packs: Final = _table(
    "plan_packs",
    _text("route", key=True),
    _integer("first", key=True),
    _integer("last"),
    _text("epoch"),
    _integer("period"),
    _integer("until_ms"),
    Column("body", LargeBinary, nullable=False),
    wide=True,
)
Index("plan_packs_until", plan_packs.c.until_ms)

tallies: Final = _table(
    "tallies",
    Column("id", _Serial, primary_key=True),
    _text("route"),
    _text("epoch"),
    _integer("period"),
    _text("variant"),
    _text("version"),
    _text("role"),
    _text("against"),
    _text("metric"),
    _text("definition"),
    _text("phase"),
    _integer("n"),
    _number("m"),
    _number("m2"),
    _number("d"),
    _number("d2"),
    _number("md"),
    _integer("positive"),
    _integer("negative"),
    _number("d_max"),
    _text("rest", null=True),
)
Index(
    "tallies_place",
    *(tallies.c.route, tallies.c.epoch, tallies.c.period, tallies.c.variant, tallies.c.version, tallies.c.role),
    *(tallies.c.against, tallies.c.metric, tallies.c.definition, tallies.c.phase),
    unique=True,
)

#: A unit's sum and count under one tally. Here and in ``tallies``, ``rest`` is what rounding left out of the sums.
units: Final = _table(
    "units",
    _integer("tally", key=True),
    _text("unit", key=True),
    _number("m"),
    _number("d"),
    _text("rest", null=True),
)

#: Each unit's first request of a period, by (at_ms, id).
arrivals: Final = _table(
    "arrivals",
    _text("route", key=True),
    _text("epoch", key=True),
    _integer("period", key=True),
    _text("unit", key=True),
    _integer("at_ms"),
    _text("id"),
    _integer("revision"),
    _text("variant"),
)


def _counter(name: str, *columns: Column[Any]) -> Table:
    return _table(name, *columns, _integer("n"))


stretches: Final = _counter(
    "stretches",
    _text("route", key=True),
    _text("epoch", key=True),
    _integer("period", key=True),
    _integer("revision", key=True),
    _text("variant", key=True),
)
#: What stretches have shown that are no rows any more (``sample_ratio.SampleRatioState``), as JSON.
courses: Final = _table("courses", _text("route", key=True), _text("epoch", key=True), _text("state"))
latency: Final = _counter(
    "latency",
    _text("route", key=True),
    _text("epoch", key=True),
    _text("variant", key=True),
    _text("role", key=True),
    _integer("bucket", key=True),
)
faults: Final = _counter(
    "faults",
    _text("route", key=True),
    _text("epoch", key=True),
    _text("variant", key=True),
    _text("role", key=True),
    _text("fault", key=True),
)
#: What may be wrong, how often and when it was seen (``Ledger.signs``). Of feedback epoch, variant and role are "".
signs: Final = _table(
    "signs",
    _text("route", key=True),
    _text("epoch", key=True),
    _text("variant", key=True),
    _text("role", key=True),
    _text("word", key=True),
    _integer("n"),
    _integer("first_ms"),
    _integer("last_ms"),
    _text("detail"),
)
forced: Final = _counter("forced", _text("route", key=True), _text("epoch", key=True))
feedback_counts: Final = _counter(
    "feedback_counts", _text("route", key=True), _text("metric", key=True), _text("status", key=True)
)
#: How often what is counted of a route changed: what was made of it before holds while this number does.
moved: Final = _counter("moved", _text("route", key=True))
#: What the recorder met: duplicate rows; corrupt, torn and lost lines.
counts: Final = _counter("counts", _text("name", key=True))

#: How far each segment of the journal is drained. ``segment`` is its folder and file name.
offsets: Final = _table("offsets", _text("segment", key=True), _integer("offset"))

#: Each writer's last mark; ``gone`` once it is dead and drained.
writers: Final = _table("writers", _text("writer", key=True), _integer("mark_ms"), _flag("bye"), _flag("gone"))

#: Single numbers by name.
numbers: Final = _table("numbers", _text("name", key=True), _integer("value"))

#: What happened, for people; ``more`` is JSON: who did it, to which file, and what that changed.
events: Final = _table(
    "events",
    Column("seq", _Serial, primary_key=True),
    _integer("at_ms"),
    _text("kind"),
    _text("route", null=True),
    _text("detail"),
    _text("more", null=True),
)

#: What was captured of a request and of its answer, as JSON: the fields that the route allows.
bodies: Final = _table(
    "bodies",
    _id("id", key=True),
    _integer("at_ms"),
    _text("route"),
    _text("request", null=True),
    _text("answer", null=True),
    wide=True,
)

#: The keys of a fleet, by which units are assigned; the newest is in use (``gateway.control.agreement``).
assignment_keys: Final = _table("assignment_keys", _integer("number", key=True), _text("secret"), _integer("made_ms"))

schema_version: Final = _table("schema_version", _integer("version", key=True))

#: What could not be recorded or joined (``aside``).
set_aside: Final = _table(
    "set_aside",
    Column("seq", _Serial, primary_key=True),
    _integer("at_ms"),
    _text("kind"),
    _text("identity"),
    _text("prediction", null=True),
    _text("why"),
)

# The fleet: several nodes on one PostgreSQL (``gateway.control.membership``). With SQLite these are empty.
# Where ``offsets`` and ``writers`` name something of a node's journal, the node's name and "/" come first.

#: Who joins, plans and acts, until when by the database's clock. ``fencing`` grows with every holder;
#: ``backend`` is the server's process that it speaks to.
lease: Final = _table(
    "lease",
    _text("name", key=True),
    _text("holder"),
    _integer("fencing"),
    _integer("expires_ms"),
    _integer("backend"),
)

#: Every node, and which of its lives may write in its name; ``config`` and ``revision`` are what it routes by.
nodes: Final = _table(
    "nodes", _text("node", key=True), _integer("life"), _text("config"), _integer("revision"), _integer("seen_ms")
)

#: Journal lines on their way from a node to whoever holds the lease: ``n`` lines of one writer, the first
#: ``taken`` bytes of them recorded.
intake: Final = _table(
    "intake",
    Column("seq", _Serial, primary_key=True),
    _text("node"),
    _text("writer"),
    _integer("n"),
    _integer("bytes"),
    _integer("taken"),
    Column("lines", LargeBinary, nullable=False),
)
Index("intake_node", intake.c.node)

#: Numbered snapshots, as far as they differ between configurations that are the same: their plans.
publications: Final = _table(
    "publications",
    _integer("revision", key=True),
    _text("config"),
    _text("node"),
    _integer("at_ms"),
    _text("body"),
)
Index("publications_config", publications.c.config, publications.c.revision)

# The journal's lines are numbered: which number comes next, by folder and writer.
journal_numbers: Final = _table("journal_numbers", _text("chain", key=True), _integer("number"))

# Events out: what sinks are still to be told (``gateway.sinks``).

#: ``n`` events that wait for a sink, as JSON Lines; the least ``seq`` of a sink is sent first. A number is never given
#: twice: what is sent is deleted by it, whatever was erased meanwhile.
outbox: Final = _table(
    "outbox",
    Column("seq", _Serial, primary_key=True),
    _text("sink"),
    _integer("at_ms"),
    _integer("n"),
    _integer("bytes"),
    Column("events", LargeBinary, nullable=False),
    sqlite_autoincrement=True,
)
Index("outbox_sink", outbox.c.sink, outbox.c.seq)

#: What became of a sink's events: how many were made, and of those delivered, refused, dropped, erased and pending.
sink_counts: Final = _counter("sink_counts", _text("sink", key=True), _text("result", key=True))

# The join: what feedback is about, where that is more than one prediction.

#: Further predictions that an event by key is about, where the route's rule is "all"; ``feedback.target`` is the first.
feedback_targets: Final = _table("feedback_targets", _id("target", key=True), _integer("seq", key=True))
Index("feedback_targets_seq", feedback_targets.c.seq)
