"""The operator's file: how a change of its content is noticed, and how it is read again.

Rule: the folder is watched and the content compared, because editors replace files, mounted volumes swap links, and
some file systems report no changes. A setting that the process was started with needs a restart: an edit that changes
one is refused whole.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, fields
from hashlib import blake2b
from pathlib import Path
from typing import Final

from watchfiles import awatch

from gateway.files import assignment_key
from router.assignment import AssignmentKey
from router.config.config import Config, ConfigError, load, with_slots
from router.config.diagnostics import Diagnostic, locate
from router.config.findings import Finding, dotted, shown
from router.settings.slots import Filled
from router.snapshot import Gateway, Snapshot

logger = logging.getLogger(__name__)

#: Settings that sockets, processes and files were made by.
PROCESS_SETTINGS: Final = frozenset(field.name for field in fields(Gateway) if field.metadata.get("restart"))

#: How often the content is compared though no change was reported.
_LOOK_MS: Final = 2_000


def content_of(path: Path) -> bytes | None:
    """Return a digest of the file's content, None if it cannot be read."""
    try:
        return blake2b(path.read_bytes(), digest_size=16).digest()
    except OSError:
        return None


async def changes(path: Path, known: bytes | None) -> AsyncIterator[None]:
    """Yield each time the file's content has changed; ``known`` is the digest of what is in force."""
    while True:
        try:
            async for _ in awatch(
                path.parent,
                recursive=False,
                debounce=200,
                rust_timeout=_LOOK_MS,
                yield_on_timeout=True,
                watch_filter=None,
                ignore_permission_denied=True,
            ):
                found = content_of(path)
                if found is not None and found != known:
                    known = found
                    yield
        except Exception as error:  # the folder is gone, or there are no more watches or descriptors to be had
            logger.warning("%s cannot be watched: %s", path.parent, error)
        await asyncio.sleep(_LOOK_MS / 1000)


@dataclass(frozen=True, slots=True)
class Edit:
    """A file that is valid and needs no restart, and the assignment key that goes with it."""

    config: Config
    key: AssignmentKey | None


def read(path: Path, data_dir: Path, running: Snapshot, slots: Mapping[str, Filled]) -> Edit | tuple[Diagnostic, ...]:
    """Read the file, with the filled slots, and the assignment key again; return them, or why they cannot be used."""
    try:
        config = with_slots(load(path), slots)
        problems = needs_restart(running.gateway, config.gateway, path)
        key = assignment_key.find(config.gateway, data_dir, running)
    except ConfigError as error:
        return error.diagnostics
    except assignment_key.KeyUnusable as error:
        finding = Finding(("gateway", "assignment_key_file"), f"gateway.assignment_key_file: {error}")
        return locate([finding], "", str(path))
    return problems or Edit(config, key)


def needs_restart(running: Gateway, wanted: Gateway, path: Path) -> tuple[Diagnostic, ...]:
    """Return each setting that the file changes and that only a restart can change, with its place in the file."""
    findings = []
    for name in sorted(PROCESS_SETTINGS):
        before, after = getattr(running, name), getattr(wanted, name)
        if before != after:
            at = ("gateway", name)
            running_as = "unset" if before is None else shown(before)
            message = f"{dotted(at)} needs a restart: this process was started with {running_as}"
            findings.append(Finding(at, message))
    if not findings:
        return ()
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError):
        text = ""
    return locate(findings, text, str(path))
