"""Prediction ids: UUIDv7, so that its time is in an id and ids sort by age.

Rule: 48 bits of Unix milliseconds, then 74 random bits: two workers never need to agree on anything.
Source: RFC 9562, section 5.7.
"""

from __future__ import annotations

import os


def new_id(at_ms: int) -> str:
    """Return a new prediction id made at ``at_ms``, as the usual 36 characters."""
    chance = int.from_bytes(os.urandom(10), "big")
    # From the top: 4 bits of version, 12 random; 2 bits of variant, 62 random.
    high = 0x7000 | (chance >> 68)
    low = 1 << 63 | (chance & (2**62 - 1))
    digits = f"{at_ms & (2**48 - 1):012x}{high:04x}{low:016x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"
