"""The tables of what is counted, of what it is counted by (plans, epochs, definitions), and of what happened.

Rule: that of ``tables``, for every column, index and change.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import Index, func

from gateway.store.schema.table_columns import binary, counter, integer, number, serial, string, table

#: What a metric meant on a route, for predictions made since ``since_ms``. ``body`` is NULL where the route no longer
#: lists it. Of these predictions, those made before ``closed_until`` have their windows closed.
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

#: No call of an epoch was made more than an hour later than this (``counts/tallies``). A "#" before the epoch: what was
#: counted of it until then is being removed (``retention``).
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

#: Older plans of a route, many in one row: ``body`` has them, packed (``counts/history``). The last of them was made at
#: ``until_ms``.
plan_packs: Final = table(
    "plan_packs",
    string("route", key=True),
    integer("first", key=True),
    integer("last"),
    string("epoch"),
    integer("period"),
    integer("until_ms"),
    binary("body"),
    wide=True,
)
Index("plan_packs_until", plan_packs.c.until_ms)

tallies: Final = table(
    "tallies",
    serial("id"),
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
    integer("revision"),
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
    number("m3", begins=0),
    number("m2d", begins=0),
    number("md2", begins=0),
    number("d3", begins=0),
    integer("distinct", begins=0),
)
#: The revision comes before what there is of each: so a new stretch is looked up without reading those before.
Index(
    "tallies_stretch",
    *(
        tallies.c.route,
        tallies.c.epoch,
        tallies.c.revision,
        tallies.c.period,
        tallies.c.variant,
        tallies.c.version,
        tallies.c.role,
    ),
    *(tallies.c.against, tallies.c.metric, tallies.c.definition, tallies.c.phase),
    unique=True,
)

#: A unit's sum and count under one tally. Here and in ``tallies``, ``rest`` is the part of the sums that rounding left
#: out.
units: Final = table(
    "units",
    integer("tally", key=True),
    string("unit", key=True),
    number("m"),
    number("d"),
    string("rest", null=True),
)

#: The units of a tally in buckets (``units/unit_buckets``), as JSON: the exact sum of each, then the count of each.
buckets: Final = table("buckets", integer("tally", key=True), string("body"), wide=True)

#: Calls and mature values by hour or day (``counts/hours``): how many there are, their sum, and what rounding left out.
hours: Final = table(
    "hours",
    string("route", key=True),
    string("epoch", key=True),
    string("metric", key=True),
    string("definition", key=True),
    integer("hour_ms", key=True),
    string("variant", key=True),
    string("version", key=True),
    string("role", key=True),
    number("d"),
    number("m"),
    string("rest", null=True),
)

#: Each unit's first request of an epoch while its salt was the same, by (at_ms, id). ``period`` is that since which it
#: was the same (0: from the beginning, ``assignments``), ``in_period`` the request's own. NULL, by an older program: it
#: is ``period``.
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
    integer("in_period", null=True),
)
ARRIVED_IN: Final = func.coalesce(arrivals.c.in_period, arrivals.c.period)

#: The periods since which the units of an epoch are hashed with another salt than before, or are new once more.
assignments: Final = table(
    "assignments", string("route", key=True), string("epoch", key=True), integer("since", key=True)
)

stretches: Final = counter(
    "stretches",
    string("route", key=True),
    string("epoch", key=True),
    integer("period", key=True),
    integer("revision", key=True),
    string("variant", key=True),
)
#: What the sample-ratio check learned from stretches whose rows are deleted (``SampleRatioState``), as JSON.
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
#: What may be wrong, how often and when it was seen (``Ledger.signs``). For feedback, epoch, variant and role are "".
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
#: How often what is counted of a route changed: a report made of it is current while this number is the same.
moved: Final = counter("moved", string("route", key=True))
#: What the recorder found: duplicate rows; corrupt, torn and lost lines.
counts: Final = counter("counts", string("name", key=True))

#: The log of what happened, for people; ``more`` is JSON: who did it, to which file, and what that changed.
events: Final = table(
    "events",
    serial("seq"),
    integer("at_ms"),
    string("kind"),
    string("route", null=True),
    string("detail"),
    string("more", null=True),
)

#: The status of each variant's comparison that was last reported as an event, and when.
verdicts: Final = table(
    "verdicts",
    string("route", key=True),
    string("epoch", key=True),
    string("variant", key=True),
    string("status"),
    integer("at_ms"),
)

#: The looks of tests with a declared maximum (``counts/verdicts``), numbered from 1.
looks: Final = table(
    "looks",
    string("route", key=True),
    string("epoch", key=True),
    string("metric", key=True),
    string("definition", key=True),
    string("variant", key=True),
    string("version", key=True),
    integer("number", key=True),
    integer("at_ms"),
    number("fraction"),
    number("z"),
    number("boundary"),
    integer("decided"),
    number("information", begins=0),
    string("beside", null=True),
)

#: The test of a route as it was declared at each change, with the versions of its variants (JSON). ``late``: 1 if
#: something was known of them already.
declarations: Final = table(
    "declarations",
    string("route", key=True),
    string("epoch", key=True),
    integer("at_ms", key=True),
    string("body"),
    integer("late"),
)

#: Where each thing stands that moves by itself or by hand (``gateway.store.standings``); ``body`` is JSON.
standings: Final = table(
    "standings", string("kind", key=True), string("name", key=True), string("body"), integer("at_ms")
)
