"""A peer: a gateway that can stand in front of the backends, and the task that it is given.

Rule: every peer gets the same job, does as much of it as it can, and says in ``note`` what it does otherwise.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from loadtests.machine import cpu_seconds, rss_bytes


@dataclass(frozen=True, slots=True)
class Job:
    """The task of a gateway.

    ``variants`` are the ports of the backends: one, or two with half of the users each, by the header x-user-id.
    ``mirror`` is the port of the backend that gets a copy of a share of the requests. Every request is logged.
    """

    variants: tuple[int, ...]
    mirror: int | None = None
    mirror_share: float = 0.1
    workers: int = 1


@dataclass(frozen=True, slots=True)
class Gateway:
    """A running peer: its port, the processes that carry requests, and its other processes.

    ``settle`` waits until all work that the requests caused is done, and returns how many seconds that took.
    ``data_dir`` and ``admin`` are Turnout's own.
    """

    port: int
    carriers: tuple[int, ...]
    others: tuple[int, ...] = ()
    settle: Callable[[], float] = lambda: 0.0
    data_dir: Path | None = None
    admin: int | None = None

    def carrying_seconds(self) -> float:
        """CPU seconds so far of the processes that carry requests."""
        return cpu_seconds(self.carriers)

    def all_seconds(self) -> float:
        """CPU seconds so far of all its processes."""
        return cpu_seconds((*self.carriers, *self.others))

    def carrying_bytes(self) -> int:
        """Memory now of the processes that carry requests."""
        return rss_bytes(self.carriers)


@dataclass(frozen=True, slots=True)
class Peer:
    """``absent`` returns why it cannot take part, or None; ``serve`` starts it in a scratch directory.

    A ``handmade`` one takes part in the simplest scenarios only; with ``splits`` False, not where users are split.
    """

    name: str
    note: str
    absent: Callable[[], str | None]
    serve: Callable[[Job, Path], AbstractContextManager[Gateway]]
    handmade: bool = False
    splits: bool = True


def direct(port: int) -> Gateway:
    """Return the backend itself, as if it were a gateway that costs nothing."""
    return Gateway(port=port, carriers=())


def scratch(directory: Path, name: str) -> Path:
    """Make a directory of this name."""
    found = directory / name
    found.mkdir()
    return found
