"""Give each cell of a page's tables the heading of its column, so that a narrow screen can show rows as lists.

Rule: it only adds ``data-label`` to cells; a cell that spans columns gets none. Names in a page are escaped before, so
no tag in it comes from data.
"""

from __future__ import annotations

import re
from typing import Final

_TABLE: Final = re.compile(r"<table\b.*?</table>", re.DOTALL)
_HEADING: Final = re.compile(r"<th scope=\"col\"[^>]*>(.*?)</th>", re.DOTALL)
_ROW: Final = re.compile(r"<tr\b.*?</tr>", re.DOTALL)
_CELL: Final = re.compile(r"<t[dh](?=[\s>])(?![^>]*colspan)")
_TAG: Final = re.compile(r"<[^>]+>")


def labelled(page: str) -> str:
    """Return the page with labels.

    >>> labelled('<table><tr><th scope="col">n</th></tr></thead><tr><td>7</td></tr></table>')
    '<table><tr><th scope="col">n</th></tr></thead><tr><td data-label="n">7</td></tr></table>'
    """
    return _TABLE.sub(lambda found: _of_table(found[0]), page)


def _of_table(table: str) -> str:
    head, end, body = table.partition("</thead>")
    names = [_TAG.sub("", one).strip().replace('"', "&#34;") for one in _HEADING.findall(head)]
    return head + end + _ROW.sub(lambda found: _of_row(found[0], names), body)


def _of_row(row: str, names: list[str]) -> str:
    left = iter(names)
    return _CELL.sub(lambda found: f'{found[0]} data-label="{next(left, "")}"', row)
