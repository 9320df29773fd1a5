"""A connection is in one phase of the table, whatever happens to it and in whatever order."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, cast

import pytest

from gateway.proxy.server.connection import Connection
from gateway.proxy.server.request import Request
from gateway.proxy.server.response import Response
from gateway.proxy.server.service import Service
from gateway.proxy.server.serving_phases import (
    BLOCKED,
    BODY,
    CLOSED,
    FLUSHING,
    IDLE,
    LEAVING,
    OPENED,
    TABLE,
    ConnectionEvent,
    ServingPhase,
)
from gateway.proxy.wire.buffers import Buffers
from gateway.proxy.wire.deadlines import NEVER
from gateway.proxy.wire.fiber import Bell
from router.snapshot import Gateway

pytestmark = pytest.mark.interpreted  # a connection is watched by a class that derives from it

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n"
EXPECTING = b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 10\r\n\r\n"
CHUNKED = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
LONG = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 200000\r\n\r\n"
GATEWAY = Gateway(
    header_timeout_ms=1_000,
    body_timeout_ms=2_000,
    keepalive_timeout_ms=4_000,
    min_read_bytes_per_second=10,
    max_body_bytes=150_000,
    max_buffer_bytes=100_000,
)
GONE = (LEAVING, FLUSHING, CLOSED)


class Watched(Connection):
    """A connection that keeps a record of its phases."""

    __slots__ = ("entered",)

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.entered: list[tuple[ServingPhase, ServingPhase]] = []

    def _enter(self, phase: ServingPhase, received: int = 0) -> None:
        self.entered.append((self.phase, phase))
        super()._enter(phase, received)


class Stage:
    """A connection between a transport, a clock, a loop and a handler that a test plays."""

    def __init__(self) -> None:
        self.now = 100.0
        self.soon: list[Callable[[], object]] = []
        self.actions: list[str] = []
        self.bell = Bell()
        self.running = 0
        # The transport.
        self.written = b""
        self.unsent = 0
        self.full = self.paused = self.closing = self.failed = False
        self.buffers = Buffers(0)
        self.service = Service(self.handle, GATEWAY, "http", self.buffers)
        self.connection = Watched(self.service, cast("Any", self), lambda _: 0, lambda _: None)
        self.connection.connection_made(cast("Any", self))
        self.ended = False
        self.entered()  # it is opened
        self.chunked = False
        self.rest = b""
        self.followed: set[tuple[ServingPhase, ServingPhase]] = set()

    # The loop.

    def time(self) -> float:
        return self.now

    def call_soon(self, call: Callable[[], object]) -> None:
        self.soon.append(call)

    # The transport and its socket.

    def get_extra_info(self, name: str) -> Any:
        return {"peername": ("192.0.2.1", 5), "socket": self}[name]

    def getsockopt(self, *_: int) -> int:
        return int(self.failed)

    def setsockopt(self, *_: Any) -> None:
        pass

    def fileno(self) -> int:
        raise OSError

    def write(self, data: bytes) -> None:
        assert self.connection.phase not in GONE, "nothing is written after the last answer"
        self.written += data

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def close(self) -> None:
        self.closing = True

    abort = close

    def is_closing(self) -> bool:
        return self.closing

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        pass

    def pause_reading(self) -> None:
        assert not self.paused
        self.paused = True

    def resume_reading(self) -> None:
        assert self.paused
        self.paused = False

    # The handler.

    async def handle(self, request: Request, response: Response) -> None:
        self.running += 1
        self.chunked = request.content_length is None
        try:
            while not response.finished:
                while not self.actions:
                    await self.bell
                await self._act(self.actions.pop(0), request, response)
        finally:
            self.running -= 1

    async def _act(self, action: str, request: Request, response: Response) -> None:
        if action == "body":
            await request.body()
        elif action == "take":
            async for _ in request.chunks():
                break
        elif action == "start" and not response.started:
            response.start(200, [], length=None)
        elif action == "write" and response.started:
            await response.write(b"x" * 100)
        elif action == "finish" and response.started:
            response.finish()
        elif action == "send" and not response.started:
            response.send(200, [], b"ok")
        elif action == "fail":
            raise RuntimeError("the handler fails")

    # What a test does.

    def act(self, action: str) -> None:
        if self.running:
            self.actions.append(action)
            self.bell.ring()

    def bytes(self, data: bytes) -> None:
        if not (self.ended or self.paused or self.closing):
            self.connection.data_received(data)

    def end(self) -> None:
        if not self.ended and not self.closing:
            self.ended = True
            if not self.connection.eof_received():
                self.closing = True

    def fill(self) -> None:
        if not self.full and not self.closing:
            self.full, self.unsent = True, 70_000
            self.connection.pause_writing()

    def empty(self) -> None:
        if self.full:
            self.full, self.unsent = False, 0
            self.connection.resume_writing()

    def some(self) -> None:
        """The client takes a part of what was written."""
        self.unsent //= 2

    def reset(self) -> None:
        """The client has left, and whatever is sent to it is answered so."""
        self.failed = True

    def late(self) -> None:
        """As much time passes as the deadline is away, if there is one."""
        if self.connection.deadline != NEVER:
            self.now = max(self.now, self.connection.deadline)
            self.connection.expire(self.now)

    def evict(self) -> None:
        if self.connection in self.buffers._slow:
            self.buffers.stop_awaiting(self.connection)
            self.connection.evict()

    def turn(self) -> None:
        """The loop turns: what was put off is done, and a transport that was closed says so."""
        calls, self.soon = self.soon, []
        for call in calls:
            call()
        if self.closing and self.phase is not CLOSED:
            self.connection.connection_lost(None)

    @property
    def phase(self) -> ServingPhase:
        return self.connection.phase

    def entered(self) -> list[tuple[ServingPhase, ServingPhase]]:
        """The changes of the phase since this was last asked."""
        found, self.connection.entered = self.connection.entered, []
        return found

    def holds(self, where: str = "") -> None:
        for before, after in self.entered():
            assert after in TABLE[before].next, f"{before.name} -> {after.name} {where}"
            self.followed.add((before, after))
        assert (self.connection.deadline == NEVER) is (TABLE[self.phase].deadline is None)
        assert self.connection.deadline <= self.now + self.service.seconds[self.phase] or self.phase is BODY


def reach(phase: ServingPhase) -> Stage:
    """Return a connection in this phase."""
    stage = Stage()
    for step in REACHED[phase]:
        step(stage)
    stage.holds()
    assert stage.phase is phase
    return stage


def sends(data: bytes) -> Callable[[Stage], None]:
    return lambda stage: stage.bytes(data)


def acts(action: str) -> Callable[[Stage], None]:
    return lambda stage: stage.act(action)


def flushing(stage: Stage) -> None:
    stage.unsent = 50_000
    stage.late()


REACHED: dict[ServingPhase, tuple[Callable[[Stage], None], ...]] = {
    ServingPhase.OPENED: (),
    ServingPhase.IDLE: (sends(GET), acts("send")),
    ServingPhase.HEAD: (sends(GET[:7]),),
    ServingPhase.BODY: (sends(POST + b"x"),),
    ServingPhase.WITHHELD: (sends(EXPECTING),),
    ServingPhase.ANSWERING: (sends(GET),),
    ServingPhase.HALF_CLOSED: (sends(GET), Stage.end),
    ServingPhase.PROBED: (sends(GET), Stage.end, Stage.late),
    ServingPhase.BLOCKED: (sends(GET), acts("start"), Stage.fill),
    ServingPhase.LEAVING: (sends(b"no HTTP\r\n\r\n"),),
    ServingPhase.FLUSHING: (sends(b"no HTTP\r\n\r\n"), flushing),
    ServingPhase.CLOSED: (Stage.close, Stage.turn),
}

HAPPENS: dict[ConnectionEvent, Callable[[Stage], object]] = {
    ConnectionEvent.BYTES: lambda stage: stage.connection.data_received(GET),
    ConnectionEvent.END: lambda stage: stage.connection.eof_received(),
    ConnectionEvent.SEND: lambda stage: stage.connection.send(b"x"),
    ConnectionEvent.FULL: lambda stage: stage.connection.pause_writing(),
    ConnectionEvent.TAKEN: lambda stage: stage.connection.resume_writing(),
    ConnectionEvent.LATE: Stage.late,
    ConnectionEvent.EVICT: lambda stage: stage.connection.evict(),
    ConnectionEvent.RETIRE: lambda stage: stage.connection.close_if_idle(),
}


@pytest.mark.parametrize("event", ConnectionEvent, ids=lambda event: event.name)
@pytest.mark.parametrize("phase", ServingPhase, ids=lambda phase: phase.name)
def test_an_event_leads_to_a_successor_or_where_it_is_not_taken_to_nothing(
    phase: ServingPhase, event: ConnectionEvent
) -> None:
    stage = reach(phase)
    written, deadline = stage.written, stage.connection.deadline
    HAPPENS[event](stage)
    if event not in TABLE[phase].takes:
        assert stage.entered() == []
        assert (stage.phase, stage.written, stage.connection.deadline) == (phase, written, deadline)
    stage.holds()


@pytest.mark.parametrize("phase", ServingPhase, ids=lambda phase: phase.name)
def test_every_phase_has_a_row_with_a_deadline_or_says_why_not(phase: ServingPhase) -> None:
    row = TABLE[phase]
    assert row.deadline is not None or row.why
    assert (ConnectionEvent.LATE in row.takes) is (row.deadline is not None)
    assert CLOSED in row.next or phase is CLOSED, "the client can be lost at any time"
    if isinstance(row.deadline, str):
        assert isinstance(getattr(Gateway(), row.deadline), int)


def test_every_phase_follows_from_the_first_and_nothing_follows_the_last() -> None:
    found, new = set(), {OPENED}
    while new:
        found |= new
        new = {after for phase in new for after in TABLE[phase].next} - found
    assert found == set(ServingPhase) == set(TABLE)
    assert TABLE[CLOSED].next == ()


def speak(stage: Stage, chance: random.Random) -> None:
    """The client sends what fits: mostly requests that can be read to their end."""
    if stage.phase in (ServingPhase.OPENED, ServingPhase.IDLE, ServingPhase.BLOCKED):
        asked = chance.choice((GET, GET, GET * 3, GET * 3_000, POST, POST, EXPECTING, CHUNKED, LONG))
        cut = chance.choice((9, len(asked), len(asked)))
        stage.rest = asked[cut:]
        stage.bytes(asked[:cut])
    elif stage.phase is ServingPhase.HEAD:
        stage.bytes(stage.rest)
    elif stage.chunked:
        stage.bytes(chance.choice((b"5\r\nhello\r\n", b"0\r\n\r\n", b"0\r\n\r\n" + GET)))
    else:
        stage.bytes(chance.choice((b"x", b"x" * 10, b"x" * 70_000)))


#: What is played at random, and how often: less of what ends a connection.
STEPS: list[tuple[int, Callable[[Stage], object]]] = [
    *((8, acts(action)) for action in ("send", "start", "write", "finish")),
    *((5, acts(action)) for action in ("body", "take")),
    *(
        (1, step)
        for step in (acts("fail"), sends(b"\0"), HAPPENS[ConnectionEvent.RETIRE], Stage.evict, Stage.reset, Stage.close)
    ),
    *((4, step) for step in (Stage.end, Stage.fill, Stage.some, Stage.late, Stage.late)),
    *((8, step) for step in (Stage.empty, Stage.turn)),
]


def test_whatever_happens_in_whatever_order_each_phase_is_a_successor_of_the_one_before() -> None:
    """And each successor in the table does follow, in one of these orders."""
    weights, steps = zip(*STEPS, strict=True)
    followed: set[tuple[ServingPhase, ServingPhase]] = set()
    for rare in (
        (sends(GET), acts("send"), Stage.fill, sends(GET[:9]), Stage.empty),
        (sends(EXPECTING), acts("start"), Stage.fill, Stage.empty),
    ):
        stage = Stage()
        for step in rare:
            step(stage)
        stage.holds()
        followed |= stage.followed
    for seed in range(1_200):
        stage = Stage()
        chance = random.Random(seed)
        for step in chance.choices(steps, weights, k=25):
            if chance.random() < 0.4:
                speak(stage, chance)
            step(stage)
            stage.holds(f"seed {seed}")
        stage.closing = True
        stage.turn()
        stage.holds(f"seed {seed}")
        assert stage.phase is CLOSED
        assert (stage.running, stage.buffers.used, stage.buffers._slow) == (0, 0, {}), f"seed {seed}"
        followed |= stage.followed
    assert {(before, after) for before, row in TABLE.items() for after in row.next} - followed == set()


def test_a_client_that_ends_its_side_has_as_long_for_its_answer_as_others() -> None:
    """It was cut a quarter of a second after its half-close, where the look at what it had taken came too early."""
    stage = reach(BLOCKED)
    before = stage.connection.deadline
    stage.end()
    assert (stage.phase, stage.connection.deadline) == (BLOCKED, before)


def test_a_body_that_stopped_and_is_answered_all_the_same_has_a_deadline_again() -> None:
    """The time-out had gone to the handler, which needed no body: nothing would have ended the connection."""
    stage = reach(BODY)
    stage.act("start")
    stage.late()
    assert stage.connection.deadline == NEVER
    stage.act("finish")
    assert stage.connection.deadline < NEVER
    while stage.phase not in GONE:
        stage.late()


def test_what_is_said_of_a_connection_is_its_phase() -> None:
    assert repr(reach(IDLE).connection) == "<Watched IDLE>"
