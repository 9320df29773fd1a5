"""``turnout assignment``: show the key by which units are assigned, and change it."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import typer

from gateway.cli.options import ConfigOption, JsonOption, chosen, configuration
from gateway.cli.output import fail, print_json

if TYPE_CHECKING:
    from router.snapshot import Gateway, Snapshot

assignment = typer.Typer(help="The key by which units are assigned to variants.", no_args_is_help=True)

#: How many seconds a running gateway gets to publish a snapshot with the new key.
PUBLISHED_SECONDS: Final = 10.0


class _KeyState(NamedTuple):
    """The name of the kept key and where it is kept, and the name of the published snapshot's key.

    ``key`` is None if there is none. ``published`` is "" if the snapshot has no key, None if nothing was published yet.
    """

    key: str | None
    source: str
    published: str | None

    @property
    def said(self) -> str:
        if self.key is None and self.published is None:
            return "none yet: turnout serve makes one when it starts for the first time"
        if self.key is None and self.published:
            return f"gone: units are assigned by {self.published}; bring it back, or see turnout assignment rotate"
        if self.key is None:
            return "none: who knows a route's name can tell which variant a unit meets; see turnout assignment rotate"
        if self.published is None:
            return f"{self.key}, which turnout serve goes by when it starts"
        if self.published != self.key:
            so_far = self.published or "no key"
            return f"{self.key}, but so far units are assigned by {so_far}: reload, or start turnout serve"
        return f"{self.key}, and units are assigned by it"


@assignment.command()
def status(context: typer.Context, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Say by which key units are assigned.

    A key is named by a hash of it, which is no secret: the same name at two nodes is the same key.
    """
    found = _key_state(configuration(chosen(context, config)).gateway)
    if as_json:
        print_json({"key": found.key, "source": found.source, "in_force": found.published})
        return
    typer.echo(f"key       {found.said}")
    typer.echo(f"kept in   {found.source}")


@assignment.command()
def rotate(context: typer.Context, config: ConfigOption = None) -> None:
    """Make a new key, in place of the one there may be.

    Every unit is drawn anew, and most meet another variant than before. Each route begins a new period: comparisons are
    made within periods, so nothing that was learned is lost or mixed up. Does it for all nodes of a fleet at once. A
    running gateway takes the key over by itself.
    """
    from gateway.files import assignment_key
    from gateway.files.private import keep_private
    from router.assignment import AssignmentKey

    keep_private()
    gateway = configuration(chosen(context, config)).gateway
    if gateway.assignment_key_file is not None:
        hint = "write another key into it, at every node, and reload: turnout serve takes it over"
        raise fail(f"the key is in {gateway.assignment_key_file}, which assignment_key_file names and is yours", hint)
    data_dir = Path(gateway.data_dir)
    try:
        if gateway.store == "sqlite":
            data_dir.mkdir(parents=True, exist_ok=True)
            secret = assignment_key.keep(data_dir, assignment_key.new_secret())
        else:
            secret = _rotated(gateway)
    except OSError as error:
        raise fail(f"{error.filename or data_dir}: {error.strerror or error}") from None
    key = AssignmentKey(secret).name
    running = _reload(data_dir)
    if running and not _is_published(data_dir, key):
        raise fail(f"the key is now {key}, but the running gateway does not go by it yet", "its log says why")
    typer.echo(f"the key is now {key}; " + ("units are assigned by it" if running else "turnout serve starts with it"))


def _key_state(gateway: Gateway) -> _KeyState:
    from gateway.files import assignment_key

    data_dir = Path(gateway.data_dir)
    source = gateway.assignment_key_file or str(data_dir / assignment_key.FILE)
    if gateway.store != "sqlite" and gateway.assignment_key_file is None:
        source += ", as the store has it for all nodes"
    try:
        published = _published(data_dir)
        key = assignment_key.find(gateway, data_dir, None)
    except (assignment_key.KeyUnusable, OSError) as error:
        raise fail(str(error)) from None
    return _KeyState(None if key is None else key.name, source, None if published is None else published.assignment)


def _published(data_dir: Path) -> Snapshot | None:
    from gateway.files.published import SNAPSHOT
    from gateway.files.regular import read_regular
    from router.snapshot import decode

    try:
        return decode(read_regular(data_dir / SNAPSHOT))
    except (FileNotFoundError, ValueError):
        return None


def _rotated(gateway: Gateway) -> str:
    """Give the fleet a new key and return its secret; the other nodes look for a new key regularly."""
    from gateway.control.agreement import rotate as rotated
    from gateway.store import Store, StoreError, password_in

    async def run() -> str:
        password = password_in(gateway.store_password_file)
        store = await Store.open(gateway.store, Path(gateway.data_dir), password=password)
        try:
            return (await rotated(store)).secret
        finally:
            await store.close()

    try:
        return asyncio.run(run())
    except StoreError as error:
        raise fail(str(error)) from None


def _reload(data_dir: Path) -> bool:
    """Make the gateway that runs on this data directory reload; return whether there is one."""
    import os
    import signal

    from gateway.process.premises import running_supervisor

    pid = running_supervisor(data_dir)
    if pid is None:
        return False
    with suppress(OSError):  # another user's, or just ended: the snapshot shows whether the key was taken over
        os.kill(pid, signal.SIGHUP)
    return True


def _is_published(data_dir: Path, key: str) -> bool:
    deadline = time.monotonic() + PUBLISHED_SECONDS
    while time.monotonic() < deadline:
        published = _published(data_dir)
        if published is not None and published.assignment == key:
            return True
        time.sleep(0.1)
    return False
