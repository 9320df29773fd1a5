"""The phases of a connection to a backend, what each allows, and how long it may last.

Rule: two phases move apart from each other, that of the answer (``Phase``) and that of the request (``Sending``). The
tables say what each allows and what follows. ``link`` assigns phases where it stands instead of looking them up, since
that runs several times for every request; a test drives it through every entry, and fails at a move that is not here.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

from gateway.proxy.wire.deadlines import NEVER

#: Below the five seconds after which common servers close an idle connection.
IDLE_SECONDS: Final = 4.0


class Phase(Enum):
    """Where the answer on a connection is."""

    # Phases are looked up by identity: the hash of an enumeration's own is computed in Python.
    __hash__ = object.__hash__

    OPENING = "there is no transport yet"
    IDLE = "no call is under way"
    HEAD = "a request was sent, the head of its answer is still to come"
    BODY = "the head is here, the body is coming"
    STALLED = "reading is paused: as much is held of the body as may be, and the client does not take it"
    WHOLE = "the last byte is here"
    EXCESS = "something came after the last byte"
    CLOSED = "no further call"


class Sending(Enum):
    """Where the request is."""

    WRITTEN = "it was written whole, or there is none"
    FLUSHING = "it was handed over whole; the transport still holds more of it than it wants to"
    FEEDING = "the client's next piece of the body is awaited"
    BLOCKED = "the backend has to take more before the client is asked for the next piece"


OPENING: Final[Phase] = Phase.OPENING
IDLE: Final[Phase] = Phase.IDLE
HEAD: Final[Phase] = Phase.HEAD
BODY: Final[Phase] = Phase.BODY
STALLED: Final[Phase] = Phase.STALLED
WHOLE: Final[Phase] = Phase.WHOLE
EXCESS: Final[Phase] = Phase.EXCESS
CLOSED: Final[Phase] = Phase.CLOSED

WRITTEN: Final[Sending] = Sending.WRITTEN
FLUSHING: Final[Sending] = Sending.FLUSHING
FEEDING: Final[Sending] = Sending.FEEDING
BLOCKED: Final[Sending] = Sending.BLOCKED

#: What each phase of the answer allows, and the phase that follows. Any other event is refused: it raises, or cannot
#: come. ``drop`` stands for every fault, ``late`` for a deadline that has passed, ``eof`` for the backend's half-close.
ANSWERING: Final[dict[Phase, dict[str, Phase]]] = {
    OPENING: {"made": IDLE, "drop": CLOSED},
    IDLE: {"begin": HEAD, "eof": IDLE, "data": CLOSED, "late": CLOSED, "lost": CLOSED, "drop": CLOSED},
    HEAD: {
        "interim": HEAD, "head": BODY, "head only": WHOLE, "eof": HEAD, "late": CLOSED, "lost": CLOSED, "drop": CLOSED,
    },
    BODY: {
        "piece": BODY, "stall": STALLED, "end": WHOLE, "eof": BODY, "late": CLOSED, "lost": CLOSED, "drop": CLOSED,
    },
    # The end of the body is here "take more", and then "end".
    STALLED: {"piece": STALLED, "take more": BODY, "eof": STALLED, "late": CLOSED, "lost": CLOSED, "drop": CLOSED},
    WHOLE: {"keep": IDLE, "excess": EXCESS, "drop": CLOSED},
    EXCESS: {"excess": EXCESS, "drop": CLOSED},
    CLOSED: {"made": CLOSED, "data": CLOSED, "eof": CLOSED, "lost": CLOSED, "drop": CLOSED},
}  # fmt: skip

#: The same for the request. ``pause`` and ``resume`` are the transport's.
SENDING: Final[dict[Sending, dict[str, Sending]]] = {
    WRITTEN: {"upload": FEEDING, "pause": FLUSHING},
    FLUSHING: {"upload": BLOCKED, "resume": WRITTEN},
    FEEDING: {"pause": BLOCKED, "end": WRITTEN},
    BLOCKED: {"resume": FEEDING, "end": FLUSHING},
}


def phase_seconds(timeout_seconds: float, idle_seconds: float) -> dict[Phase, float]:
    """Return how long a connection to one backend may stay in each phase."""
    return {
        OPENING: NEVER,  # the call that opens it has a timer for connect_timeout_ms
        IDLE: IDLE_SECONDS,
        HEAD: timeout_seconds,  # from the last byte of the request that was handed over: NEVER while FEEDING
        BODY: idle_seconds,  # between bytes
        STALLED: NEVER,  # the backend is not to blame; what is held for the client is bounded, and its place evicted
        WHOLE: NEVER,
        EXCESS: NEVER,
        CLOSED: NEVER,  # the transport was aborted
    }
