"""How many files a process may have open, and how many of them are left for clients.

Rule: what is kept in reserve is never a client's: a worker without a descriptor for its journal sheds rows, and one
without any for its backends answers 502. Standard library only.
"""

from __future__ import annotations

import resource
from collections.abc import Iterable
from typing import Final

from router.snapshot import Backend, Gateway

#: The journal, the loop, what a library opens.
_OWN: Final = 64
#: Where there is no hard limit, or one that no machine reaches.
_MOST: Final = 2**20
#: Connections beyond the bound that are told so: at most this share, and so many.
_TOLD_SHARE: Final = 16
TOLD: Final = 256


def hard_limit() -> int:
    """Return how many files ``serve`` may let each of its processes open."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _MOST if hard == resource.RLIM_INFINITY else min(hard, _MOST)


def raise_limit() -> int:
    """Raise the soft limit to the hard one; return what there is then. Children inherit it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = hard_limit()
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return soft_limit()


def soft_limit() -> int:
    """Return how many files this process may open."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _MOST if soft == resource.RLIM_INFINITY else soft


def told(limit: int) -> int:
    """Return how many connections beyond the bound are told that they are too many; others are just closed."""
    return min(TOLD, limit // _TOLD_SHARE)


def connections(gateway: Gateway, backends: Iterable[Backend], limit: int) -> int:
    """Return how many connections of clients a worker takes with so many descriptors: max_connections, if they suffice.

    Connections to backends are as many as their settings let there be, at most half: a client has one call at a time.
    """
    room = limit - _OWN - told(limit)
    outward = sum(backend.max_concurrency * len(backend.urls) for backend in backends) + gateway.mirror_max_concurrency
    return max(1, min(gateway.max_connections, room - min(outward, room // 2)))
