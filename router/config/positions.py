"""The position of each key and value in a TOML text.

Rule: built only when there is something to report, and never raises: a setting that is not found has the position of
the table around it. The text has been accepted by ``tomllib``; the grammar here (tree-sitter-toml) is the same TOML
1.0.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

import tree_sitter_toml
from tree_sitter import Language, Node, Parser

from policies.types import Path

#: Levels of nesting that are indexed. No setting is that deep; a deeper one is reported at the last indexed level.
DEEPEST: Final = 32

_KEYS: Final = frozenset({"bare_key", "quoted_key", "dotted_key"})


@dataclass(frozen=True, slots=True)
class TextSpan:
    """A stretch of one line: line and column count from 1, in characters."""

    line: int
    column: int
    width: int = 1


class Positions:
    """The index of one text: for each path the positions of its key, its value and the head of its table."""

    def __init__(self, text: str) -> None:
        source = text.encode()
        self._lines = source.split(b"\n")
        self._keys: dict[Path, Node] = {}
        self._values: dict[Path, Node] = {}
        self._heads: dict[Path, tuple[Node, Node]] = {}  # the brackets around the name of a table
        self._declared: set[Path] = set()  # tables with a head of their own, not only subtables
        self._elements: dict[Path, int] = {}  # arrays of tables: the index of the last one
        #: The first key or table that was set before, if any.
        self.repeated: TextSpan | None = None
        root = Parser(Language(tree_sitter_toml.language())).parse(source).root_node
        for node in root.named_children:
            if node.type == "pair":
                self._pair((), node)
            elif node.type in ("table", "table_array_element"):
                self._table(node)

    def find(self, path: Path, at: Literal["value", "key", "table"] = "value") -> TextSpan:
        """Return the position of a setting; if it is absent, of the table around it, or else the start of the text."""
        places = {"value": (self._values, self._keys), "key": (self._keys, self._values), "table": ()}[at]
        for place in places:
            if path in place:
                return self._span(place[path])
        if path in self._heads:
            return self._span(*self._heads[path])
        if path in self._keys:  # an inline table: its key stands for its head
            return self._span(self._keys[path])
        return self.find(path[:-1], "table") if path else TextSpan(1, 1)

    def _table(self, node: Node) -> None:
        names = [child for child in node.children if child.type in _KEYS]
        if not names:
            return
        head = node.children[0], names[0].next_sibling or names[0]
        path: Path = ()
        keys = list(_segments(names[0]))
        for number, key in enumerate(keys[:DEEPEST], 1):
            path = (*path, _name(key))
            self._keys.setdefault(path, key)
            self._heads.setdefault(path, head)
            if number == len(keys):
                path = self._declare(path, node, head)
            elif path in self._elements:
                path = (*path, self._elements[path])
        for child in node.named_children:
            if child.type == "pair":
                self._pair(path, child)

    def _declare(self, path: Path, node: Node, head: tuple[Node, Node]) -> Path:
        """Index the table that a head begins; return its path, which for an array of tables ends in an index."""
        if node.type == "table_array_element":
            self._elements[path] = self._elements.get(path, -1) + 1
            path = (*path, self._elements[path])
        elif path in self._declared or path in self._values:
            self.repeated = self.repeated or self._span(*head)
        self._declared.add(path)
        self._heads[path] = head
        return path

    def _pair(self, path: Path, node: Node) -> None:
        key, value = node.named_children[:2]  # a comment may follow
        for segment in _segments(key):
            if len(path) >= DEEPEST:
                return
            path = (*path, _name(segment))
            self._keys.setdefault(path, segment)
        if path in self._values:
            self.repeated = self.repeated or self._span(key)
        self._value(path, value)

    def _value(self, path: Path, node: Node) -> None:
        self._values.setdefault(path, node)
        if len(path) >= DEEPEST:
            return
        if node.type == "inline_table":
            for pair in node.named_children:
                if pair.type == "pair":
                    self._pair(path, pair)
        elif node.type == "array":
            items = (item for item in node.named_children if item.type != "comment")
            for index, item in enumerate(items):
                self._value((*path, index), item)

    def _span(self, first: Node, last: Node | None = None) -> TextSpan:
        (row, start), (end_row, end) = first.start_point, (last or first).end_point
        line = self._lines[row].rstrip(b"\r")
        before = line[:start].decode("utf-8", "replace")
        inside = line[start : end if end_row == row else None].decode("utf-8", "replace")
        return TextSpan(row + 1, len(before) + 1, max(len(inside), 1))


def _segments(key: Node) -> Iterator[Node]:
    """Yield the parts of a dotted key. The grammar nests them to the left, as deep as the key is long."""
    stack = [key]
    while stack:
        node = stack.pop()
        if node.type == "dotted_key":
            stack.extend(reversed(node.named_children))
        else:
            yield node


def _name(key: Node) -> str:
    text = (key.text or b"").decode("utf-8", "replace")
    if key.type != "quoted_key":
        return text
    try:
        return next(iter(tomllib.loads(f"{text} = 0")))
    except tomllib.TOMLDecodeError:
        return text
