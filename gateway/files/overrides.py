"""What a person froze: ``data_dir/overrides.json``, which wins over every plan, also without a controller or a store.

Rule: workers poll it beside the snapshot. The command line and the controller write it, each whole, atomically, and
under the lock of the data directory. Of two acts about a route the later one stands; an act that ended a freeze stays
in the file, so that an older freeze cannot come back. Standard library and orjson only: workers import this.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Final

import orjson

from gateway.files.published import fingerprint
from gateway.files.regular import NotRegular, read_regular, replace_file

OVERRIDES: Final = "overrides.json"
FORMAT: Final = 1

#: A writer waits so long for another one, and then writes all the same: a freeze must not hang.
LOCK_SECONDS: Final = 1.0
#: A file that is longer is none of ours: a thousand routes take a fifth of it.
_MOST_BYTES: Final = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Override:
    """The last act about a route: frozen to the variant ``to``, or not frozen any more (None).

    ``at_ms`` is by the store's clock if ``recorded``, that is, once the act is in the store; else by this machine's.
    ``id`` tells one act from another.
    """

    to: str | None
    at_ms: int
    who: str = ""
    why: str = ""
    via: str = ""
    id: str = ""
    recorded: bool = False


#: The last act about each route that was ever frozen.
Overrides = Mapping[str, Override]

_TEXTS: Final = dict.fromkeys(("who", "why", "via", "id"), str)
_KINDS: Final[Mapping[str, Any]] = {"to": (str, type(None)), "at_ms": int, **_TEXTS, "recorded": bool}


class OverridesFile:
    """Reads the file when it has changed. One that is not there holds nothing."""

    def __init__(self, data_dir: Path) -> None:
        self.path = data_dir / OVERRIDES
        self._seen: tuple[int, int, int] | None = (0, 0, 0)

    def read(self) -> Overrides | None:
        """Return what the file holds if that changed since the last call, else None.

        Raises OSError if it cannot be read, and ValueError, once per change, if it is not such a file.
        """
        try:
            now = fingerprint(self.path)
        except FileNotFoundError:
            now = None
        if now == self._seen:
            return None
        if now is None:
            self._seen = None
            return {}
        try:
            content = read_regular(self.path)
        except NotRegular as error:
            self._seen = now
            raise ValueError(f"{OVERRIDES} is {error.strerror}") from None
        self._seen = now
        return decode(content)


def frozen(overrides: Overrides) -> dict[str, str]:
    """Return the variant of each route that is frozen."""
    return {name: one.to for name, one in overrides.items() if one.to is not None}


def later(one: Override | None, other: Override) -> Override:
    """Return the act that stands: the later one, and of two at the same time the one that freezes.

    >>> later(Override(to="v1", at_ms=5), Override(to=None, at_ms=5)).to
    'v1'
    """
    if one is None:
        return other
    return max(one, other, key=lambda act: (act.at_ms, act.to is not None, act.to or ""))


def read_overrides(data_dir: Path) -> Overrides:
    """Return what the file holds; nothing if it is not there. Raises OSError, and ValueError if it is damaged."""
    return OverridesFile(data_dir).read() or {}


def change(data_dir: Path, changed: Callable[[Overrides], Overrides]) -> Overrides:
    """Replace the file by what ``changed`` makes of it, and return that. A damaged file counts as an empty one.

    Raises OSError, and then the old one stays.
    """
    with _locked(data_dir):
        before: Overrides | None = None
        with contextlib.suppress(ValueError):
            before = read_overrides(data_dir)
        after = changed(before or {})
        if after != before:
            _write(data_dir, after)
        return after


def act(data_dir: Path, variants: Mapping[str, str | None], **of: Any) -> Overrides:
    """Freeze each route to its variant (None: unfreeze it), from now on; ``of`` are who, why and via.

    Raises OSError, and then nothing changed.
    """
    at_ms, id_ = now_ms(), secrets.token_hex(8)

    def changed(before: Overrides) -> Overrides:
        fresh = dict(before)
        for name, to in variants.items():
            # It stands also where a clock was set back since the act before.
            last_ms = before[name].at_ms if name in before else 0
            fresh[name] = Override(to=to, at_ms=max(at_ms, last_ms + 1), id=id_, **of)
        return fresh

    return change(data_dir, changed)


def now_ms() -> int:
    """Return the wall clock in Unix milliseconds."""
    return time.time_ns() // 1_000_000


def encode(overrides: Overrides) -> bytes:
    """Return the file's content; ``decode`` is the inverse."""
    routes = {name: asdict(one) for name, one in sorted(overrides.items())}
    return orjson.dumps({"format": FORMAT, "routes": routes}, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def decode(content: bytes) -> Overrides:
    """Return what ``encode`` wrote. What a newer program added to an act is left out.

    Raises ValueError that says what is wrong; then nothing of it may be used.
    """
    if len(content) > _MOST_BYTES:
        raise ValueError(f"{OVERRIDES}: longer than {_MOST_BYTES:,} bytes")
    try:
        value = orjson.loads(content)
    except ValueError as error:
        raise ValueError(f"{OVERRIDES}: {error}") from None
    if not isinstance(value, dict) or value.get("format") != FORMAT or not isinstance(value.get("routes"), dict):
        raise ValueError(f'{OVERRIDES}: expected {{"format": {FORMAT}, "routes": {{...}}}}')
    return {name: override(said, name) for name, said in value["routes"].items()}


def override(said: Any, name: str) -> Override:
    """Return one act from its JSON value. Raises ValueError."""
    if not isinstance(said, dict):
        raise ValueError(f"{OVERRIDES}: {name}: expected an object, got {said!r}")
    found = {one.name: said[one.name] for one in fields(Override) if one.name in said}
    for key, kind in _KINDS.items():
        content = found.get(key)
        missing = key not in found and key in {"to", "at_ms"}
        if missing or (key in found and not isinstance(content, kind)) or (key == "at_ms" and type(content) is bool):
            raise ValueError(f"{OVERRIDES}: {name}: {key}: got {content!r}")
    return Override(**found)


def _write(data_dir: Path, overrides: Overrides) -> None:
    content = encode(overrides)
    if len(content) > _MOST_BYTES:
        raise OSError(f"{OVERRIDES} would be longer than {_MOST_BYTES:,} bytes")
    owner = data_dir.stat()
    # Root may freeze, too; the workers, which run as another user, must be able to read it.
    replace_file(data_dir / OVERRIDES, content, owner=(owner.st_uid, owner.st_gid) if os.geteuid() == 0 else None)


@contextlib.contextmanager
def _locked(data_dir: Path) -> Iterator[None]:
    fd = os.open(data_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    deadline = time.monotonic() + LOCK_SECONDS
    try:
        while time.monotonic() < deadline:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                time.sleep(0.01)
        yield
    finally:
        os.close(fd)
