"""The same requests come out of the same bytes, however the network cuts them."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.proxy.server.accept import Refusal
from gateway.proxy.server.intake import BETWEEN, WHOLE, Intake

HEAD = b"POST /%d HTTP/1.1\r\nHost: a\r\n"
UPGRADE = b"Connection: upgrade\r\nUpgrade: h2c\r\n"


@dataclass
class Taken:
    """In place of a connection: takes requests, and answers each at once or when it is asked to."""

    requests: list[tuple[bytes, bytes]] = field(default_factory=list)
    under_way: bytes | None = None

    def begin(self, method: str, target: bytes, *_: Any) -> None:
        assert self.under_way is None
        self.requests.append((target, b""))
        self.under_way = target

    def body(self, data: bytes) -> None:
        target, before = self.requests[-1]
        self.requests[-1] = target, before + data

    def excess(self) -> None:
        raise AssertionError

    def whole(self) -> None:
        assert self.under_way is not None
        self.under_way = None


def intake() -> tuple[Intake, Taken]:
    taken = Taken()
    limits = SimpleNamespace(max_header_bytes=65_536, max_headers=128, max_target_bytes=8_192, max_body_bytes=2**20)
    return Intake(cast("Any", taken), cast("Any", limits)), taken


def wire(number: int, body: bytes, framing: str, upgrade: bool) -> bytes:
    head = HEAD % number + (UPGRADE if upgrade else b"")
    if framing == "none":
        return head + b"\r\n"
    if framing == "length":
        return head + b"Content-Length: %d\r\n\r\n" % len(body) + body
    middle = len(body) // 2
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (body[:middle], body[middle:]) if part)
    return head + b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\nHost: trailer\r\n\r\n"


# Bodies of the bytes that end messages, and of what would be a request if it were read as one.
bodies = st.lists(st.sampled_from([b"\r\n", b"\r\n\r\n", b"0\r\n\r\n", b"x", HEAD % 666 + b"\r\n"]), max_size=4).map(
    b"".join
)
messages = st.lists(
    st.tuples(bodies, st.sampled_from(["none", "length", "chunked"]), st.booleans()), min_size=1, max_size=5
)


@pytest.mark.interpreted
@given(messages=messages, cuts=st.lists(st.integers(1, 40), max_size=60), lazy=st.booleans())
def test_requests_are_the_same_wherever_the_bytes_are_cut(
    messages: list[tuple[bytes, str, bool]], cuts: list[int], lazy: bool
) -> None:
    sent = b"".join(wire(number, *message) for number, message in enumerate(messages))
    expected = [
        (b"/%d" % number, b"" if framing == "none" else body) for number, (body, framing, _) in enumerate(messages)
    ]
    taker, taken = intake()

    def answer() -> None:
        while taker.stage == WHOLE:
            taker.stage = BETWEEN
            if taker.held:
                taker.proceed()

    at = 0
    for cut in [*cuts, len(sent)]:
        if at < len(sent):
            taker.feed(sent[at : at + cut])
            at += cut
        if not lazy:
            answer()
    answer()
    assert taken.requests == expected
    assert taken.under_way is None
    assert (taker.stage, taker.held) == (BETWEEN, 0)


@pytest.mark.interpreted
@pytest.mark.parametrize("upgrade", [False, True])
@pytest.mark.parametrize("cut", [1_000, 65_536, 70_000, 300_000, 10**6])
def test_a_long_body_of_known_length_ends_at_its_length(cut: int, upgrade: bool) -> None:
    """It goes by the parser: what it holds is no request, and what comes behind it is one."""
    long, sizes = (HEAD % 666 + b"\r\n") * 8_000, (0, 65_535, 65_536, 65_537, 100_000, 240_000)
    messages = [(long[:size], "length", upgrade) for size in sizes] + [(b"x", "chunked", upgrade)]
    sent = b"".join(wire(number, *message) for number, message in enumerate(messages))
    taker, taken = intake()
    for at in range(0, len(sent), cut):
        taker.feed(sent[at : at + cut])
        while taker.stage == WHOLE:
            taker.stage = BETWEEN
            if taker.held:
                taker.proceed()
    assert taken.requests == [(b"/%d" % number, body) for number, (body, _, _) in enumerate(messages)]
    assert (taken.under_way, taker.stage, taker.held) == (None, BETWEEN, 0)


@pytest.mark.interpreted
@given(data=st.binary(max_size=200), prefix=st.sampled_from([b"", HEAD % 1, b"GET / HTTP/1.1\r\nHost: "]))
def test_no_bytes_do_worse_than_being_refused(data: bytes, prefix: bytes) -> None:
    taker, _ = intake()
    with contextlib.suppress(Refusal):
        taker.feed(prefix + data)


@pytest.mark.interpreted
def test_nothing_is_parsed_beyond_the_request_under_way() -> None:
    taker, taken = intake()
    taker.feed(HEAD % 1 + b"\r\n" + b"\0 not even HTTP")
    assert (taken.requests, taker.held) == ([(b"/1", b"")], 15)
    taker.stage = BETWEEN
    with pytest.raises(Refusal):
        taker.proceed()
