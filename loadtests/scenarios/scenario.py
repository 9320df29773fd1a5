"""A scenario: its name, what it shows, and how it is run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from loadtests.bench import Bench
from loadtests.table import Finding


@dataclass(frozen=True, slots=True)
class Scenario:
    """``run`` measures and returns what it found; it ends all it started."""

    name: str
    shows: str
    run: Callable[[Bench], Finding]
