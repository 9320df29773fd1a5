"""The assignment key and the snapshot that a supervisor starts its workers with.

Rule: a new node of a fleet needs the store once, for the key. Everything else starts without the store, from what is in
the data directory.
"""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

from gateway.files import assignment_key
from gateway.files.published import SNAPSHOT, SnapshotFile, publish
from gateway.process.premises import Unavailable
from policies.types import Evidence
from router.assignment import AssignmentKey
from router.compile import compile_snapshot, with_plans_of
from router.config.config import Config, with_slots
from router.snapshot import Snapshot

logger = logging.getLogger(__name__)


def initial_key(config_path: Path, config: Config, data_dir: Path) -> AssignmentKey | None:
    """Return the assignment key, made or fetched if this node is new; None for an installation that has none.

    Raises KeyUnusable, OSError, and Unavailable if a new node cannot ask the fleet for the key.
    """
    gateway, published = config.gateway, _published(data_dir / SNAPSHOT)
    alone = gateway.store == "sqlite" or gateway.assignment_key_file is not None
    if alone:
        return assignment_key.begin(gateway, data_dir, published)
    unkeyed = published is not None and not published.assignment
    new = assignment_key.kept_in(data_dir) is None and not unkeyed
    if new and _fetch_key("--config", str(config_path), "--data-dir", str(data_dir)):
        raise Unavailable(
            "a new node needs the store once, for the assignment key that its fleet shares; "
            "without a store in common, name one in assignment_key_file"
        )
    return assignment_key.find(gateway, data_dir, published)


def _fetch_key(*arguments: str) -> int:
    """Ask the store in a child process: the supervisor should not keep a database driver in its memory."""
    command = [sys.executable, "-P", "-m", "gateway.control.agreement", *arguments]
    return subprocess.run(command, check=False).returncode


def _published(path: Path) -> Snapshot | None:
    try:
        return SnapshotFile(path).read()
    except (FileNotFoundError, ValueError):
        return None


def ensure_snapshot(
    path: Path, config: Config, now_ms: int, key: AssignmentKey | None = None, place: Path | None = None
) -> Snapshot:
    """Return the snapshot to start with: the one at ``path``, or a new one if it is missing or config or key changed.

    A new one is published at ``place``, or at ``path`` without that. Its plans are made without evidence, since the
    store may be unreachable; a route whose policy is unchanged keeps the plan of the previous snapshot. Raises OSError.
    """
    previous: Snapshot | None = None
    try:
        previous = SnapshotFile(path).read()
    except FileNotFoundError:
        pass
    except ValueError as error:
        logger.warning("the last snapshot cannot be read, plans begin anew: %s", error)
    config = config if previous is None else with_slots(config, previous.slots)
    if previous is not None and previous.source == (config.hash, "" if key is None else key.name):
        return previous
    # The nodes of a fleet number their snapshots in the store that they share. Until the controller has asked it, the
    # revision is 0.
    revision = 0 if config.gateway.store != "sqlite" else 1 if previous is None else previous.revision + 1
    fresh = compile_snapshot(
        config, previous=previous, evidence=lambda route, epoch: Evidence(), now_ms=now_ms, revision=revision, key=key
    )
    if previous is not None:
        fresh = with_plans_of(previous, fresh)
    publish(place or path, fresh)
    return fresh
