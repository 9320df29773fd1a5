"""Who is randomised: references such as "header:x-user-id" or "body:/user/id", read from one request.

Rule: a reference is parsed once and reading it never raises: what the request does not carry is MISSING. The unit, the
key by which feedback names a request and the features are all given by such references.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Literal
from urllib.parse import unquote_plus

from router.extract import MISSING, Pointer, identifier, text_of
from router.match import Facts

Source = Literal["header", "cookie", "query", "body"]

#: RFC 9110 §5.6.2: the characters of a header name, and of a cookie's.
TOKEN: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", re.ASCII)

_FORM: Final = "must be header:NAME, cookie:NAME, query:NAME or body:/json/pointer"


@dataclass(frozen=True, slots=True)
class Reference:
    """Where in a request a value stands. ``pointer`` is set for a body, ``name`` (lower case for headers) otherwise."""

    source: Source
    name: str
    pointer: Pointer | None = None

    def read(self, facts: Facts, body: object = MISSING) -> object:
        """Return the value as it was sent, or MISSING. ``body`` is the decoded body, which only "body:" needs.

        A repeated header counts as one value, its lines joined with ", "; of a repeated cookie or query parameter the
        first counts.
        """
        if self.source == "header":
            value: object = facts.header(self.name)
        elif self.source == "cookie":
            value = _cookie(facts, self.name)
        elif self.source == "query":
            value = _parameter(facts.query, self.name)
        else:
            return MISSING if self.pointer is None else self.pointer.find(body)
        return MISSING if value is None else value

    def identity(self, facts: Facts, body: object = MISSING) -> str | None:
        """Return the value as an identifier, or None if there is none or it is not a text or a number."""
        text = facts.header(self.name) if self.source == "header" else text_of(self.read(facts, body))
        return identifier(text) if text else None


@lru_cache(maxsize=4096)
def reference(text: str) -> Reference:
    """Return the parsed reference, parsed once per text. Raises ValueError saying what it must look like.

    >>> reference("header:X-User-Id")
    Reference(source='header', name='x-user-id', pointer=None)
    """
    source, colon, name = text.partition(":")
    match source:
        case "header" | "cookie" if TOKEN.fullmatch(name):
            return Reference(source, name.lower() if source == "header" else name)
        case "query" if name:
            return Reference("query", name)
        case "body" if colon:
            return Reference("body", name, Pointer(name))
    raise ValueError(_FORM)


def _cookie(facts: Facts, name: str) -> str | None:
    for line in facts.lines("cookie"):
        for pair in line.split(";"):
            key, _, content = pair.partition("=")
            if key.strip() == name:
                return content.strip().strip('"')
    return None


def _parameter(query: str, name: str) -> str | None:
    for pair in query.split("&"):
        key, _, content = pair.partition("=")
        # Only what could be the name is decoded: that keeps a long query cheap.
        if key == name or (("%" in key or "+" in key) and unquote_plus(key) == name):
            return unquote_plus(content)
    return None
