"""A sealed line shows on its own whether it is complete, whatever stands around it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.journal.seal import SegmentRefused, check_header, header, pieces, sealed, unsealed

WRITER = "018bcfe56800-03-018bcfe569f4"
LINE = b'{"line":"beat","at_ms":1700000000000}\n'


def changed(content: bytes, bit: int) -> bytes:
    at, mask = bit // 8, 1 << bit % 8
    return content[:at] + bytes([content[at] ^ mask]) + content[at + 1 :]


def opened(line: bytes) -> tuple[int, bytes] | None:
    try:
        return unsealed(line)
    except ValueError:
        return None


@given(st.binary().filter(lambda text: b"\n" not in text), st.integers(0, 2**40))
def test_what_is_sealed_is_unsealed(text: bytes, number: int) -> None:
    assert unsealed(sealed(text + b"\n", number)[:-1]) == (number, text)


def test_no_changed_bit_is_taken_for_the_line() -> None:
    """Of the number, of the checksum, of the text: what is still taken for whole is what was written."""
    line = sealed(LINE, 77)[:-1]
    for bit in range(len(line) * 8):
        assert opened(changed(line, bit)) in (None, (77, LINE[:-1]))
    assert opened(changed(line, 8 * len(line) - 9)) is None


@given(st.binary(max_size=60))
def test_anything_else_is_not_whole(line: bytes) -> None:
    assert opened(line) is None


def test_a_damaged_line_is_cut_where_others_begin() -> None:
    first, second = sealed(LINE, 1), sealed(LINE, 2)
    assert pieces(first[:30] + second) == [first[:30], second]
    assert pieces(b"rest" + second) == [b"rest", second]
    assert pieces(b"") == []


def test_a_format_to_come_is_refused_by_name() -> None:
    line = header(WRITER).replace(b'"format":1', b'"format":2')
    with pytest.raises(SegmentRefused, match="its format is 2, and this program reads 1"):
        check_header(sealed(line, 0) + b"anything", WRITER)


def test_a_segment_under_anothers_name_is_refused() -> None:
    with pytest.raises(SegmentRefused, match="and is named as if by 'somebody'"):
        check_header(sealed(header(WRITER), 5), "somebody")


@pytest.mark.parametrize("beginning", [b"", b"\x1e12", changed(sealed(header(WRITER), 0), 300), sealed(LINE, 9)])
def test_without_a_whole_header_lines_speak_for_themselves(beginning: bytes) -> None:
    check_header(beginning, "somebody")
