"""How a key of the operator's file is declared: as a field of the value that its table becomes.

Rule: a key stands in one place, with its type, its default and what it means. ``router.config`` makes the table that is
read of it, and how a type is written and checked in the file is known there (``router.config.kinds``), by the name in
the type's annotation. Standard library only: workers import this room, and never ``router.config``.
"""

from __future__ import annotations

from dataclasses import field
from typing import Annotated, Any, NamedTuple, TypeVar

T = TypeVar("T")


class Bounds(NamedTuple):
    """What a whole number must lie between, ends included."""

    least: int
    most: int | None = None


Text = Annotated[str, "text"]
Line = Annotated[str, "line"]
Positive = Annotated[int, Bounds(1)]
Whole = Annotated[int, Bounds(0)]
Share = Annotated[float, "share"]
Duration = Annotated[int, "duration"]  # in milliseconds
PointerText = Annotated[str, "pointer"]
ReferenceText = Annotated[str, "reference"]
AbsolutePath = Annotated[str, "path"]
#: A list that, where it is given, is not empty.
Some = Annotated[tuple[T, ...], "some"]
Methods = Some[Annotated[str, "method"]]


def setting(default: T, description: str, **marks: bool) -> T:
    """Declare a key that may be left out."""
    made: T = field(default=default, metadata=described(description, **marks))
    return made


def described(description: str, **marks: Any) -> dict[str, Any]:
    """Return what makes a field a key: what it means, and how it differs from others.

    ``default`` is what a key that is left out is read as, where the field itself has no default. The line of a
    ``secret`` key is never quoted. Only a ``restart`` changes what a process was started with. Nodes of one fleet may
    differ in what is ``own``.
    """
    return {"description": description, **marks}
