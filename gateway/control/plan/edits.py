"""What an edit of the file changed, as the audit log keeps it, and who edited a route last.

Rule: the log has an entry for each configuration that came into force at a node, also of one that the gateway was
started with. The system does not say who wrote a file last: unless somebody asked for the reload by name, its owner is
named.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping
from pathlib import Path
from typing import Any, Final

import orjson
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.control.acts import Act, described, difference, owner_of
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


def edited(
    was: Snapshot, of: Config | None, now: Snapshot, config: Config, act: Act, digest: str | None, node: str
) -> Entry:
    """Return the entry of an edit; ``of`` is the file that ``was`` was made of, if that is known."""
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


def rekeyed(was: Snapshot, now: Snapshot, author: str | None, act: Act) -> Entry:
    """Return the entry of a new assignment key."""
    changed = f"key {was.assignment or '-'} until now, {now.assignment or '-'} from now on: units move"
    return Entry(who=author or "unknown", via=act.via, act=REKEYED, changed=changed)


async def begun(connection: AsyncConnection, now: Snapshot, path: Path, digest: str | None, node: str) -> Entry | None:
    """Return the entry of the configuration that this node started with; None if it is the last one of the log."""
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
