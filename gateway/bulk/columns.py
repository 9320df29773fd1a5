"""Which column of a file holds which field of a feedback event.

Rule: a column named as a field is that field, unless the caller says otherwise; a field that the caller fixes is the
same for every row. What is in no field is left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Final

from gateway import nearest

FIELDS: Final = ("prediction_id", "route", "key", "metric", "value", "item", "event_id", "revision", "occurred_at")


class WrongColumns(ValueError):
    """The columns that were asked for are not those of the file, or do not make an event."""


@dataclass(frozen=True, slots=True)
class Columns:
    """``named`` are fields by the column that holds them ("": none does), ``fixed`` fields by their value."""

    named: Mapping[str, str] = field(default_factory=dict)
    fixed: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raises WrongColumns if a field is none, or is said twice."""
        for name in (*self.named, *self.fixed):
            if name not in FIELDS:
                raise WrongColumns(nearest.unknown("field", name, FIELDS))
        for name in self.named.keys() & self.fixed.keys():
            raise WrongColumns(f"{name} is taken from a column, or is the same for every row: not both")

    def of(self, header: Sequence[str]) -> dict[str, int]:
        """Return the place of each field in a file with this header. Raises WrongColumns if it cannot make events."""
        for name, column in self.named.items():
            if column and column not in header:
                raise WrongColumns(f"{name}: {nearest.unknown('column', column, header)}")
        wanted = {name: self.named.get(name, name) for name in FIELDS if name not in self.fixed}
        found = {name: header.index(column) for name, column in wanted.items() if column in header}
        there = {*found, *self.fixed}
        for column in header:
            # Left out silently, a misspelt occurred_at would have every label happen today.
            near = get_close_matches(column, FIELDS, n=1, cutoff=0.85)
            if near and column not in wanted.values() and near[0] not in {*there, *self.named}:
                hint = f"did you mean {near[0]}? Say --column {near[0]}={column}, or --column {near[0]}= if it is not"
                raise WrongColumns(f'the column "{column}" is no field; {hint}')
        for name in ("metric", "value"):
            if name not in there:
                raise WrongColumns(f"no column is {name}: {_offer(name, header)}")
        if "prediction_id" not in there and not {"route", "key"} <= there:
            raise WrongColumns(f"no column is prediction_id (or route and key): {_offer('prediction_id', header)}")
        return found


def _offer(name: str, header: Sequence[str]) -> str:
    columns = ", ".join(header[:20])
    return f"say which one with --column {name}=COLUMN; the file has {columns}"
