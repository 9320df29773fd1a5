"""Which column of a file holds which field of a feedback event.

Rule: a column named as a field is that field, unless the caller says otherwise; a field that the caller fixes has the
same value in every row. A column that is no field is ignored.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Final

from gateway import nearest

FIELDS: Final = ("prediction_id", "route", "key", "metric", "value", "item", "event_id", "revision", "occurred_at")


class WrongColumns(ValueError):
    """The file lacks a column that was named, or its columns do not make an event."""


@dataclass(frozen=True, slots=True)
class Columns:
    """``named`` maps fields to the columns that hold them ("": none does), ``fixed`` maps fields to their one value."""

    named: Mapping[str, str] = field(default_factory=dict)
    fixed: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raises WrongColumns if a name is no field, or is in both mappings."""
        for name in (*self.named, *self.fixed):
            if name not in FIELDS:
                raise WrongColumns(nearest.unknown("field", name, FIELDS))
        for name in self.named.keys() & self.fixed.keys():
            raise WrongColumns(f"{name} is taken from a column, or is the same for every row: not both")

    def of(self, header: Sequence[str]) -> dict[str, int]:
        """Return each field's index in the header of a file. Raises WrongColumns if its columns do not make events."""
        for name, column in self.named.items():
            if column and column not in header:
                raise WrongColumns(f"{name}: {nearest.unknown('column', column, header)}")
        wanted = {name: self.named.get(name, name) for name in FIELDS if name not in self.fixed}
        found = {name: header.index(column) for name, column in wanted.items() if column in header}
        known = {*found, *self.fixed}
        for column in header:
            # Ignored silently, a misspelt occurred_at would date every label today.
            near = get_close_matches(column, FIELDS, n=1, cutoff=0.85)
            if near and column not in wanted.values() and near[0] not in {*known, *self.named}:
                hint = f"did you mean {near[0]}? Say --column {near[0]}={column}, or --column {near[0]}= if it is not"
                raise WrongColumns(f'the column "{column}" is no field; {hint}')
        for name in ("metric", "value"):
            if name not in known:
                raise WrongColumns(f"no column is {name}: {_offer(name, header)}")
        if "prediction_id" not in known and not {"route", "key"} <= known:
            raise WrongColumns(f"no column is prediction_id (or route and key): {_offer('prediction_id', header)}")
        return found


def _offer(name: str, header: Sequence[str]) -> str:
    columns = ", ".join(header[:20])
    return f"say which one with --column {name}=COLUMN; the file has {columns}"
