"""How a key of a rollout's tables is declared: with its description, and the name of the kind of its value.

Rule: the names are those of ``router.config.kinds``, which reads them; nothing here imports it.
"""

from __future__ import annotations

from dataclasses import field
from typing import Annotated, TypeVar

T = TypeVar("T")

Duration = Annotated[int, "duration"]  # in milliseconds
Count = Annotated[int, "count"]
Share = Annotated[float, "share"]


def setting(default: T, description: str) -> T:
    """Declare a key that may be left out."""
    made: T = field(default=default, metadata={"description": description})
    return made
