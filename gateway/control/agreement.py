"""One assignment key for all nodes of a fleet, agreed on in the store.

Theory of operation. The store's key wins. Where the store has none, a node that has a key writes it there; else, if
nothing was ever decided there, the first new node makes one; else the fleet is older than keys and goes on without,
until an operator rotates the key. A node keeps a copy in its ``data_dir``, and starts with that or with its last
snapshot when the store is out of reach; then its decisions belong to the period of that snapshot, which is true.

Rule: a node that has neither waits for the store, and does not serve. A key of its own would assign units differently
from the other nodes within one period, and no number would show it.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from pathlib import Path
from typing import Final

from gateway.control.event_log import now_ms
from gateway.files import assignment_key
from gateway.process.configuration import load
from gateway.store import Store, StoreError, password_in
from gateway.store.fleet.shared_key import StoredKey, assigned_before, newest, offer
from router.assignment import AssignmentKey
from router.config.config import ConfigError

#: How long a new node waits for the store: one that is started at the same moment takes some seconds.
WAIT_SECONDS: Final = 30.0
_PAUSE_SECONDS: Final = 0.5
EXIT_UNAVAILABLE: Final = 69


async def agreed(store: Store, own: str | None, *, new: bool = False) -> StoredKey | None:
    """Return the fleet's key, None if it goes on without.

    ``own`` is the secret that this node has, if any; ``new`` says that it has never assigned a unit. Raises what the
    store raises.
    """
    async with store.begin() as connection:
        held = await newest(connection)
        if held is None and (own is not None or (new and not await assigned_before(connection))):
            held = await offer(connection, 1, own or assignment_key.new_secret(), now_ms())
        return held


async def rotate(store: Store) -> StoredKey:
    """Give the fleet a new key. Raises what the store raises."""
    async with store.begin() as connection:
        held = await newest(connection)
        found = await offer(connection, held.number + 1 if held else 1, assignment_key.new_secret(), now_ms())
    assert found is not None
    return found


class FleetKey:
    """Follows the fleet's key in the store, for a node that keeps its copy in ``data_dir``."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self._number = 0  # of the key that was looked at last

    async def fetch(self, store: Store) -> AssignmentKey | None:
        """Keep the store's key and return it; None if it was looked at before, or there is none.

        Raises what the store raises, OSError and KeyUnusable.
        """
        async with store.read() as connection:
            held = await newest(connection)
        if held is not None and held.number == self._number:
            return None
        own = assignment_key.kept_in(self._data_dir)
        if held is None and own is not None:
            held = await agreed(store, own)
        if held is None:
            return None
        if held.secret != own:
            await asyncio.to_thread(assignment_key.keep, self._data_dir, held.secret)
        self._number = held.number
        return AssignmentKey(held.secret)


async def fetch(config_path: Path, data_dir: Path, wait_seconds: float) -> None:
    """Keep the fleet's key in ``data_dir``, if it has one. Raises StoreError if the store cannot be asked in time."""
    gateway = load(config_path).gateway
    deadline, printed = time.monotonic() + wait_seconds, ""
    while True:
        try:
            store = await Store.open(gateway.store, data_dir, password=password_in(gateway.store_password_file))
            break
        except StoreError as error:
            if time.monotonic() >= deadline:
                raise
            if str(error) != printed:
                printed = str(error)
                print(f"a new node waits for the fleet's assignment key: {printed}", file=sys.stderr)  # noqa: T201
            await asyncio.sleep(_PAUSE_SECONDS)
    try:
        held = await agreed(store, assignment_key.kept_in(data_dir), new=True)
    finally:
        await store.close()
    if held is not None:
        assignment_key.keep(data_dir, held.secret)


def main(arguments: list[str] | None = None) -> int:
    """Fetch the key as the supervisor asks for it: ``--config FILE --data-dir D``. Return 69 if it cannot be had."""
    parser = argparse.ArgumentParser(prog="python -m gateway.control.agreement", description=fetch.__doc__)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--data-dir", type=Path, required=True)
    given = parser.parse_args(arguments)
    try:
        asyncio.run(fetch(given.config, given.data_dir, WAIT_SECONDS))
    except (StoreError, ConfigError, OSError, ValueError) as error:
        print(f"the fleet's assignment key cannot be had: {error}", file=sys.stderr)  # noqa: T201
        return EXIT_UNAVAILABLE
    return 0


if __name__ == "__main__":
    sys.exit(main())
