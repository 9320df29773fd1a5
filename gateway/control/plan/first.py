"""What a controller starts with: the snapshot that is published, or the first one of a new installation.

Rule: a file that is not valid stops only a controller that has no snapshot to go on with.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import NamedTuple

from gateway.control.event_log import now_ms
from gateway.files import assignment_key
from gateway.files.published import SNAPSHOT, SnapshotFile, publish
from gateway.store.fleet.publications import UNNUMBERED
from policies.types import Evidence
from router.compile import compile_snapshot
from router.config.config import Config, ConfigError, load, with_slots
from router.config.diagnostics import Diagnostic
from router.snapshot import Snapshot

logger = logging.getLogger(__name__)


class First(NamedTuple):
    """``config`` is the file that the snapshot was made of, None where the file is another by now or is not valid.

    ``problems`` say why the file is not valid.
    """

    snapshot: Snapshot
    config: Config | None
    problems: tuple[Diagnostic, ...] = ()


def first(config_path: Path, data_dir: Path) -> First:
    """Return the published snapshot; where there is none, compile the file's own and publish it.

    Raises ConfigError if there is neither a valid file nor a snapshot, KeyUnusable if a first snapshot needs a key that
    cannot be had, and OSError if the data directory cannot be used.
    """
    published: Snapshot | None = None
    try:
        published = SnapshotFile(data_dir / SNAPSHOT).read()
    except FileNotFoundError:
        pass
    except ValueError as error:
        logger.warning("the last snapshot cannot be read, plans begin anew: %s", error)
    try:
        config = load(config_path)
    except ConfigError as error:
        if published is None:
            raise
        return First(published, None, error.diagnostics)
    if published is not None:  # an edit made in the meantime is taken over by the first reload
        config = with_slots(config, published.slots)
        return First(published, config if published.config == config.hash else None)
    revision = 1 if config.gateway.store == "sqlite" else UNNUMBERED
    key = assignment_key.begin(config.gateway, data_dir, None)
    compiled = compile_snapshot(
        config, previous=None, evidence=lambda route, epoch: Evidence(), now_ms=now_ms(), revision=revision, key=key
    )
    publish(data_dir / SNAPSHOT, compiled)
    return First(compiled, config)
