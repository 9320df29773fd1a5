"""Chance without a random module: a hash becomes a number in (0, 1), and weights become a choice.

Rule: deterministic, about a microsecond, and no import but the hash. Every worker runs this once per request.

The hash is XXH3 of 64 bits. Its values are spread as evenly as random ones (its own tests and ours show it), proxies
use it for the same purpose, and it costs an eighth of BLAKE2. It is not cryptographic: a client that knows the salt can
compute which variant any unit gets (``router.assignment`` therefore hashes salts with a key).
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from math import log
from typing import Final

from xxhash import xxh3_64_intdigest

#: 1 / (2**53 + 1), written out because compiled code would divide by 2**53, and could then draw 1. With this factor the
#: largest number drawn, 2**53 times it, is the last float before 1. Multiplying is cheaper than dividing.
_SCALE: Final = 1.1102230246251564e-16
_FOREVER: Final = float("inf")
_hash: Final = xxh3_64_intdigest  # compiled code reads a Final name without a dict look-up
#: The length of a key as it is written before it, for the lengths that keys have.
_LENGTHS: Final = tuple(b"%d:" % length for length in range(256))


def chance(salt: str, key: str, label: str = "") -> float:
    """Return a number in (0, 1), uniform over keys, independent between salts and between labels.

    Each part is hashed with its length before it, so that ("a", "bc") and ("ab", "c") differ.

    >>> chance("checkout", "user-1") == chance("checkout", "user-1")
    True
    """
    return _uniform(_subject(salt, key) + label.encode())


def pick(salt: str, key: str, weights: Iterable[tuple[str, float]]) -> tuple[str, float]:
    """Return one name and its weight, with probability proportional to that; names of weight 0 are never picked.

    Weighted rendezvous hashing: each name draws an exponential waiting time with its weight as the rate, and the
    shortest wins. So the shares are met exactly, and raising one weight moves keys only towards that name.

    Raises ValueError if no weight is positive.
    Source: Schindelhauer & Schomaker 2005, "Weighted distributed hash tables", logarithmic method.
    """
    best, shortest = None, _FOREVER
    subject = _subject(salt, key)
    for pair in weights:
        name, weight = pair
        if weight > 0:
            # chance(salt, key, name), with the bytes that all names share encoded once.
            waiting = -log(_uniform(subject + name.encode())) / weight
            if waiting < shortest:
                best, shortest = pair, waiting
    if best is None:
        raise ValueError("pick needs at least one positive weight")
    return best


def _subject(salt: str, key: str) -> bytes:
    length = len(key)
    beginning = _written(salt) + (_LENGTHS[length] if length < len(_LENGTHS) else b"%d:" % length)
    try:
        return beginning + key.encode()
    except UnicodeEncodeError:
        # A header may hold bytes that are not UTF-8. They arrive as lone surrogates, and must be hashed, not fail.
        return beginning + key.encode("utf-8", "surrogatepass")


@lru_cache(maxsize=1_024)
def _written(salt: str) -> bytes:
    return f"{len(salt)}:{salt}".encode("utf-8", "surrogatepass")


def _uniform(text: bytes) -> float:
    # 53 bits, and never 0 or 1: 64 bits would round up to 1.0, and the caller takes the logarithm.
    return ((_hash(text) >> 11) + 1) * _SCALE
