"""Checks that several policies make on their settings.

Rule: each returns every problem it finds and raises nothing; a message says what was given and what is valid.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite

from policies.types import Path, SettingProblem


def share_problems(path: Path, share: float) -> tuple[SettingProblem, ...]:
    """Return the problem of a share that is not in [0, 1], NaN included.

    >>> share_problems(("share",), 5.0)
    (SettingProblem(path=('share',), message='must lie in [0, 1], got 5.0'),)
    """
    return () if 0 <= share <= 1 else (SettingProblem(path, f"must lie in [0, 1], got {share}"),)


def distinct_problems(path: Path, names: Sequence[str], *, what: str) -> tuple[SettingProblem, ...]:
    """Return the problems of a list of variants that must have at least two different names.

    >>> [problem.message for problem in distinct_problems(("variants",), ("a", "b", "a"), what="variants")]
    ['"a" is named twice; name each of the variants once']
    """
    problems = []
    if len(set(names)) < 2:
        problems.append(SettingProblem(path, f"needs at least two different {what}, got {_listed(names)}"))
    for index, name in enumerate(names):
        if name in names[:index]:
            problems.append(SettingProblem((*path, index), f'"{name}" is named twice; name each of the {what} once'))
    return tuple(problems)


def positive_problems(path: Path, number: float) -> tuple[SettingProblem, ...]:
    """Return the problem of a number that is not positive and finite."""
    if number > 0 and isfinite(number):
        return ()
    return (SettingProblem(path, f"must be a positive finite number, got {number}"),)


def pointer_problems(path: Path, pointer: str) -> tuple[SettingProblem, ...]:
    """Return the problem of text that is not a JSON Pointer (RFC 6901); "" is one, and means the whole value.

    >>> [problem.message for problem in pointer_problems(("items",), "outputs/0")]
    ['"outputs/0" is no JSON Pointer: it must be empty or start with "/", as in "/outputs/0"']
    """
    if pointer and not pointer.startswith("/"):
        return (
            SettingProblem(
                path,
                f'"{pointer}" is no JSON Pointer: it must be empty or start with "/", as in "/{pointer}"',
            ),
        )
    if any(tail[:1] not in {"0", "1"} for tail in pointer.split("~")[1:]):
        return (
            SettingProblem(path, f'"{pointer}" is no JSON Pointer: "~" must be followed by 0 (for "~") or 1 (for "/")'),
        )
    return ()


def _listed(names: Sequence[str]) -> str:
    return ", ".join(f'"{name}"' for name in names) or "none"
