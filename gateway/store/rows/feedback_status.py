"""The statuses of feedback events, in one table.

Rule: each event is in exactly one status, so that the statuses add up to every event that was ever sent. A new status
is a name and a row here: account, report, metrics and console show whatever is in the table, and a test holds the
document to it. Which event gets which status is decided by ``gateway.control.join.event_status``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal, NamedTuple

Status = Literal[
    "joined",
    "corrected",
    "repeated",
    "late",
    "waiting",
    "orphaned",
    "not_applicable",
    "not_exposed",
    "over_limit",
    "set_aside",
    "rejected",
]


class Meaning(NamedTuple):
    """What a status means, in Markdown. ``rare``: few events should end so, and when they did is noted as a sign."""

    meaning: str
    rare: bool = False


#: In the order in which they are shown. An event that is joined counts, and no other does.
STATUSES: Final[Mapping[Status, Meaning]] = {
    "joined": Meaning("it found its prediction and counts"),
    "corrected": Meaning("a higher revision took its place"),
    "repeated": Meaning("it was known already"),
    "late": Meaning(
        "it happened outside its window: after it, or longer before the prediction than `window_before`", rare=True
    ),
    "waiting": Meaning("its prediction is not known yet, and may still be recorded"),
    "orphaned": Meaning("no prediction was found for it in time", rare=True),
    "not_applicable": Meaning(
        "it cannot count: its route does not list the metric, the answer is a merged list and `item` is none of it, a"
        " fallback answered, or its prediction is not counted",
        rare=True,
    ),
    "not_exposed": Meaning("its route has `require_exposure`, and no `exposed` event named its prediction"),
    "over_limit": Meaning(
        "one of more than 1,000 about one prediction and metric, or with one `event_id`: the first to come count"
    ),
    "set_aside": Meaning("it could not be recorded or joined, `turnout feedback set-aside` says why"),
    "rejected": Meaning("refused with a 4xx"),
}
RARE: Final = frozenset(status for status, meaning in STATUSES.items() if meaning.rare)

#: The route or metric of an event that names none that exists.
UNKNOWN: Final = "unknown"
