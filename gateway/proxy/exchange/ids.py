"""Prediction ids: UUIDv7, so that an id holds its time and ids sort by age.

Rule: 48 bits of Unix milliseconds, then 74 random bits, so that workers need not coordinate. The random bits are the
kernel's, fetched for many ids at a time, and each is used once.
Source: RFC 9562, section 5.7.
"""

from __future__ import annotations

import os
from typing import Final

#: Ids for which random bits are fetched at once: a system call for each id cost more than the rest of making it.
_FETCHED: Final = 256
#: Random byte → the byte that holds the version (7, above four random bits), and the variant (binary 10, above six).
_VERSION: Final = bytes(0x70 | byte & 0x0F for byte in range(256))
_VARIANT: Final = bytes(0x80 | byte & 0x3F for byte in range(256))


_endings: list[str] = []
_time: tuple[int, str] = (-1, "")


def new_id(at_ms: int) -> str:
    """Return a new prediction id made at ``at_ms``, as the usual 36 characters."""
    global _time
    if not _endings:
        _fetch()
    made, text = _time
    if made != at_ms:
        digits = f"{at_ms & 0xFFFF_FFFF_FFFF:012x}"
        text = f"{digits[:8]}-{digits[8:]}"
        _time = (at_ms, text)
    return text + _endings.pop()


def _fetch() -> None:
    """Make more of the random endings that follow the time in an id."""
    ids = bytearray(os.urandom(16 * _FETCHED))
    ids[6::16] = ids[6::16].translate(_VERSION)
    ids[8::16] = ids[8::16].translate(_VARIANT)
    digits = ids.hex()
    _endings.extend(
        f"-{digits[at + 12 : at + 16]}-{digits[at + 16 : at + 20]}-{digits[at + 20 : at + 32]}"
        for at in range(0, len(digits), 32)
    )
