"""The modules that are compiled ahead of time, and how one sees whether they are.

Rule: compiled or not, the program does the same; ``build`` is asked only to be shown. A wheel is compiled wherever it
was built with a C compiler (``hatch_build.py``); a source tree, and so an editable installation, never is.

Compiled classes are structures of C, and annotations are held to: code that is not compiled may not derive from them
(``policies.types`` stays out for that), nothing can stand in for them, and only their declared attributes exist.
orjson reads dataclasses by the layout that Python gives them, and crashes on compiled ones (``router.snapshot`` stays
out for that). An integer beyond 2**53 is rounded before it is divided. Constants that are Final cannot be replaced from
outside.
"""

from __future__ import annotations

from importlib.machinery import EXTENSION_SUFFIXES
from importlib.util import find_spec
from typing import Final, Literal, TypeVar

_Class = TypeVar("_Class", bound=type)

#: One of the modules on the list in ``pyproject.toml``: all of them are compiled, or none is.
_ONE: Final = "gateway.journal.seal"


def interpreted(kind: _Class) -> _Class:
    """Mark a class that stays one of Python's own in a compiled module, such as one that derives from ``list``.

    Any decorator that the compiler does not know has this effect.
    """
    return kind


def build() -> Literal["compiled", "interpreted"]:
    """Return which build this process imports: asked of a module, since several may be installed beside each other."""
    spec = find_spec(_ONE)
    return "compiled" if spec and spec.origin and spec.origin.endswith(tuple(EXTENSION_SUFFIXES)) else "interpreted"
