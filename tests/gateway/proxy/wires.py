"""Generated requests as bytes, mangled bytes, and a second reader to compare with: what fuzzing the edge needs.

Rule: no state and no sockets. The second reader is h11, which shares no line with the parser that the edge uses.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

import h11
from hypothesis import strategies as st

#: Pieces that begin, end or hide something: what a careless reader would trip over.
TOKENS: Final = (
    b"\r\n", b"\r\n\r\n", b"\n", b"\r", b"\0", b" ", b"\t", b":", b",", b";", b"0", b"0\r\n\r\n", b"\x0b", b"\xff",
    b"Host: a\r\n", b"Content-Length: 5\r\n", b"Content-Length: 0\r\n", b"Transfer-Encoding: chunked\r\n",
    b"Transfer-Encoding: identity\r\n", b"Connection: close\r\n", b"Connection: upgrade\r\nUpgrade: h2c\r\n",
    b"Expect: 100-continue\r\n", b"GET /666 HTTP/1.1\r\nHost: a\r\n\r\n", b" HTTP/1.0\r\n", b"5\r\nhello\r\n",
)  # fmt: skip

_TOKEN: Final = "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
_VALUE: Final = bytes(sorted({9, *range(32, 127), *range(128, 256)}))


@dataclass(frozen=True, slots=True)
class Sent:
    """One request: what it means, and how it is written."""

    method: bytes
    target: bytes
    fields: tuple[tuple[bytes, bytes], ...]
    body: bytes
    wire: bytes


@dataclass(frozen=True, slots=True)
class Read:
    """One whole request, as a reader understood it."""

    method: bytes
    target: bytes
    body: bytes


_names = st.text(_TOKEN, min_size=1, max_size=12).map(lambda text: b"x-" + text.encode())
_values = st.lists(st.sampled_from(_VALUE), max_size=20).map(bytes).map(lambda value: value.strip(b" \t"))
_fields = st.lists(st.tuples(_names, _values), max_size=4)
_targets = st.text("abc/.;=%-_~?&", max_size=20).map(lambda text: b"/" + text.encode())
# Of the bytes that end messages, and of what would be a request if it were read as one.
_bodies = st.lists(
    st.one_of(st.binary(max_size=30), st.sampled_from(TOKENS)), min_size=1, max_size=5
).map(b"".join)  # fmt: skip
_extensions = st.sampled_from([b"", b"", b";a", b";a=b;c", b';q="x y"', b" ;a=1"])


@st.composite
def _chunked(draw: st.DrawFn, body: bytes) -> bytes:
    """The body in chunks of any size, with zeros, capitals and extensions, and with trailers."""
    pieces = []
    at = 0
    while at < len(body):
        part = body[at : at + draw(st.integers(1, 40))]
        at += len(part)
        size = draw(st.sampled_from([b"%x", b"%X", b"000%x"])) % len(part)
        pieces.append(size + draw(_extensions.filter(lambda text: text[:1] != b" ")) + b"\r\n" + part + b"\r\n")
    trailers = b"".join(b"%b: %b\r\n" % field for field in draw(_fields))
    return b"".join(pieces) + draw(st.sampled_from([b"0", b"000"])) + b"\r\n" + trailers + b"\r\n"


@st.composite
def requests(draw: st.DrawFn) -> Sent:
    """Any request that must be taken."""
    method = draw(st.sampled_from([b"GET", b"POST", b"PUT", b"DELETE", b"PATCH", b"OPTIONS"]))
    target = draw(_targets)
    fields = [(b"Host", b"a"), *draw(_fields)]
    if draw(st.integers(0, 4)) == 0:
        fields += [(b"Connection", b"Upgrade, HTTP2-Settings"), (b"Upgrade", b"h2c"), (b"HTTP2-Settings", b"AAMAAABk")]
    framing = draw(st.sampled_from(["none", "length", "chunked"]))
    body = b"" if framing == "none" else draw(_bodies)
    content = body
    if framing == "length":
        fields.append((b"Content-Length", b"%d" % len(body)))
    elif framing == "chunked":
        fields.append((b"Transfer-Encoding", b"chunked"))
        content = draw(_chunked(body))
    line = draw(st.sampled_from([b"", b"", b"\r\n"])) + b"%b %b HTTP/1.1\r\n" % (method, target)
    space = draw(st.sampled_from([b"", b" ", b"\t "]))
    head = b"".join(_line(name, value, space) for name, value in fields)
    return Sent(method, target, tuple(fields), body, line + head + b"\r\n" + content)


def _line(name: bytes, value: bytes, space: bytes) -> bytes:
    # The parser takes no tabs around framing: no client writes them, and some servers would not see them.
    space = space.replace(b"\t", b"") if name in (b"Content-Length", b"Transfer-Encoding") else space
    return b"%b:%b%b%b\r\n" % (name, space, value, space)


@st.composite
def mangled(draw: st.DrawFn) -> bytes:
    """A few requests, and then something done to their bytes."""
    data = b"".join(sent.wire for sent in draw(st.lists(requests(), min_size=1, max_size=3)))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)))
        cut = draw(st.integers(0, 8))
        data = (
            data[:at] + draw(st.one_of(st.sampled_from(TOKENS), st.binary(max_size=4), st.just(b""))) + data[at + cut :]
        )
    return data


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    """Cut the data into pieces of these lengths, and the rest."""
    found = []
    for cut in cuts:
        if cut >= len(data):
            break
        found.append(data[:cut])
        data = data[cut:]
    return [*found, data]


def second_reading(data: bytes) -> list[Read]:
    """Return the whole requests that h11 finds, up to the first thing it refuses.

    One parser for each request: h11 serves no second request after HTTP/1.0 or an upgrade, where the edge does. The
    data is changed first as RFC 9112 allows and h11 does not do itself: empty lines before a request are passed over
    (section 2.2), and several spaces between the parts of a request line are one (section 3).
    """
    found: list[Read] = []
    while data := data.lstrip(b"\r\n"):
        reader = h11.Connection(h11.SERVER)
        reader.receive_data(re.sub(rb"^([A-Z-]+) +([^ \r\n]+) +(?=HTTP/)", rb"\1 \2 ", data))
        body = b""
        head: h11.Request | None = None
        try:
            while not isinstance(event := reader.next_event(), h11.EndOfMessage):
                if isinstance(event, h11.Request):
                    head = event
                elif isinstance(event, h11.Data):
                    body += event.data
                else:
                    return found
        except h11.RemoteProtocolError:
            return found
        assert head is not None
        found.append(Read(head.method, head.target, body))
        data = reader.trailing_data[0]
    return found
