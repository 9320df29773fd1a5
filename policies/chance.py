"""Chance without a random module: a hash becomes a number in (0, 1), and weights become a choice.

Rule: standard library only, deterministic, about a microsecond. Runs once per request in every worker.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from hashlib import blake2b
from math import log
from struct import Struct
from typing import Final

#: 1 / (2**53 + 1), written out because compiled code would divide by 2**53, and draw 1. So 2**53 times this, the
#: largest number drawn, is the last one before 1. Multiplying is cheaper than dividing.
_SCALE: Final = 1.1102230246251564e-16
_UNSIGNED: Callable[[bytes], tuple[int]] = Struct(">Q").unpack
_FOREVER = float("inf")


def chance(salt: str, key: str, label: str = "") -> float:
    """Return a number in (0, 1), uniform over keys, independent between salts and between labels.

    Each part is hashed with its length before it, so that ("a", "bc") and ("ab", "c") differ.

    >>> chance("checkout", "user-1") == chance("checkout", "user-1")
    True
    """
    return _uniform(_subject(salt, key) + label.encode())


def pick(salt: str, key: str, weights: Iterable[tuple[str, float]]) -> tuple[str, float]:
    """Return one name and its weight, with probability proportional to that; names of weight 0 are never picked.

    Weighted rendezvous hashing: each name draws an exponential waiting time with its weight as the rate and the
    first to ring wins, so shares are hit exactly, and raising one weight moves keys only towards that name.

    Raises ValueError if no weight is positive.
    Source: Schindelhauer & Schomaker 2005, "Weighted distributed hash tables", logarithmic method.
    """
    best, shortest = None, _FOREVER
    subject = _subject(salt, key)
    for pair in weights:
        name, weight = pair
        if weight > 0:
            # chance(salt, key, name), with what all names share written once.
            (bits,) = _UNSIGNED(blake2b(subject + name.encode(), digest_size=8).digest())
            waiting = -log(((bits >> 11) + 1) * _SCALE) / weight
            if waiting < shortest:
                best, shortest = pair, waiting
    if best is None:
        raise ValueError("pick needs at least one positive weight")
    return best


def _subject(salt: str, key: str) -> bytes:
    # A header may hold bytes that are no UTF-8: they reach us as lone surrogates, and must hash, not fail.
    subject = f"{len(salt)}:{salt}{len(key)}:{key}"
    try:
        return subject.encode()
    except UnicodeEncodeError:
        return subject.encode("utf-8", "surrogatepass")


def _uniform(text: bytes) -> float:
    (bits,) = _UNSIGNED(blake2b(text, digest_size=8).digest())
    # 53 bits, and never 0 or 1: 64 bits would round up to 1.0, and the caller takes the logarithm.
    return ((bits >> 11) + 1) * _SCALE
