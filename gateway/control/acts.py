"""What people did: who, with which file, and what that changed of the configuration in force.

Rule: what is compared is the configuration as it is shown (``gateway.process.effective``), without secrets or the
values of headers. Nothing here can fail: what cannot be found out is None.
"""

from __future__ import annotations

import pwd
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import fields, is_dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import orjson

from gateway.process.effective import HIDDEN, effective
from policies import Policy
from router.config.config import Config
from router.settings.trigger import Trigger
from router.snapshot import Snapshot

#: How it was asked for: the file's content changed, SIGHUP, a request at the admin port, the start of the controller, a
#: version in a slot.
Via = Literal["edit", "signal", "api", "start", "registry"]

#: A difference with more lines is cut, and so is a longer line.
MOST_LINES: Final = 100
MOST_CHARACTERS: Final = 200

#: Fields that follow from the rest, or move by themselves.
_DERIVED: Final = frozenset(
    {"plan", "period", "revision", "epoch", "carried", "assigned", "settings", "salt", "standing"}
)


class Act(NamedTuple):
    """Who did something, as far as that is known, and how it was asked for.

    ``author`` says all that is known; ``who`` is the user or the token alone, None where nobody had to say so.
    """

    via: Via
    author: str | None = None
    who: str | None = None


def owner_of(path: Path) -> str | None:
    """Return the user who owns the file: the system does not say who wrote it last."""
    with suppress(OSError):
        number = path.stat().st_uid
        try:
            return pwd.getpwuid(number).pw_name
        except KeyError:
            return f"uid {number}"
    return None


def digest_of(path: Path) -> str | None:
    """Return the SHA-256 of a file's content, as ``sha256sum`` prints it."""
    with suppress(OSError):
        return sha256(path.read_bytes()).hexdigest() if path.is_file() else None
    return None


def described(snapshot: Snapshot, config: Config | None) -> dict[str, str]:
    """Return every setting in force by its dotted name; ``config`` is the file it was made of, if that is known.

    A policy's own settings are known only with the file; without it, the shares of its plan take their place.
    """
    whole = effective(snapshot)
    routes = {}
    for name, route in whole["routes"].items():
        kept = {key: value for key, value in route.items() if key not in _DERIVED}
        if config is not None and config.hash == snapshot.config:
            policy = config.routes[name].policy
            del kept["shares"]
            kept["policy"] = {"kind": policy.kind, **dict(_settings(policy))}
        routes[name] = kept
    tables = {name: whole[name] for name in ("gateway", "backends", "metrics", "sinks")}
    if config is not None and config.hash == snapshot.config:
        tables["triggers"] = {name: _trigger(one) for name, one in config.triggers.items()}
    found: dict[str, str] = {}
    _flatten({**tables, "routes": routes}, "", found)
    return found


def _trigger(trigger: Trigger) -> dict[str, Any]:
    """Return a trigger's settings by name, each condition with its kind."""
    shown = {f.name: getattr(trigger, f.name) for f in fields(trigger) if f.name not in ("name", "any", "all")}
    for index, one in enumerate(trigger.conditions):
        said = {f.name: getattr(one, f.name) for f in fields(one)}  # type: ignore[arg-type]
        shown[f"{'any' if trigger.any else 'all'}[{index}]"] = {"kind": one.kind, **said}
    return shown


def _settings(policy: Policy) -> Iterator[tuple[str, Any]]:
    """Yield a policy's settings by name; of a list of tables each table, with what is given in it."""
    for one in fields(policy):  # type: ignore[arg-type]
        value = getattr(policy, one.name)
        if isinstance(value, tuple) and value and is_dataclass(value[0]):
            for index, table in enumerate(value):
                said = {f.name: getattr(table, f.name) for f in fields(table)}
                given = {f.name: said[f.name] for f in fields(table) if said[f.name] != f.default}
                yield f"{one.name}[{index}]", given
        else:
            yield one.name, value


def difference(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    """Return a line for each setting that changed; a backend, metric, route or sink that is new or gone is one line."""
    lines: list[str] = []
    had, has = set(map(_table_of, before)), set(map(_table_of, after))
    for name in sorted(before.keys() | after.keys()):
        old, new, table = before.get(name), after.get(name), _table_of(name)
        if old == new:
            continue
        if table in had and table in has:
            lines.append(f"{name}: {_shown(name, old)} -> {_shown(name, new)}"[:MOST_CHARACTERS])
        elif (line := f"{'+' if table in has else '-'} {table}") not in lines[-1:]:
            lines.append(line)
    more = len(lines) - MOST_LINES
    return lines if more <= 0 else [*lines[:MOST_LINES], f"and {more} more"]


def _table_of(name: str) -> str:
    """The table that a setting belongs to: that of a backend, metric, route or sink, else "gateway"."""
    kind, _, rest = name.partition(".")
    return kind if kind == "gateway" else f"{kind}.{rest.partition('.')[0]}"


def _shown(name: str, value: str | None) -> str:
    if value is None:
        return "unset"
    return f'"{HIDDEN}"' if "headers" in name.split(".") else value


def _flatten(value: Any, name: str, found: dict[str, str]) -> None:
    if isinstance(value, Mapping) and value:
        for key, content in value.items():
            _flatten(content, f"{name}.{key}" if name else str(key), found)
    else:
        found[name] = orjson.dumps(value, default=str).decode()
