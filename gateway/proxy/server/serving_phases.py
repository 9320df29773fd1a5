"""The phases of a client's connection as a table: what is awaited and until when, what is taken, what may follow.

Rule: a connection is in one phase, and its deadline comes of that alone. An event that a phase does not take changes
nothing. Tests walk the table and drive connections at random through it: none is ever in a phase that is not the
successor of the one before.

Three facts stand beside the phase, because they outlast it: how far the parser is in the client's bytes
(``Intake.stage``), to which a connection returns when its client has taken what was written; whether reading from the
transport is paused; and whether the client has ended its side.
"""

from __future__ import annotations

from enum import Enum, IntEnum
from typing import Final, NamedTuple

from router.snapshot import Gateway


class ServingPhase(IntEnum):
    """What a connection waits for. An IntEnum, since others are hashed in Python: here it would be for every byte."""

    OPENED = 0  #: the first byte of the first request
    IDLE = 1  #: the first byte of another request
    HEAD = 2  #: the rest of a head
    BODY = 3  #: more of a body, which is read
    WITHHELD = 4  #: the handler, to take or to ask for more of a body that is not read until then
    ANSWERING = 5  #: the handler, to end its answer: the request is here to its end
    HALF_CLOSED = 6  #: the same, and the client has ended its side; or it has left altogether
    PROBED = 7  #: the same, once something was sent that a client who has left answers with a reset
    BLOCKED = 8  #: the client, to take what was written; how far its request is does not count meanwhile
    LEAVING = 9  #: the client, to close: it has its last answer, and what it still sends is discarded
    FLUSHING = 10  #: the client, to take the rest of the last answer: that takes longer
    CLOSED = 11  #: nothing


class ConnectionEvent(Enum):
    """What happens to a connection without having been asked for."""

    BYTES = "the client sends bytes"
    END = "the client ends its side"
    SEND = "the handler sends a part of an answer"
    FULL = "the transport holds as much as it should of what was written"
    TAKEN = "the client has taken enough of it"
    LATE = "the deadline has passed"
    EVICT = "another client needs the memory that is held for this one"
    RETIRE = "the server ends, and closes connections that are idle"


OPENED: Final[ServingPhase] = ServingPhase.OPENED
IDLE: Final[ServingPhase] = ServingPhase.IDLE
HEAD: Final[ServingPhase] = ServingPhase.HEAD
BODY: Final[ServingPhase] = ServingPhase.BODY
WITHHELD: Final[ServingPhase] = ServingPhase.WITHHELD
ANSWERING: Final[ServingPhase] = ServingPhase.ANSWERING
HALF_CLOSED: Final[ServingPhase] = ServingPhase.HALF_CLOSED
PROBED: Final[ServingPhase] = ServingPhase.PROBED
BLOCKED: Final[ServingPhase] = ServingPhase.BLOCKED
LEAVING: Final[ServingPhase] = ServingPhase.LEAVING
FLUSHING: Final[ServingPhase] = ServingPhase.FLUSHING
CLOSED: Final[ServingPhase] = ServingPhase.CLOSED

BYTES, END, SEND, FULL, TAKEN, LATE, EVICT, RETIRE = ConnectionEvent

#: Seconds for which a client may still send after its last answer. What it sends is read and discarded, because a close
#: with unread bytes is a reset, and the client may lose the answer to it.
LINGER_SECONDS: Final = 2.0
#: Seconds after a half-close until the client is probed, and between looks at the reply.
PROBE_SECONDS: Final = 0.25


class PhaseRow(NamedTuple):
    """One phase. ``deadline`` is a setting of the gateway in milliseconds, or seconds, or None; then ``why`` not."""

    deadline: str | float | None
    why: str
    takes: tuple[ConnectionEvent, ...]
    next: tuple[ServingPhase, ...]


_HANDLER: Final = "what the handler waits for has a deadline of its own"

TABLE: Final[dict[ServingPhase, PhaseRow]] = {
    OPENED: PhaseRow(
        "header_timeout_ms",
        "a client that connects has something to ask",
        (BYTES, END, LATE, RETIRE),
        (HEAD, BODY, WITHHELD, ANSWERING, LEAVING, CLOSED),
    ),
    IDLE: PhaseRow(
        "keepalive_timeout_ms",
        "",
        (BYTES, END, FULL, LATE, RETIRE),
        (HEAD, BODY, WITHHELD, ANSWERING, HALF_CLOSED, BLOCKED, LEAVING, CLOSED),
    ),
    HEAD: PhaseRow(
        "header_timeout_ms",
        "for the head as a whole",
        (BYTES, END, FULL, LATE),
        (BODY, WITHHELD, ANSWERING, BLOCKED, LEAVING, CLOSED),
    ),
    BODY: PhaseRow(
        "body_timeout_ms",
        "from each byte to the next; and min_body_bytes_per_second on the whole (pace)",
        (BYTES, END, SEND, FULL, LATE, EVICT),
        (IDLE, BODY, WITHHELD, ANSWERING, BLOCKED, LEAVING, CLOSED),
    ),
    WITHHELD: PhaseRow(
        None,
        _HANDLER,
        (BYTES, END, SEND, FULL, EVICT),
        (BODY, ANSWERING, BLOCKED, LEAVING, CLOSED),
    ),
    ANSWERING: PhaseRow(
        None,
        _HANDLER,
        (BYTES, END, SEND, FULL, EVICT),
        (IDLE, HALF_CLOSED, BLOCKED, LEAVING, CLOSED),
    ),
    HALF_CLOSED: PhaseRow(
        PROBE_SECONDS,
        "",
        (SEND, FULL, LATE, EVICT),
        (IDLE, PROBED, BLOCKED, LEAVING, CLOSED),
    ),
    PROBED: PhaseRow(
        PROBE_SECONDS,
        "",
        (SEND, FULL, LATE, EVICT),
        (IDLE, PROBED, BLOCKED, LEAVING, CLOSED),
    ),
    BLOCKED: PhaseRow(
        "body_timeout_ms",
        "in each of which min_read_bytes_per_second must be kept",
        (BYTES, END, SEND, TAKEN, LATE, EVICT, RETIRE),
        (IDLE, HEAD, BODY, WITHHELD, ANSWERING, HALF_CLOSED, BLOCKED, LEAVING, CLOSED),
    ),
    LEAVING: PhaseRow(LINGER_SECONDS, "", (LATE, EVICT), (FLUSHING, CLOSED)),
    FLUSHING: PhaseRow("body_timeout_ms", "as in BLOCKED", (LATE, EVICT), (FLUSHING, CLOSED)),
    CLOSED: PhaseRow(None, "nothing is awaited any more", (), ()),
}


def taking(event: ConnectionEvent) -> frozenset[ServingPhase]:
    """Return the phases in which an event is taken."""
    return frozenset(phase for phase, row in TABLE.items() if event in row.takes)


def deadlines(gateway: Gateway) -> dict[ServingPhase, float]:
    """Return the seconds until the deadline of each phase, by the gateway's settings; infinity for none."""
    return {phase: _seconds(row.deadline, gateway) for phase, row in TABLE.items()}


def _seconds(deadline: str | float | None, gateway: Gateway) -> float:
    if deadline is None:
        return float("inf")
    if isinstance(deadline, str):
        milliseconds: int = getattr(gateway, deadline)
        return milliseconds / 1000
    return deadline
