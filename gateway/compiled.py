"""The modules that are compiled ahead of time, and whether they are in this process.

Rule: compiled or not, the program does the same; ``build`` is used only to show it. A wheel is compiled wherever it
was built with a C compiler (``hatch_build.py``); a source tree, and so an editable installation, never is.

Compiled classes are structures of C, and annotations are enforced: code that is not compiled may not derive from them
(so ``policies.types`` is not compiled), they cannot be replaced by mocks, and only their declared attributes exist.
orjson relies on the memory layout of Python's dataclasses, and crashes on compiled ones (so ``router.snapshot`` is not
compiled). An integer beyond 2**53 is rounded before it is divided. Constants that are Final cannot be replaced from
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
    """Return which build this process imports; it looks at a module, since several builds may be installed."""
    spec = find_spec(_ONE)
    return "compiled" if spec and spec.origin and spec.origin.endswith(tuple(EXTENSION_SUFFIXES)) else "interpreted"
