"""The operator's file, watched: a change of its content is a reload.

Rule: the folder is watched and the content compared, because editors replace files, mounted volumes swap links, and
some file systems tell nothing. What the process was started with cannot change under it: such an edit is refused whole.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from dataclasses import fields
from hashlib import blake2b
from pathlib import Path
from typing import Final

from watchfiles import awatch

from router.config.diagnostics import Diagnostic, locate
from router.config.findings import Finding, dotted, shown
from router.snapshot import Gateway

logger = logging.getLogger(__name__)

#: Settings that sockets, processes and files were made by.
PROCESS_SETTINGS: Final = frozenset(field.name for field in fields(Gateway) if field.metadata.get("restart"))

#: How often the content is compared even though nothing was told.
_LOOK_MS: Final = 2_000


def content_of(path: Path) -> bytes | None:
    """Return a digest of the file's content, None if it cannot be read."""
    try:
        return blake2b(path.read_bytes(), digest_size=16).digest()
    except OSError:
        return None


async def changes(path: Path, known: bytes | None) -> AsyncIterator[None]:
    """Yield each time the file's content is another than it was; ``known`` is the digest of what is in force."""
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


def needs_restart(running: Gateway, wanted: Gateway, path: Path) -> tuple[Diagnostic, ...]:
    """Return what the file changes that only a restart can, each with its place."""
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
