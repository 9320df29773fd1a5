"""Read journals in tests: the text of every whole line, segment by segment."""

from __future__ import annotations

from pathlib import Path

from gateway.journal.seal import header, unsealed
from gateway.journal.segments import read_lines, segments


def texts(directory: Path) -> list[bytes]:
    """The lines of all segments in a folder, without headers."""
    return [text for segment in by_segment(directory) for text in segment]


def by_segment(directory: Path) -> list[list[bytes]]:
    """The same, a list for each segment."""
    return [
        [text for text in map(_text, read_lines(segment.path, 0, 2**26)[0]) if text + b"\n" != header(segment.writer)]
        for segment in segments(directory)
    ]


def _text(line: bytes) -> bytes:
    return unsealed(line)[1]
