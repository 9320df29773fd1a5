"""Whatever is added to a head, and by whom: it stays the head of one message, and its framing is the gateway's."""

from __future__ import annotations

import contextlib

import httptools
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.proxy.wire.headers import DATE, HOP, LENGTH, MEANING, Fields, Header, checked, end_to_end, joined
from gateway.proxy.wire.wire import answer_head, request_head

ENDS_A_LINE = (b"\r", b"\n", b"\0", b"\r\n", b"\r\nx: y", b"\r\n\r\nGET / HTTP/1.1\r\n")
pieces = st.sampled_from([b"", b"a", b"x-y", b":", b" ", b"\t", b"content-length", b"Transfer-Encoding", *ENDS_A_LINE])
texts = st.one_of(st.binary(max_size=6), st.lists(pieces, max_size=3).map(b"".join))
fields = st.tuples(texts, texts)


def added(given: list[Header]) -> Fields:
    """Those of them that ``add`` takes."""
    made = Fields([], 0)
    for name, value in given:
        with contextlib.suppress(ValueError):
            made.add(name, value)
    return made


def lines(head: bytes) -> list[bytes]:
    assert head.endswith(b"\r\n\r\n")
    return head[:-4].split(b"\r\n")


@given(st.lists(fields, max_size=6), st.lists(fields, max_size=3))
@example([(b"x", b"a\r\ncontent-length: 5")], [(b"x\r\ny", b"")])
def test_no_sequence_of_adds_puts_a_byte_that_ends_a_line_into_a_head(first: list[Header], then: list[Header]) -> None:
    made = added(first)
    made.extend(added(then))
    kept = list(made)
    for head in (
        answer_head(200, made, length=0),
        request_head("GET", b"/", made, authority=b"a", length=0),
    ):
        named = [line.partition(b": ")[0].lower() for line in lines(head)[1:]]
        assert head.count(b"\r") == head.count(b"\n") == len(named) + 2
        assert b"\0" not in head
        assert named[: len(kept)] == [name.lower() for name, _ in kept], "each is one line"
        assert named.count(b"content-length") == 1
        assert b"transfer-encoding" not in named


@given(st.lists(fields, max_size=4))
def test_a_head_of_unchecked_fields_is_refused_or_one_message(given: list[Header]) -> None:
    """What is no ``Fields`` is checked when the head is written."""
    with contextlib.suppress(ValueError):
        head = answer_head(200, given, length=0)
        assert head.count(b"\r") == head.count(b"\n") == len(lines(head)) + 1
        assert b"\0" not in head


@pytest.mark.parametrize("value", ENDS_A_LINE)
def test_a_value_that_ends_a_line_is_refused_whichever_way_it_comes(value: bytes) -> None:
    made = Fields([], 0)
    with pytest.raises(ValueError, match="line break"):
        made.add(b"x", b"a" + value)
    with pytest.raises(ValueError, match="line break"):
        answer_head(200, [(b"x", b"a" + value)])
    assert list(made) == []


@pytest.mark.parametrize("name", [b"", b"a b", b"a:", b"a\r\nb", b"a\0", b"caf\xe9"])
def test_a_name_that_is_none_is_not_added(name: bytes) -> None:
    with pytest.raises(ValueError, match="name"):
        Fields([], 0).add(name, b"")


@pytest.mark.parametrize("name", [b"a\r\nb", b"a\0", b"\n"])
def test_a_name_that_ends_a_line_is_written_in_no_head(name: bytes) -> None:
    with pytest.raises(ValueError, match="line break"):
        answer_head(200, [(name, b"")])


@pytest.mark.parametrize("name", [b"Content-Length", b"transfer-encoding", b"Connection", b"Upgrade"])
def test_framing_is_not_added(name: bytes) -> None:
    with pytest.raises(ValueError, match="name"):
        Fields([], 0).add(name, b"5")


def test_what_is_added_counts_as_there() -> None:
    made = Fields([], 0)
    made.add(b"date", b"now")
    assert made.meanings & DATE
    assert lines(answer_head(204, made)) == [b"HTTP/1.1 204 No Content", b"date: now"]


def test_joined_fields_change_neither_part_and_are_checked_as_far_as_they_were() -> None:
    first, then = checked((b"x", b"1")), checked((b"date", b"now"))
    both = joined(first, then)
    assert isinstance(both, Fields)
    assert both.meanings & DATE
    assert list(both) == [(b"x", b"1"), (b"date", b"now")] == joined([(b"x", b"1")], then)
    assert [list(first), list(then)] == [[(b"x", b"1")], [(b"date", b"now")]]


class Parsed:
    def __init__(self) -> None:
        self.headers: list[Header] = []

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name, value))


@pytest.mark.parametrize(
    ("parser", "line"),
    [
        (httptools.HttpRequestParser, b"GET / HTTP/1.1\r\nHost: a\r\n"),
        (httptools.HttpResponseParser, b"HTTP/1.1 200 OK\r\n"),
    ],
)
def test_the_parser_lets_no_byte_through_that_ends_a_line(parser: type, line: bytes) -> None:
    """So fields that it read cross the gateway as they are, without another look."""
    for byte in map(bytes, ([number] for number in range(256))):
        for field in (b"x" + byte + b"y: 1\r\n", b"x: a" + byte + b"b\r\n", b"x: a\r\n" + byte + b"b: 1\r\n"):
            parsed = Parsed()
            with contextlib.suppress(httptools.HttpParserError):
                parser(parsed).feed_data(line + field + b"\r\n")
            for name, value in end_to_end(parsed.headers, HOP | LENGTH):
                assert MEANING[name] & (HOP | LENGTH) == 0
                added([]).add(name, value)
