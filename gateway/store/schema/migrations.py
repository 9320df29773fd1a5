"""Bring a database to the schema version that this program uses.

Rule: a new database gets the current tables at once; an older one is brought up by the numbered steps, all in one
transaction; a newer one is refused, because what a newer program meant cannot be guessed. However many programs start
at the same moment, one after the other does it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from sqlalchemy import inspect, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.store.schema.tables import metadata, schema_version

VERSION: Final = 21


class Step(NamedTuple):
    """What makes a version of the one before it: the statements for each kind of database."""

    what: str
    sqlite: Sequence[str]
    postgresql: Sequence[str]


_SUMS_ARE_EXACT: Final = ("ALTER TABLE tallies ADD COLUMN rest TEXT", "ALTER TABLE units ADD COLUMN rest TEXT")
_ASSIGNMENT_KEYS: Final = """CREATE TABLE assignment_keys (
    number BIGINT NOT NULL, secret TEXT NOT NULL, made_ms BIGINT NOT NULL, PRIMARY KEY (number))"""
_SIGNS: Final = """CREATE TABLE signs (
    route TEXT NOT NULL, epoch TEXT NOT NULL, variant TEXT NOT NULL, role TEXT NOT NULL, word TEXT NOT NULL,
    n BIGINT NOT NULL, first_ms BIGINT NOT NULL, last_ms BIGINT NOT NULL, detail TEXT NOT NULL,
    PRIMARY KEY (route, epoch, variant, role, word))"""
_SET_ASIDE: Final = """CREATE TABLE set_aside (
    seq {serial}, at_ms BIGINT NOT NULL, kind TEXT NOT NULL, identity TEXT NOT NULL,
    prediction TEXT, why TEXT NOT NULL)"""
_PACKS: Final = """CREATE TABLE plan_packs (
    route TEXT NOT NULL, first BIGINT NOT NULL, last BIGINT NOT NULL, epoch TEXT NOT NULL, period BIGINT NOT NULL,
    until_ms BIGINT NOT NULL"""
_PACKS_UNTIL: Final = "CREATE INDEX plan_packs_until ON plan_packs (until_ms)"
_COURSES: Final = """CREATE TABLE courses (
    route TEXT NOT NULL, epoch TEXT NOT NULL, state TEXT NOT NULL, PRIMARY KEY (route, epoch))"""
_REPEATED: Final = "CREATE INDEX feedback_repeated ON feedback (seq) WHERE status = 'repeated'"
_MOMENTS: Final = (
    *(f"ALTER TABLE tallies ADD COLUMN {name} FLOAT NOT NULL DEFAULT 0" for name in ("m3", "m2d", "md2", "d3")),
    'ALTER TABLE tallies ADD COLUMN "distinct" BIGINT NOT NULL DEFAULT 0',
    'UPDATE tallies SET "distinct" = n',
)
#: What stretches had before is not kept by revision: which calls that concerns is known by their time.
_STRETCHES: Final = (
    "ALTER TABLE tallies ADD COLUMN revision BIGINT NOT NULL DEFAULT 0",
    "DROP INDEX tallies_place",
    """CREATE UNIQUE INDEX tallies_stretch ON tallies
        (route, epoch, revision, period, variant, version, role, against, metric, definition, phase)""",
    """INSERT INTO numbers (name, value) SELECT 'finer_since_ms', coalesce(max(newest), -1) + 1 FROM (
        SELECT (SELECT max(calls.at_ms) FROM calls WHERE calls.route = known.route) AS newest
        FROM (SELECT DISTINCT route FROM newest_calls) AS known) AS by_route""",
)
_BUCKETS: Final = "CREATE TABLE buckets (tally BIGINT NOT NULL, body TEXT NOT NULL, PRIMARY KEY (tally))"
#: Counts each unit in the first period in which it has values (``units/distinct``), where that takes seconds at most.
COUNT_ONCE: Final = """UPDATE tallies SET "distinct" = n - (
    SELECT count(*) FROM units AS mine WHERE mine.tally = tallies.id AND mine.d <> 0 AND EXISTS (
        SELECT 1 FROM tallies AS other JOIN units AS theirs ON theirs.tally = other.id
        WHERE other.route = tallies.route AND other.epoch = tallies.epoch AND other.revision = tallies.revision
        AND other.period < tallies.period AND other.variant = tallies.variant AND other.version = tallies.version
        AND other.role = tallies.role AND other.against = tallies.against AND other.metric = tallies.metric
        AND other.definition = tallies.definition AND other.phase = tallies.phase
        AND theirs.unit = mine.unit AND theirs.d <> 0))
    WHERE revision = 0 AND n <> 0 AND phase IN ('live', 'mature') AND EXISTS (
        SELECT 1 FROM tallies AS earlier
        WHERE earlier.route = tallies.route AND earlier.epoch = tallies.epoch AND earlier.revision = tallies.revision
        AND earlier.period < tallies.period AND earlier.variant = tallies.variant AND earlier.metric = tallies.metric)
    AND (SELECT sum(n) FROM tallies WHERE phase IN ('live', 'mature')) <= 1000000"""
#: A unit arrived once in each period, and now in an epoch: the first of its arrivals stays. What packed stretches have
#: shown of it cannot be taken back, so there the check begins anew.
_NEWCOMERS: Final = (
    """CREATE TABLE later_arrivals AS SELECT route, epoch, period, unit, revision, variant FROM (
        SELECT *, row_number() OVER (PARTITION BY route, epoch, unit ORDER BY at_ms, id, period) AS place
        FROM arrivals) AS ranked WHERE place > 1""",
    """UPDATE stretches SET n = stretches.n - later.n FROM (
        SELECT route, epoch, period, revision, variant, count(*) AS n FROM later_arrivals
        GROUP BY route, epoch, period, revision, variant) AS later
        WHERE stretches.route = later.route AND stretches.epoch = later.epoch AND stretches.period = later.period
        AND stretches.revision = later.revision AND stretches.variant = later.variant""",
    "DELETE FROM courses WHERE (route, epoch) IN (SELECT route, epoch FROM later_arrivals)",
    """DELETE FROM arrivals WHERE (route, epoch, period, unit) IN (
        SELECT route, epoch, period, unit FROM later_arrivals)""",
    "DROP TABLE later_arrivals",
    "ALTER TABLE arrivals ADD COLUMN in_period BIGINT",
    "UPDATE arrivals SET in_period = period, period = 0",
)
_ASSIGNMENTS: Final = """CREATE TABLE assignments (
    route TEXT NOT NULL, epoch TEXT NOT NULL, since BIGINT NOT NULL, PRIMARY KEY (route, epoch, since))"""
_HOURS: Final = """CREATE TABLE hours (
    route TEXT NOT NULL, epoch TEXT NOT NULL, metric TEXT NOT NULL, definition TEXT NOT NULL, hour_ms BIGINT NOT NULL,
    variant TEXT NOT NULL, version TEXT NOT NULL, role TEXT NOT NULL, d FLOAT NOT NULL, m FLOAT NOT NULL, rest TEXT,
    PRIMARY KEY (route, epoch, metric, definition, hour_ms, variant, version, role))"""
_MORE: Final = "ALTER TABLE events ADD COLUMN more TEXT"
_VERDICTS: Final = """CREATE TABLE verdicts (
    route TEXT NOT NULL, epoch TEXT NOT NULL, variant TEXT NOT NULL, status TEXT NOT NULL, at_ms BIGINT NOT NULL,
    PRIMARY KEY (route, epoch, variant))"""
_LOOKS: Final = """CREATE TABLE looks (
    route TEXT NOT NULL, epoch TEXT NOT NULL, metric TEXT NOT NULL, definition TEXT NOT NULL, variant TEXT NOT NULL,
    version TEXT NOT NULL, number BIGINT NOT NULL, at_ms BIGINT NOT NULL, fraction {float} NOT NULL,
    z {float} NOT NULL, boundary {float} NOT NULL, decided BIGINT NOT NULL,
    PRIMARY KEY (route, epoch, metric, definition, variant, version, number))"""

_INFORMATION: Final = (
    "ALTER TABLE looks ADD COLUMN information FLOAT NOT NULL DEFAULT 0",
    "ALTER TABLE looks ADD COLUMN beside TEXT",
)
_DECLARATIONS: Final = """CREATE TABLE declarations (
    route TEXT NOT NULL, epoch TEXT NOT NULL, at_ms BIGINT NOT NULL, body TEXT NOT NULL, late BIGINT NOT NULL,
    PRIMARY KEY (route, epoch, at_ms))"""

_AUDIT: Final = (
    """CREATE TABLE audit (
    number BIGINT NOT NULL, at_ms BIGINT NOT NULL, who TEXT NOT NULL, via TEXT NOT NULL, act TEXT NOT NULL, route TEXT,
    changed TEXT NOT NULL, why TEXT, body TEXT NOT NULL, hash TEXT NOT NULL, PRIMARY KEY (number))""",
    "CREATE INDEX audit_act ON audit (act, number)",
)
_AUDIT_HEAD: Final = """CREATE TABLE audit_head (
    name TEXT NOT NULL, number BIGINT NOT NULL, hash TEXT NOT NULL, PRIMARY KEY (name))"""
_STANDINGS: Final = """CREATE TABLE standings (
    kind TEXT NOT NULL, name TEXT NOT NULL, body TEXT NOT NULL, at_ms BIGINT NOT NULL, PRIMARY KEY (kind, name))"""
_DEAD_LETTERS: Final = """CREATE TABLE dead_letters (
    seq {serial}, sink TEXT NOT NULL, made_ms BIGINT NOT NULL, died_ms BIGINT NOT NULL, tries BIGINT NOT NULL,
    why TEXT NOT NULL, event TEXT NOT NULL, content {binary} NOT NULL)"""
_DELIVERIES: Final = """CREATE TABLE deliveries (
    seq {serial}, sink TEXT NOT NULL, at_ms BIGINT NOT NULL, event TEXT NOT NULL, status BIGINT,
    took_ms BIGINT NOT NULL, why TEXT)"""
_DISABLED: Final = """CREATE TABLE disabled_sinks (
    sink TEXT NOT NULL, target TEXT NOT NULL, at_ms BIGINT NOT NULL, why TEXT NOT NULL, PRIMARY KEY (sink))"""
_TRIES: Final = (
    "ALTER TABLE outbox ADD COLUMN tries BIGINT NOT NULL DEFAULT 0",
    "ALTER TABLE outbox ADD COLUMN tried_ms BIGINT",
    "ALTER TABLE outbox ADD COLUMN due_ms BIGINT NOT NULL DEFAULT 0",
    "CREATE INDEX outbox_due ON outbox (sink, due_ms, seq)",
)
_WEBHOOK_INDEXES: Final = (
    "CREATE INDEX deliveries_sink ON deliveries (sink, seq)",
    "CREATE INDEX dead_letters_sink ON dead_letters (sink, seq)",
)

_TOKENS: Final = """CREATE TABLE tokens (
    prefix TEXT NOT NULL, name TEXT NOT NULL, scope TEXT NOT NULL, sha256 TEXT NOT NULL, made_ms BIGINT NOT NULL,
    made_by TEXT NOT NULL, expires_ms BIGINT, revoked_ms BIGINT, used_ms BIGINT, PRIMARY KEY (prefix))"""

#: Version → the step that leads to it. Steps are never edited once released, and they only ever add: a node of the
#: version before may still be running beside the one that migrates.
STEPS: Final[Mapping[int, Step]] = {
    2: Step("keep sums exactly", _SUMS_ARE_EXACT, _SUMS_ARE_EXACT),
    3: Step("keep a fleet's assignment keys", (f"{_ASSIGNMENT_KEYS} WITHOUT ROWID",), (_ASSIGNMENT_KEYS,)),
    4: Step(
        "count signs of what may be wrong, keep who changed what",
        (f"{_SIGNS} WITHOUT ROWID", _MORE),
        (_SIGNS, _MORE),
    ),
    5: Step(
        "count how often what is known of a route changed",
        ["CREATE TABLE moved (route TEXT NOT NULL, n BIGINT NOT NULL, PRIMARY KEY (route)) WITHOUT ROWID"],
        ["CREATE TABLE moved (route TEXT NOT NULL, n BIGINT NOT NULL, PRIMARY KEY (route))"],
    ),
    6: Step(
        "list what cannot be recorded or settled",
        (_SET_ASIDE.format(serial="INTEGER NOT NULL PRIMARY KEY"),),
        (_SET_ASIDE.format(serial="BIGSERIAL NOT NULL PRIMARY KEY"),),
    ),
    7: Step(
        "keep old plans many in a row",
        (f"{_PACKS}, body BLOB NOT NULL, PRIMARY KEY (route, first))", _PACKS_UNTIL, f"{_COURSES} WITHOUT ROWID"),
        (f"{_PACKS}, body BYTEA NOT NULL, PRIMARY KEY (route, first))", _PACKS_UNTIL, _COURSES),
    ),
    8: Step("find repeated events", (_REPEATED,), (_REPEATED,)),
    9: Step("keep how skewed units are, count each once", _MOMENTS, _MOMENTS),
    10: Step("keep mature values by stretch", _STRETCHES, _STRETCHES),
    11: Step(
        "keep what verdicts were reported, and the looks of tests with a declared maximum",
        (f"{_VERDICTS} WITHOUT ROWID", f"{_LOOKS.format(float='FLOAT')} WITHOUT ROWID"),
        (_VERDICTS, _LOOKS.format(float="FLOAT")),
    ),
    12: Step("keep since when a test is declared as it is", (f"{_DECLARATIONS} WITHOUT ROWID",), (_DECLARATIONS,)),
    13: Step("keep units in buckets", (_BUCKETS,), (_BUCKETS,)),
    14: Step("count a unit once over periods", (COUNT_ONCE,), (COUNT_ONCE,)),
    15: Step(
        "count a unit as new once in an epoch",
        (f"{_ASSIGNMENTS} WITHOUT ROWID", *_NEWCOMERS),
        (_ASSIGNMENTS, *_NEWCOMERS),
    ),
    16: Step("keep calls and values by hour", (f"{_HOURS} WITHOUT ROWID",), (_HOURS,)),
    17: Step("keep who did what", (*_AUDIT, f"{_AUDIT_HEAD} WITHOUT ROWID"), (*_AUDIT, _AUDIT_HEAD)),
    18: Step("keep where rollouts and triggers stand", (f"{_STANDINGS} WITHOUT ROWID",), (_STANDINGS,)),
    19: Step(
        "keep how webhooks were delivered",
        (
            *_TRIES,
            *(one.format(serial="INTEGER NOT NULL PRIMARY KEY", binary="BLOB") for one in (_DELIVERIES, _DEAD_LETTERS)),
            f"{_DISABLED} WITHOUT ROWID",
            *_WEBHOOK_INDEXES,
        ),
        (
            *_TRIES,
            *(
                one.format(serial="BIGSERIAL NOT NULL PRIMARY KEY", binary="BYTEA")
                for one in (_DELIVERIES, _DEAD_LETTERS)
            ),
            _DISABLED,
            *_WEBHOOK_INDEXES,
        ),
    ),
    20: Step("keep the information of each look", _INFORMATION, _INFORMATION),
    21: Step("keep named tokens", (f"{_TOKENS} WITHOUT ROWID",), (_TOKENS,)),
}

#: PostgreSQL's lock is a number that every program knows: "turnout" in ASCII. With SQLite the transaction itself is the
#: lock, because it begins with BEGIN IMMEDIATE.
_LOCK: Final = int.from_bytes(b"turnout", "big")
_LOCK_SECONDS: Final = 30


class NewerSchema(Exception):
    """The database was written by a newer program."""


class Migrated(NamedTuple):
    """The version before migrating (None: there were no tables) and after it."""

    before: int | None
    after: int


async def migrate(connection: AsyncConnection) -> Migrated:
    """Create or upgrade the tables. Raises NewerSchema, and changes nothing, if the database is newer."""
    await _wait_for_turn(connection)
    version = await version_of(connection)
    if version is None:
        # Without checking for each table first: a table of another program with the same name must be an error.
        await connection.run_sync(lambda sync: metadata.create_all(sync, checkfirst=False))
        await connection.execute(schema_version.insert(), {"version": VERSION})
        return Migrated(None, VERSION)
    if version > VERSION:
        raise NewerSchema(f"the database has schema version {version}; this program knows versions up to {VERSION}")
    for number in range(version + 1, VERSION + 1):
        for statement in getattr(STEPS[number], connection.dialect.name):
            await connection.execute(text(statement))
    if version < VERSION:
        await connection.execute(schema_version.update(), {"version": VERSION})
    return Migrated(version, VERSION)


async def version_of(connection: AsyncConnection) -> int | None:
    """Return the version of the tables, None if there are none."""
    if not await connection.run_sync(lambda sync: inspect(sync).has_table(schema_version.name)):
        return None
    version: int = (await connection.execute(select(schema_version.c.version))).scalar_one()
    return version


def due(version: int | None) -> list[tuple[int, str]]:
    """Return the steps from a version to this program's version, as (version, what the step does)."""
    if version is None:
        return [(VERSION, "make the tables")]
    return [(number, STEPS[number].what) for number in range(version + 1, VERSION + 1)]


async def _wait_for_turn(connection: AsyncConnection) -> None:
    if connection.dialect.name == "postgresql":
        await connection.execute(text(f"SET LOCAL lock_timeout = '{_LOCK_SECONDS}s'"))
        await connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
