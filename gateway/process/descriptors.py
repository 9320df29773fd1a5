"""How many files a process may have open, and how many of them are left for clients.

Rule: clients never get the descriptors in reserve: a worker without a descriptor for its journal sheds rows, and one
without any for its backends answers 502. Standard library only.
"""

from __future__ import annotations

import resource
from collections.abc import Iterable
from typing import Final

from router.snapshot import Backend, Gateway

#: Descriptors for the journal, the event loop and what libraries open.
_OWN: Final = 64
#: What is used as the limit where there is no hard limit, or one that no machine reaches.
_MOST: Final = 2**20
#: Connections beyond the bound that get a 503 before they are closed: at most one in 16 of the limit, and 256.
_REFUSED_SHARE: Final = 16
MOST_REFUSED: Final = 256


def hard_limit() -> int:
    """Return how many files ``serve`` may let each of its processes open."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _MOST if hard == resource.RLIM_INFINITY else min(hard, _MOST)


def raise_limit() -> int:
    """Raise the soft limit to the hard one, which children inherit, and return the limit that is then in force."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = hard_limit()
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return soft_limit()


def soft_limit() -> int:
    """Return how many files this process may open."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _MOST if soft == resource.RLIM_INFINITY else soft


def refused(limit: int) -> int:
    """Return how many connections beyond the bound get a 503 at the same time; further ones are closed at once."""
    return min(MOST_REFUSED, limit // _REFUSED_SHARE)


def connections(gateway: Gateway, backends: Iterable[Backend], limit: int) -> int:
    """Return how many client connections a worker accepts with this many descriptors: max_connections, if they suffice.

    Connections to backends get as many as their settings allow, but at most half: a client has one call at a time.
    """
    room = limit - _OWN - refused(limit)
    outward = sum(backend.max_concurrency * len(backend.urls) for backend in backends) + gateway.mirror_max_concurrency
    return max(1, min(gateway.max_connections, room - min(outward, room // 2)))
