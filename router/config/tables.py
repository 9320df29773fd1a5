"""A table of the operator's file: its keys with their types and defaults, and how it is read.

Rule: every key is read on its own, so one mistake hides no other. A default is that of the field of the class that the
table is derived from, and stands nowhere else.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from functools import cached_property
from typing import Annotated, Any, Final, Literal, get_args, get_origin, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from policies.types import Path
from router.config.findings import Finding, closest, did_you_mean, dotted, listed, quoted, shown
from router.config.kinds import type_of

#: The default of a key that must be given.
REQUIRED: Final = object()

_SAY_IT_ALL: Final = frozenset({"missing", "too_short", "too_long"})
_STRICT: Final = ConfigDict(strict=True, allow_inf_nan=False)


@dataclass(frozen=True)
class Setting:
    """One key of a table.

    ``type`` may be annotated with constraints; ``description`` is what an editor shows. ``written`` is the default as
    it is written in the file, where the value has another form.
    """

    type: Any
    description: str = ""
    default: Any = REQUIRED
    secret: bool = False
    written: Any = None
    made: type | None = None

    @cached_property
    def adapter(self) -> TypeAdapter[Any]:
        return TypeAdapter(self.type, config=_STRICT)

    @property
    def required(self) -> bool:
        return self.default is REQUIRED


@dataclass(frozen=True)
class Table:
    """The keys of a table, by name in the order in which they are written."""

    settings: Mapping[str, Setting]
    description: str = ""


@dataclass(frozen=True, slots=True)
class TableDraft:
    """A table as read: a value for each key that is right or has a default, and what is wrong with the others.

    ``broken`` are the keys whose value is not known, so that no check takes them for absent. Of a list of tables they
    also name each one that is wrong, as ``steps[1]``; the others can be checked.
    """

    path: Path
    values: dict[str, Any] = field(default_factory=dict)
    broken: set[str] = field(default_factory=set)
    findings: list[Finding] = field(default_factory=list)


def table_of(owner: type, description: str, *, every: bool = False) -> Table:
    """Return the table whose keys are the fields of a dataclass that have a description, with their types and defaults.

    With ``every`` the others are keys too, and ``description``, that of the whole, describes them.
    """
    hints = get_type_hints(owner, include_extras=True)
    return Table(
        {
            f.name: Setting(
                type_of(hints[f.name]),
                f.metadata.get("description", description),
                f.metadata.get("default", _default(f)),
                secret=f.metadata.get("secret", False),
                made=_made(hints[f.name]),
            )
            for f in fields(owner)
            if f.init and (every or "description" in f.metadata)
        },
        description,
    )


def read(table: Table, given: object, path: Path) -> TableDraft:
    """Read one table. Everything wrong with it is in the findings; nothing is raised."""
    reading = TableDraft(path)
    if not isinstance(given, Mapping):
        reading.broken.update(table.settings)
        reading.findings.append(Finding(path, f"{dotted(path)} must be a table, got {shown(given)}"))
        return reading
    meant: dict[str, str] = {}
    for key in given:
        if key not in table.settings:
            message = f"{dotted(path) or 'the file'}: unknown setting {quoted(key)}"
            reading.findings.append(Finding((*path, key), message, did_you_mean(key, table.settings), "key"))
            meant.setdefault(closest(key, table.settings) or key, key)
    for name, setting in table.settings.items():
        if name in given:
            _read_value(reading, name, setting, name, given[name])
        elif name in meant:
            # A misspelt key is one mistake. Its value is used only if the key is required, and if it is valid.
            guessed = TableDraft(path)
            if setting.required:
                _read_value(guessed, name, setting, meant[name], given[meant[name]])
            reading.values.update(guessed.values)
            if name not in guessed.values:
                reading.broken.add(name)
        elif not setting.required:
            reading.values[name] = setting.default
        else:
            reading.broken.add(name)
            reading.findings.append(Finding(path, f"{dotted((*path, name))} is required", at="table"))
    return reading


def nested(made: type) -> Table:
    """Return the table that becomes a value of the dataclass ``made``."""
    return table_of(made, " ".join((made.__doc__ or "").split("\n\n")[0].split()), every=True)


def stand_in(kind: Any) -> Any:
    """Return an empty value of a type, for a setting that could not be read."""
    origin = get_origin(kind) or kind
    if origin is Annotated:
        return stand_in(get_args(kind)[0])
    if origin is Mapping:
        return {}
    return origin() if origin in (str, bool, int, float, tuple, dict) else None


def _read_value(reading: TableDraft, name: str, setting: Setting, key: str, given: object) -> None:
    try:
        value = setting.adapter.validate_python(_frozen(given))
    except ValidationError as error:
        reading.broken.add(name)
        reading.findings.extend(_finding((*reading.path, key), setting, detail) for detail in error.errors())
        return
    made = setting.made
    if made is not None and isinstance(value, tuple):
        items = [_read_nested(reading, made, item, (key, index)) for index, item in enumerate(value)]
        reading.values[name] = tuple(item for item, _ in items)
        wrong = {f"{name}[{index}]" for index, (_, right) in enumerate(items) if not right}
        reading.broken.update(wrong | {name} if wrong else ())
    elif made is not None and isinstance(value, dict):
        value, right = _read_nested(reading, made, value, (key,))
        if right:
            reading.values[name] = value
        else:
            reading.broken.add(name)
    else:
        reading.values[name] = value


def _read_nested(reading: TableDraft, made: type, given: object, below: Path) -> tuple[Any, bool]:
    """Return a table as the value that it becomes, and whether it is right; wrong keys have a default or stand-in."""
    table = nested(made)
    inner = read(table, given, (*reading.path, *below))
    reading.findings.extend(inner.findings)
    unread = {name: one for name, one in table.settings.items() if name not in inner.values}
    values = {name: stand_in(one.type) if one.required else one.default for name, one in unread.items()}
    return made(**inner.values, **values), not inner.findings


def _made(declared: Any) -> type | None:
    """Return the dataclass that a declared type is, or is made of; one with a kind of its own is read elsewhere."""
    if get_origin(declared) is Annotated:
        return None
    if isinstance(declared, type) and dataclasses.is_dataclass(declared):
        return declared
    return next((made for made in map(_made, get_args(declared)) if made is not None), None)


def _finding(path: Path, setting: Setting, detail: ErrorDetails) -> Finding:
    # Steps in brackets are no keys: pydantic marks a wrong key by one, and we the alternatives of a setting.
    where = (*path, *(step for step in detail["loc"] if not str(step).startswith("[")))
    words, hint = _words(detail)
    got = "" if setting.secret or detail["type"] in _SAY_IT_ALL else f", got {shown(detail['input'])}"
    at: Literal["key", "value"] = "key" if detail["loc"][-1:] == ("[key]",) else "value"
    return Finding(where, f"{dotted(where)} {words}{got}", hint, at, secret=setting.secret)


def _words(detail: ErrorDetails) -> tuple[str, str | None]:
    """Return what a value must be, in words for an operator, and a hint."""
    limits = detail.get("ctx", {})
    plural = "value" if limits.get("min_length", limits.get("max_length")) == 1 else "values"
    match detail["type"]:
        case "value_error":
            return str(limits["error"]), None
        case "string_type":
            given = detail["input"]
            number = isinstance(given, int | float) and not isinstance(given, bool)
            return "must be text in quotes", f"write {quoted(shown(given))}" if number else None
        case "int_type" | "int_from_float":
            return "must be a whole number", None
        case "float_type":
            return "must be a number", None
        case "finite_number":
            return "must be a finite number", None
        case "bool_type":
            return "must be true or false", None
        case "literal_error":
            return _choice(limits["expected"], detail["input"])
        case "tuple_type" | "list_type":
            return "must be a list", None
        case "dict_type" | "mapping_type":
            return "must be a table", None
        case "greater_than_equal":
            return f"must be at least {limits['ge']}", None
        case "less_than_equal":
            return f"must be at most {limits['le']}", None
        case "string_too_short":
            return "must not be empty", None
        case "too_short":
            return f"must have at least {limits['min_length']} {plural}, got {limits['actual_length']}", None
        case "too_long":
            return f"must have at most {limits['max_length']} {plural}, got {limits['actual_length']}", None
        case "missing":
            return "is missing", None
    return f"is not right: {detail['msg'][:1].lower()}{detail['msg'][1:]}", None


def _choice(expected: str, given: object) -> tuple[str, str | None]:
    """Return the words for what pydantic lists as "'a', 'b' or 'c'"."""
    if not expected.startswith("'"):
        return f"must be {expected}", None
    choices = expected.strip("'").replace("' or '", "', '").split("', '")
    meant = closest(given, choices) if isinstance(given, str) else None
    return f"must be {listed(choices)}", None if meant is None else f"did you mean {quoted(meant)}?"


def _frozen(value: object) -> object:
    """Return the value with lists as tuples, because strict validation accepts only a tuple for a tuple."""
    if isinstance(value, list):
        return tuple(_frozen(item) for item in value)
    if isinstance(value, dict):
        return {name: _frozen(item) for name, item in value.items()}
    return value


def _default(f: dataclasses.Field[Any]) -> Any:
    if f.default_factory is not MISSING:
        return f.default_factory()
    return REQUIRED if f.default is MISSING else f.default
