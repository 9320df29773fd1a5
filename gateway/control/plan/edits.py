"""What an edit of the file changed, as the audit log keeps it, and who edited a route last.

Rule: the log has an entry for each configuration that came into force at a node, also of one that the gateway was
started with. The system does not say who wrote a file last: unless somebody asked for the reload by name, its owner is
named.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import orjson
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.control.acts import Act, described, difference, owner_of
from gateway.control.membership import name_of
from gateway.files import assignment_key
from gateway.store import audit
from gateway.store.audit import Audited, Entry
from router.config.config import Config
from router.snapshot import Snapshot

#: The acts that this module's entries have.
EDITED: Final = "config_reloaded"
REKEYED: Final = "assignment_changed"

#: Of more edits the older ones are not looked at.
MOST_EDITS: Final = 2_000
_PAGE: Final = 50


class FileEdit(NamedTuple):
    """From what was in force and its file, if that is known, to what will be and its file; ``act`` says who and how."""

    was: Snapshot
    of: Config | None
    now: Snapshot
    config: Config
    act: Act
    digest: str | None


def entries(edit: FileEdit, data_dir: Path) -> list[Entry]:
    """Return what the log says of an edit: what changed in the file, and a new assignment key."""
    was, now, found = edit.was, edit.now, []
    if now.config != was.config or now.assignment == was.assignment:
        found.append(_edited(edit, _node(now, data_dir)))
    if now.assignment != was.assignment:
        owner = owner_of(Path(now.gateway.assignment_key_file or data_dir / assignment_key.FILE))
        said = f"key {was.assignment or '-'} until now, {now.assignment or '-'} from now on: units move"
        found.append(Entry(who=owner or "unknown", via=edit.act.via, act=REKEYED, changed=said))
    return found


def _edited(edit: FileEdit, node: str) -> Entry:
    was, of, now, config, act, digest = edit
    known = of is not None and of.hash == was.config
    before, after = described(was, of if known else None), described(now, config if known else None)
    diff = difference(before, after)
    body = {
        "diff": diff,
        "routes": sorted(_touched(before, after, now)),
        "config": now.config,
        "file_sha256": digest,
        "node": node,
        "by": act.author,
    }
    changed = "nothing of what is shown" if not diff else diff[0] if len(diff) == 1 else f"{diff[0]}, and more"
    return Entry(who=act.who or act.author or "unknown", via=act.via, act=EDITED, changed=changed, body=body)


def _node(snapshot: Snapshot, data_dir: Path) -> str:
    """Return this node's name in its fleet, "" where it is alone."""
    if snapshot.gateway.store == "sqlite":
        return ""
    try:
        return name_of(data_dir)
    except OSError:  # a full disk keeps no edit from being put in force
        return ""


async def begun(
    connection: AsyncConnection, now: Snapshot, path: Path, digest: str | None, data_dir: Path
) -> Entry | None:
    """Return the entry of the configuration that this node started with; None if it is the last one of the log."""
    node = _node(now, data_dir)
    changed = "started with this file"
    async for one in _edits(connection):
        before = _body(one.body)
        if before.get("node") == node:
            if before.get("config") == now.config:
                return None
            changed = "started with this file, which was another when it ran last"
            break
    body = {"routes": None, "config": now.config, "file_sha256": digest, "node": node}
    who = owner_of(path) or "unknown"
    return Entry(who=who, via="start", act=EDITED, changed=changed, body=body)


async def last_editor(connection: AsyncConnection, route: str) -> str | None:
    """Return who edited a route last, its backends included; None if the log has no such edit."""
    async for one in _edits(connection):
        routes = _body(one.body).get("routes")
        if routes is None or route in routes:
            return one.who
    return None


async def _edits(connection: AsyncConnection) -> AsyncIterator[Audited]:
    """Yield the edits of the log, the newest first: so many as are looked at."""
    before: int | None = None
    for _ in range(MOST_EDITS // _PAGE):
        page = await audit.listed(connection, _PAGE, before=before, act=EDITED)
        for one in page:
            yield one
        if len(page) < _PAGE:
            return
        before = page[-1].number


def _body(text: str) -> Mapping[str, Any]:
    try:
        found = orjson.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _touched(before: Mapping[str, str], after: Mapping[str, str], now: Snapshot) -> set[str]:
    """Return the routes of which a setting changed, or one of a backend that they call."""
    moved = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    backends = _named(moved, "backends.", now.backends)
    touched = _named(moved, "routes.", now.routes)
    for name, route in now.routes.items():
        called = {*route.variants, *(mirror.variant for mirror in route.mirrors)}
        if called & backends:
            touched.add(name)
    return touched


def _named(settings: Collection[str], table: str, names: Collection[str]) -> set[str]:
    """Return the names of a table that these settings are of: a name may have dots."""
    return {name for name in names if any(one.startswith(f"{table}{name}.") for one in settings)}
