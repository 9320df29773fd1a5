"""Error texts for unknown names, with the name that was probably meant."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def unknown(kind: str, name: str, names: Iterable[str]) -> str:
    """Say that there is no such name, and which was probably meant.

    >>> unknown("route", "digit", ["digits", "search"])
    'no route is named "digit"; did you mean "digits"?'
    """
    listed = list(names)
    near = get_close_matches(name, listed, n=1)
    if near:
        hint = f'did you mean "{near[0]}"?'
    elif listed:
        hint = f"there are {', '.join(sorted(listed)[:20])}"
    else:
        hint = "there is none"
    return f'no {kind} is named "{name[:100]}"; {hint}'
