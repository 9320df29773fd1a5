"""The tables of a connection's phases, and that a real connection moves as they say and in no other way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.proxy.client.answer import HELD_BYTES, Answer
from gateway.proxy.client.link import Link
from gateway.proxy.client.phases import ANSWERING, IDLE_SECONDS, SENDING, Phase, Sending, phase_seconds
from gateway.proxy.client.replica import Replica
from gateway.proxy.client.upstream import Upstream
from gateway.proxy.wire.buffers import EVICT_SECONDS, Buffers
from gateway.proxy.wire.deadlines import NEVER
from gateway.proxy.wire.faults import UpstreamFault
from tests.gateway.proxy import builders

TIMEOUT, IDLE_TIMEOUT, TOTAL = 7.0, 3.0, 50.0

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
LONG = b"HTTP/1.1 200 OK\r\ncontent-length: 200000\r\n\r\n"  # so long that its body goes past the parser
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
ENDLESS = b"HTTP/1.1 200 OK\r\n\r\n"
INTERIM = b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n"

#: The phases that a connection may be found in between two events.
LASTING: Final = (Phase.OPENING, Phase.IDLE, Phase.HEAD, Phase.BODY, Phase.STALLED, Phase.CLOSED)


class Loop(asyncio.SelectorEventLoop):
    """An event loop whose clock stands still until a test moves it."""

    now = 1_000.0

    def time(self) -> float:
        return self.now


class Transport:
    """A transport that sends nothing and keeps what it was asked to do."""

    aborted = False
    reading = True

    def write(self, data: bytes) -> None:
        assert not self.aborted

    def pause_reading(self) -> None:
        assert self.reading
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def is_closing(self) -> bool:
        return self.aborted

    def abort(self) -> None:
        self.aborted = True


def watched(replica: Replica, loop: Loop, moves: list[tuple[object, object]]) -> Link:
    """Return a connection that adds each move of its phases to ``moves``."""

    class Watched(Link):
        def __setattr__(self, name: str, value: object) -> None:
            if name in ("phase", "sending"):
                before = getattr(self, name, value)
                if before is not value:
                    moves.append((before, value))
            super().__setattr__(name, value)

    return Watched(replica, loop)


class Case:
    """A real connection on a transport that the test plays. Must be made in a running ``Loop``."""

    def __init__(self, room: int = 0) -> None:
        self.loop = cast("Loop", asyncio.get_running_loop())
        milliseconds = {"timeout_ms": TIMEOUT, "idle_timeout_ms": IDLE_TIMEOUT, "total_timeout_ms": TOTAL}
        given = {name: int(seconds * 1000) for name, seconds in milliseconds.items()}
        self.upstream = Upstream(builders.backend("b", "http://127.0.0.1:1", **given), buffers=Buffers(room))
        self.replica = self.upstream.replicas[0]
        self.moves: list[tuple[object, object]] = []
        self.link = watched(self.replica, self.loop, self.moves)
        self.transport = Transport()
        self.answer: Answer | None = None
        self.client: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.lost = False

    def made(self) -> None:
        self.link.connection_made(cast("asyncio.Transport", self.transport))

    def begin(self, *, head_only: bool = False, last: bool = False) -> None:
        """Begin a call as ``Upstream.call`` does, with its place."""
        answer = Answer(self.upstream.buffers, self.loop.now + TOTAL)
        self.link.begin(answer, b"head", b"", head_only=head_only, last=last)
        if self.replica.idle:
            assert self.replica.idle.pop() is self.link
        self.answer = answer
        self.upstream._places.in_flight += 1
        self.replica.in_flight += 1

    def give_up(self) -> None:
        """End the call as ``Upstream.call`` does when it is cancelled, or as a reader does who wants no more."""
        answer, self.answer = self.answer, None
        if answer is not None:
            self.upstream._give_up(answer, self.link, self.replica)

    def upload(self) -> None:
        self.client = asyncio.Queue()
        self.link.upload(self._body(self.client), None)

    async def _body(self, client: asyncio.Queue[bytes | None]) -> AsyncIterator[bytes]:
        while (piece := await client.get()) is not None:
            yield piece

    async def turn(self) -> None:
        """Let tasks run until they wait."""
        for _ in range(4):
            await asyncio.sleep(0)

    def data(self, *pieces: bytes) -> None:
        for piece in pieces:
            self.link.data_received(piece)

    def stall(self) -> None:
        self.data(b"x" * HELD_BYTES)

    async def take(self) -> None:
        assert self.answer is not None
        await self.answer.next_chunk()

    def late(self) -> None:
        """Let so much time pass that the deadline is over, if there is one, and sweep."""
        self.loop.now = max(self.loop.now, min(self.link.deadline, self.loop.now + 2 * TOTAL))
        if self.link.deadline <= self.loop.now:
            self.link.expire(self.loop.now)

    def lose(self, error: Exception | None = None) -> None:
        self.lost = True
        self.link.connection_lost(error)

    def drop(self) -> None:
        self.link.drop(UpstreamFault("reset", "for the test"))

    def into(self, phase: Phase) -> None:
        """Bring a new connection into a phase."""
        steps: dict[Phase, list[Callable[[], object]]] = {
            Phase.OPENING: [],
            Phase.CLOSED: [self.made, self.drop],
            Phase.IDLE: [self.made],
            Phase.HEAD: [self.made, self.begin],
            Phase.BODY: [self.made, self.begin, lambda: self.data(LONG)],
            Phase.STALLED: [self.made, self.begin, lambda: self.data(LONG), self.stall],
        }
        for step in steps[phase]:
            step()
        assert self.link.phase is phase


def run(script: Callable[[Case], Awaitable[None]], room: int = 0) -> None:
    async def main() -> None:
        await script(Case(room))

    with asyncio.Runner(loop_factory=Loop) as runner:
        runner.run(main())


def no_body(case: Case) -> None:
    case.give_up()
    case.link = watched(case.replica, case.loop, case.moves)
    case.transport = Transport()
    case.made()
    case.begin(head_only=True)
    case.data(OK)


#: How a test brings each event about. Those of the phases that do not last come out of the same read as the one before.
EVENTS: dict[str, Callable[[Case], object]] = {
    "made": Case.made,
    "begin": Case.begin,
    "interim": lambda case: case.data(INTERIM),
    "head": lambda case: case.data(LONG),
    "head only": no_body,
    "piece": lambda case: case.data(b"x"),
    "stall": Case.stall,
    "take more": Case.take,
    "end": lambda case: case.data(b"x" * 200_000),
    "data": lambda case: case.data(b"x"),
    "eof": lambda case: case.link.eof_received(),
    "late": Case.late,
    "lost": Case.lose,
    "drop": Case.drop,
}
#: What a read has to bring for the events of the phases that do not last.
READS: dict[tuple[Phase, str], tuple[bytes, ...]] = {
    (Phase.WHOLE, "keep"): (OK,),
    (Phase.WHOLE, "excess"): (OK + b"HTTP",),
    (Phase.WHOLE, "drop"): (b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n",),
    (Phase.EXCESS, "excess"): (OK + OK + OK,),
    (Phase.EXCESS, "drop"): (OK + OK,),
}


@pytest.mark.interpreted  # a compiled class has no subclasses to watch it with
@pytest.mark.parametrize(
    ("phase", "event"), [(phase, event) for phase, events in ANSWERING.items() for event in events]
)
def test_a_connection_moves_as_the_table_says(phase: Phase, event: str) -> None:
    expected = ANSWERING[phase][event]

    async def script(case: Case) -> None:
        if phase in LASTING:
            case.into(phase)
            case.moves.clear()
            done = EVENTS[event](case)
            if isinstance(done, Awaitable):
                await done
        else:
            case.into(Phase.HEAD)
            case.data(*READS[phase, event])
        if expected is phase:
            assert phase not in LASTING or (case.moves, case.link.phase) == ([], phase)
        else:
            assert (phase, expected) in case.moves

    run(script)


@pytest.mark.interpreted
@pytest.mark.parametrize("phase", LASTING)
def test_what_the_table_does_not_allow_is_refused(phase: Phase) -> None:
    async def script(case: Case) -> None:
        case.into(phase)
        if "begin" not in ANSWERING[phase]:
            with pytest.raises((RuntimeError, UpstreamFault)):
                case.begin()
        if "take more" not in ANSWERING[phase]:
            case.link.take_more()
        if "late" not in ANSWERING[phase]:
            assert case.link.deadline == NEVER
        assert case.link.phase is phase

    run(script)


@pytest.mark.interpreted
def test_a_connection_that_broke_before_its_first_call_is_a_fault_of_that_call() -> None:
    async def script(case: Case) -> None:
        case.into(Phase.IDLE)
        case.lose()
        with pytest.raises(UpstreamFault) as caught:
            case.begin()
        assert caught.value.fault == "reset"
        assert (case.link.phase, case.upstream.in_flight) == (Phase.CLOSED, 0)

    run(script)


def test_every_phase_has_an_entry_in_every_table() -> None:
    assert set(ANSWERING) == set(phase_seconds(1, 1)) == set(Phase)
    assert set(SENDING) == set(Sending)
    assert {phase for phase, events in ANSWERING.items() if "late" in events} == {
        Phase.IDLE, Phase.HEAD, Phase.BODY, Phase.STALLED,
    }  # fmt: skip
    assert all(seconds == NEVER for phase, seconds in phase_seconds(1, 1).items() if "late" not in ANSWERING[phase])
    assert set(READS) | {(p, e) for p in LASTING for e in ANSWERING[p]} == {
        (p, e) for p in ANSWERING for e in ANSWERING[p]
    }


def expected_deadline(case: Case) -> float:
    """Return what the tables make of a phase that was entered just now."""
    seconds = phase_seconds(TIMEOUT, IDLE_TIMEOUT)[case.link.phase]
    if case.link.phase is Phase.HEAD and case.link.sending is Sending.FEEDING:
        seconds = NEVER
    return min(case.loop.now + seconds, NEVER if case.link.answer is None else case.link.answer.latest)


@pytest.mark.interpreted
@pytest.mark.parametrize("sending", Sending)
@pytest.mark.parametrize("phase", [Phase.HEAD, Phase.BODY, Phase.STALLED])
def test_the_deadline_is_that_of_the_phase_and_no_call_outlasts_its_total_time(phase: Phase, sending: Sending) -> None:
    async def script(case: Case) -> None:
        case.into(Phase.HEAD)
        if sending in (Sending.FEEDING, Sending.BLOCKED):
            case.upload()
        if sending in (Sending.BLOCKED, Sending.FLUSHING):
            case.link.pause_writing()
        if phase is not Phase.HEAD:
            case.data(LONG)
        if phase is Phase.STALLED:
            case.stall()
        assert (case.link.phase, case.link.sending) == (phase, sending)
        assert case.link.deadline == expected_deadline(case)
        case.loop.now += TOTAL - 1
        if phase is not Phase.STALLED:
            case.data(INTERIM if phase is Phase.HEAD else b"x")
            assert case.link.deadline <= case.loop.now + 1
        await case.turn()
        case.give_up()
        assert case.link.deadline == NEVER

    run(script)


@pytest.mark.interpreted
@pytest.mark.parametrize(
    ("sending", "event"), [(sending, event) for sending, events in SENDING.items() for event in events]
)
def test_a_request_moves_as_the_table_says(sending: Sending, event: str) -> None:
    async def script(case: Case) -> None:
        case.into(Phase.HEAD)
        if sending in (Sending.FEEDING, Sending.BLOCKED):
            case.upload()
        if sending in (Sending.FLUSHING, Sending.BLOCKED):
            case.link.pause_writing()
        await case.turn()
        assert case.link.sending is sending
        match event:
            case "upload":
                case.upload()
            case "pause":
                case.link.pause_writing()
            case "resume":
                case.link.resume_writing()
            case _:
                case.client.put_nowait(None)
                await case.turn()
        assert case.link.sending is SENDING[sending][event]

    run(script)


ALLOWED: Final = {(a, b) for a, events in ANSWERING.items() for b in events.values() if a is not b} | {
    (a, b) for a, events in SENDING.items() for b in events.values()
}
FRAGMENTS: Final = (
    OK, OK[:20], OK[20:], OK + b"x", OK + OK, LONG, CHUNKED, b"3\r\nabc\r\n", b"0\r\n\r\n", ENDLESS, INTERIM,
    b"y" * 70_000, b"nonsense\r\n\r\n", b"HTTP/1.1 101 Switching Protocols\r\n\r\n", b"HTTP/1.1 204 No Content\r\n\r\n",
    b"HTTP/1.0 500 Ill\r\ncontent-length: 0\r\n\r\n", b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\n",
)  # fmt: skip
STEPS: Final = st.one_of(
    st.sampled_from(
        ["begin", "begin", "HEAD", "last", "upload", "client", "client ends", "pause", "resume", "take", "take", "eof",
         "late", "evict", "cancel", "lost", "broken"]
    ),
    st.sampled_from(FRAGMENTS),
    st.sampled_from(FRAGMENTS),
)  # fmt: skip


async def step(case: Case, given: str | bytes) -> None:
    """Do one step, if the world outside could do it in this state."""
    link, answer = case.link, case.answer
    if isinstance(given, bytes):
        if not case.lost and case.transport.reading and not case.transport.aborted:
            case.data(given)
    elif given in ("begin", "HEAD", "last"):
        if answer is None and link.phase is Phase.IDLE:
            case.begin(head_only=given == "HEAD", last=given == "last")
    elif given == "upload":
        if link.answer is not None and link.sending in (Sending.WRITTEN, Sending.FLUSHING) and link._upload is None:
            case.upload()
    elif given == "client":
        case.client.put_nowait(b"z" * 1_000)
    elif given == "client ends":
        case.client.put_nowait(None)
    elif given == "pause":
        if "pause" in SENDING[link.sending]:
            link.pause_writing()
    elif given == "resume":
        if "resume" in SENDING[link.sending]:
            link.resume_writing()
    elif given == "take":
        if answer is not None and answer._chunks:
            await answer.next_chunk()
    elif given == "eof":
        link.eof_received()
    elif given == "late":
        case.late()
    elif given == "evict":
        case.loop.now += EVICT_SECONDS
        link.evict(case.loop.now)
    elif given == "cancel":
        case.give_up()
    elif not case.lost:
        case.lose(None if given == "lost" else OSError("broken"))
    await case.turn()


def finish_call(case: Case) -> None:
    """Do what ``Upstream.call`` does once the call is over, whichever way it went."""
    if case.answer is not None and case.link.answer is None and not case.answer._chunks:
        case.give_up()


@pytest.mark.interpreted
@given(st.lists(STEPS, max_size=25), st.integers(0, 300_000))
@settings(max_examples=200, deadline=None)
def test_whatever_happens_a_connection_moves_by_the_tables_and_gives_back_what_it_took(
    steps: list[str | bytes], room: int
) -> None:
    async def script(case: Case) -> None:
        case.made()
        for one in steps:
            before = case.link.phase
            await step(case, one)
            link = case.link
            assert link.phase in LASTING, f"{one!r} in {before}"
            assert (link.answer is not None) == (link.phase in (Phase.HEAD, Phase.BODY, Phase.STALLED))
            assert case.transport.reading == (link.phase is not Phase.STALLED) or link.phase is Phase.CLOSED
            assert (link in case.replica.idle) <= (link.phase is Phase.IDLE)
            assert link.deadline <= expected_deadline(case)
            finish_call(case)
        assert set(case.moves) <= ALLOWED
        case.give_up()
        if not case.lost:
            case.lose()
        assert case.link.phase is Phase.CLOSED
        assert (case.upstream.in_flight, case.replica.in_flight, case.upstream.buffers.used) == (0, 0, 0)
        assert not case.replica.links
        await case.turn()

    run(script, room)


def test_an_idle_connection_has_a_deadline_of_its_own() -> None:
    assert phase_seconds(TIMEOUT, IDLE_TIMEOUT)[Phase.IDLE] == IDLE_SECONDS
