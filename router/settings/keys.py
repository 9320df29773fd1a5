"""How a key of the operator's file is declared: as a field of the class that its table becomes.

Rule: a key is declared in one place, with its type, default and description. ``router.config`` derives the table that
it reads from this; the name in a type's annotation says which kind of value it is (``router.config.kinds``: how that is
written and checked). Workers import this room, so nothing here imports ``router.config`` or
pydantic.
"""

from __future__ import annotations

from dataclasses import field
from typing import Annotated, Any, NamedTuple, TypeVar

T = TypeVar("T")


class Bounds(NamedTuple):
    """The least and the largest value of a whole number."""

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
#: A list that must not be empty if it is given.
Some = Annotated[tuple[T, ...], "some"]
Methods = Some[Annotated[str, "method"]]


def setting(default: T, description: str, **marks: bool) -> T:
    """Declare a key that may be left out."""
    made: T = field(default=default, metadata=described(description, **marks))
    return made


def described(description: str, **marks: Any) -> dict[str, Any]:
    """Return the metadata that makes a field a key: its description, and marks.

    ``default``: what an absent key is read as, if the field itself has no default. ``secret``: the line in the file is
    never quoted. ``restart``: a change needs a restart. ``own``: the nodes of one fleet may differ in it.
    """
    return {"description": description, **marks}
