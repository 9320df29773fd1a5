"""The modules of the request path that may be compiled ahead of time, and how one sees whether they are.

Rule: compiled or not, the program does the same; nothing asks ``compiled`` but to say so. An ordinary installation is
not compiled, and a source tree never is: what is compiled lies in a wheel that was built for it (``hatch_build.py``).

Compiled classes are structures of C, and annotations are held to: code that is not compiled may not derive from them
(``policies.types`` stays out for that), nothing can stand in for them, and only their declared attributes exist.
orjson reads dataclasses by the layout that Python gives them, and crashes on compiled ones (``router.snapshot`` stays
out for that). An integer beyond 2**53 is rounded before it is divided. Constants that are Final cannot be replaced from
outside.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Final, TypeVar

_Class = TypeVar("_Class", bound=type)

#: Where the compiler puts what all of them share. Its presence is what says that they are compiled.
SHARED: Final = "turnout__mypyc"


def interpreted(kind: _Class) -> _Class:
    """Mark a class that stays one of Python's own in a compiled module, such as one that derives from ``list``.

    Any decorator that the compiler does not know has this effect.
    """
    return kind


def is_compiled() -> bool:
    """Return whether this installation's request path is compiled."""
    return find_spec(SHARED) is not None
