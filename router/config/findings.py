"""What is wrong with a setting, without its line in the file.

Rule: a finding names the setting by its path and says what was given and what is accepted. ``diagnostics.locate`` looks
up its position in the text, and only when there is something to report.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Final, Literal

import orjson

from policies.types import Path

Severity = Literal["error", "warning"]

_BARE: Final = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)
_LONGEST: Final = 60


@dataclass(frozen=True, slots=True)
class Finding:
    """Something wrong with the setting at ``path``. ``message`` is a whole sentence that contains the path.

    ``at`` says what to point at: the setting's value, its key, or the head of the table at ``path`` when something is
    missing from it. The line of a ``secret`` setting is never quoted.
    """

    path: Path
    message: str
    hint: str | None = None
    at: Literal["value", "key", "table"] = "value"
    severity: Severity = "error"
    secret: bool = False


def dotted(path: Path) -> str:
    """Return a path as an operator would write it.

    >>> dotted(("routes", "a b", "mirrors", 0, "share"))
    'routes."a b".mirrors[0].share'
    """
    text = ""
    for step in path:
        if isinstance(step, int):
            text += f"[{step}]"
        else:
            text += ("." if text else "") + (step if _BARE.fullmatch(step) else quoted(step))
    return text


def quoted(text: str) -> str:
    """Return the text in double quotes, shortened when long; control characters are escaped."""
    return orjson.dumps(text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…").decode()


def shown(value: object) -> str:
    """Return a short form of a given value: text in quotes, numbers as they are, tables and lists by their kind."""
    if isinstance(value, str):
        return quoted(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        # Python refuses to print integers of more than 4,300 digits.
        return str(value) if isinstance(value, float) or abs(value) < 10**20 else "a very large number"
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list | tuple):
        return "a list" if value else "an empty list"
    return "a date or time"


def listed(names: Iterable[str], last: str = "or") -> str:
    """Return names in quotes, as a phrase.

    >>> listed(["a", "b", "c"])
    '"a", "b" or "c"'
    """
    words = [quoted(name) for name in names]
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} {last} {words[-1]}" if words else "none"


def closest(word: str, names: Iterable[str]) -> str | None:
    """Return the name that was probably meant, or None if none is like the word."""
    # 0.4, because "canry" must still find "candidate". The word is cut because the comparison is quadratic.
    return next(iter(get_close_matches(word[:_LONGEST], list(names), n=1, cutoff=0.4)), None)


def did_you_mean(word: str, names: Iterable[str]) -> str | None:
    """Return the hint for a name that is none of ``names``: the closest of them, or all of them when they are few."""
    known = list(dict.fromkeys(names))
    meant = closest(word, known)
    if meant is not None:
        return f"did you mean {quoted(meant)}?"
    return f"there is {listed(known, 'and')}" if 0 < len(known) <= 6 else None


def wrong(table: Path, name: str, words: str, hint: str | None = None, *, warning: bool = False) -> Finding:
    """Return what is wrong with the setting ``name`` of a table; ``words`` follow its path."""
    path = (*table, name)
    return Finding(path, f"{dotted(path)} {words}", hint, severity="warning" if warning else "error")


def unknown(path: Path, what: str, name: str, known: Iterable[str], at: Literal["key", "value"] = "value") -> Finding:
    """Return that there is no such backend, metric or route."""
    message = f"{dotted(path[:-1] if at == 'key' else path)}: unknown {what} {quoted(name)}"
    return Finding(path, message, did_you_mean(name, known), at)


def repeated(path: Path, names: Iterable[str], rule: str) -> Iterator[Finding]:
    """Yield each name of a list that stands in it before."""
    seen: set[str] = set()
    for index, name in enumerate(names):
        if name in seen:
            yield Finding((*path, index), f"{dotted((*path, index))} repeats {quoted(name)}; {dotted(path)} {rule}")
        seen.add(name)
