"""JSON Pointers into requests and answers, and when two JSON values are equal.

Rule: nothing here raises on data. What is not there is ``MISSING``, what is not JSON ``UNREADABLE``; null is a value.
"""

from __future__ import annotations

import re
from enum import Enum
from functools import lru_cache
from hashlib import blake2b
from typing import Final

import orjson


class Absence(Enum):
    """Why there is no value. Equal to no JSON value, so that null and absent cannot be mixed up."""

    MISSING = "missing"
    UNREADABLE = "unreadable"


MISSING: Final = Absence.MISSING
UNREADABLE: Final = Absence.UNREADABLE

#: The most steps of a pointer. No model's answer nests deeper, and the cost of a request stays bounded.
MAX_STEPS: Final = 64

#: Two values of one of these types are equal in JSON exactly if Python says so.
_PLAIN: Final = frozenset({str, int, float, bool})

#: Identifiers must fit into a database's index, and thousands of them are kept in memory.
_IDENTIFIER_BYTES: Final = 256
#: A lone surrogate, which UTF-8 cannot encode.
SURROGATE: Final = re.compile(r"[\ud800-\udfff]")  # raw: mypyc cannot compile a literal with a lone surrogate

_INDEX = re.compile(r"0|[1-9][0-9]{0,8}", re.ASCII)
_STEP = re.compile(r"[^.\[\]/]+")
_BAD_ESCAPE = re.compile(r"~(?![01])")

_Steps = tuple[tuple[str, int | None], ...]


class Pointer:
    """A compiled JSON Pointer (RFC 6901): "" is the whole document, "/a/0" element 0 of member a.

    Pointers are equal when their texts are.

    >>> Pointer("/outputs/0/data").find({"outputs": [{"data": 7}]})
    7
    >>> Pointer("/outputs/7").find({"outputs": []})
    <Absence.MISSING: 'missing'>
    """

    __slots__ = ("steps", "text")

    def __init__(self, text: str) -> None:
        """Raises ValueError saying what the text must look like."""
        if text and not text.startswith("/"):
            raise ValueError(f'must be a JSON Pointer: empty, or beginning with "/", as in "{_as_pointer(text)}"')
        if _BAD_ESCAPE.search(text):
            raise ValueError('must be a JSON Pointer, in which "~" is followed by 0 (for "~") or 1 (for "/")')
        if text.count("/") > MAX_STEPS:
            raise ValueError(f"must be a JSON Pointer of at most {MAX_STEPS} steps")
        names = (part.replace("~1", "/").replace("~0", "~") for part in text.split("/")[1:])
        self.text = text
        #: Each step as the name of a member and, when it can be one, as the index of an element.
        self.steps: _Steps = tuple((name, int(name) if _INDEX.fullmatch(name) else None) for name in names)

    def find(self, document: object) -> object:
        """Return the value pointed at, or MISSING."""
        try:
            for name, index in self.steps:
                if type(document) is dict:
                    document = document[name]
                elif type(document) is list and index is not None:
                    document = document[index]
                else:
                    return MISSING
        except (KeyError, IndexError):
            return MISSING
        return document

    def replaced(self, document: object, value: object) -> object:
        """Return a copy of the document with ``value`` where the pointer points.

        Only the containers on the pointer's way are copied; the document itself is not changed. Raises LookupError if
        nothing is there.
        """
        return _replaced(document, self.steps, value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Pointer) and self.text == other.text

    def __hash__(self) -> int:
        return hash(self.text)

    def __repr__(self) -> str:
        return f"Pointer({self.text!r})"


def _as_pointer(text: str) -> str:
    """Return the pointer that a path in another notation probably means.

    >>> _as_pointer("outputs[0].data[0]"), _as_pointer("$.a['b']")
    ('/outputs/0/data/0', '/a/b')
    """
    steps = (step.strip("'\"").replace("~", "~0") for step in _STEP.findall(text.removeprefix("$")))
    return "".join(f"/{step}" for step in steps) or "/outputs/0"


@lru_cache(maxsize=4096)
def pointer(text: str) -> Pointer:
    """Return the pointer, compiled once per text. Raises ValueError as ``Pointer`` does."""
    return Pointer(text)


def decode_json(body: bytes) -> object:
    """Return the JSON value of a body, or UNREADABLE."""
    try:
        value: object = orjson.loads(body)
    except orjson.JSONDecodeError:
        return UNREADABLE
    return value


def writable(value: object) -> bool:
    """Return whether a JSON value can be written, and within 32 more levels of nesting too.

    What can be read cannot always be written again: it may nest too deeply, or hold a lone surrogate. The 32 levels are
    for what contains it later, such as a row or a report.
    """
    if type(value) in (dict, list):
        for _ in range(32):
            value = [value]
    try:
        orjson.dumps(value)
    except TypeError:
        return False
    return True


def text_of(value: object) -> str | None:
    """Return a value as the text of an identifier (of a unit, a key, an item), or None if it cannot be one.

    Texts and numbers can, numbers by value, so that 7, 7.0 and "7" are the same. Empty texts, null, booleans, lists and
    tables cannot.

    >>> text_of("u-1"), text_of(7.0), text_of(0.5), text_of(True)
    ('u-1', '7', '0.5', None)
    """
    if isinstance(value, str):
        return value or None
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() else repr(value)
    return None


def identifier(text: str) -> str:
    """Return the text under which an identifier is kept: itself, or a hash of it.

    One that is longer than 256 bytes, or that databases cannot hold (with NUL or a lone surrogate), is replaced by its
    hash. Requests, feedback, imports, explanations and erasures all call this, so they agree on the identifier.

    >>> identifier("user-17"), identifier("u" * 257)[:19]
    ('user-17', 'hashed:76748760f740')
    """
    if len(text) <= _IDENTIFIER_BYTES and text.isascii() and "\0" not in text:
        return text  # nearly all
    encoded = text.encode("utf-8", "surrogatepass")
    if len(encoded) <= _IDENTIFIER_BYTES and "\0" not in text and not SURROGATE.search(text):
        return text
    return f"hashed:{blake2b(encoded, digest_size=32).hexdigest()}"


def equal(one: object, other: object) -> bool:
    """Return whether two JSON values are equal: numbers by value, and a boolean is no number.

    >>> equal([1, {"a": 2}], [1.0, {"a": 2.0}]), equal(1, True), equal(None, MISSING)
    (True, False, False)
    """
    if type(one) is type(other) in _PLAIN:
        return one == other
    pairs = [(one, other)]
    while pairs:  # a stack, not recursion: JSON nests deeper than Python does
        a, b = pairs.pop()
        if isinstance(a, dict) and isinstance(b, dict):
            if a.keys() != b.keys():
                return False
            pairs.extend((a[name], b[name]) for name in a)
        elif isinstance(a, list) and isinstance(b, list):
            if len(a) != len(b):
                return False
            pairs.extend(zip(a, b, strict=True))
        elif isinstance(a, bool) != isinstance(b, bool) or a != b:
            return False
    return True


def _replaced(document: object, steps: _Steps, value: object) -> object:
    if not steps:
        return value
    (name, index), rest = steps[0], steps[1:]
    if isinstance(document, dict):
        return {**document, name: _replaced(document[name], rest, value)}
    if isinstance(document, list) and index is not None:
        return [*document[:index], _replaced(document[index], rest, value), *document[index + 1 :]]
    raise LookupError(name)
