"""``turnout freeze`` and ``turnout unfreeze``: one variant of a route answers everything, whatever else is decided.

Rule: the running gateway is asked first, so that the act is recorded at once and reaches every node. But it works with
the store and the controller dead, and with a configuration that is not valid any more: then all it needs is the data
directory of this node, with the snapshot that its workers route by.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final
from urllib.parse import quote

import typer

from gateway.cli.options import ConfigOption, JsonOption, RouteArgument, RouteOption, chosen, one_route
from gateway.cli.output import fail, print_json

if TYPE_CHECKING:
    from gateway.files.overrides import Overrides
    from router.settings.gateway import Gateway
    from router.snapshot import Snapshot

#: What this command calls how it was asked for.
VIA: Final = "file"
#: A gateway that takes longer to answer is done without; at worst the act is then recorded twice.
ASK_SECONDS: Final = 1.0

AllOption = Annotated[bool, typer.Option("--all", help="Every route of the gateway.")]
WhyOption = Annotated[str, typer.Option("--why", metavar="TEXT", help="The reason, for the record.")]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Say what would happen, and change nothing.")]
DataDirOption = Annotated[
    Path | None,
    typer.Option("--data-dir", metavar="DIR", help="The gateway's data directory (the one in the configuration)."),
]


def freeze(
    context: typer.Context,
    route: RouteArgument = None,
    option: RouteOption = None,
    to: Annotated[
        str | None, typer.Option("--to", metavar="VARIANT", help="The variant that answers everything.")
    ] = None,
    everything: AllOption = False,
    why: WhyOption = "",
    dry_run: DryRunOption = False,
    data_dir: DataDirOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Send every request to one variant.

    Of one route, within a second. It wins over the policy, the holdout and a variant that a client asks for. No copies
    are sent, and what is answered meanwhile is logged with the reason "frozen" and counts in no number. With --all
    every route is frozen to its baseline. `turnout unfreeze` ends it. Asks the running gateway, or else, on a node of
    it, does it without: then the other nodes of a fleet follow once there is a controller and a store.
    """
    name = one_route(context, route, option)
    _one_of(context, name, everything)
    if (to is None) is (name is not None):
        said = "names the variant that answers" if to is None else "cannot be with --all: each route has its baseline"
        raise typer.BadParameter(said, context, param_hint="--to")
    path = chosen(context, config)
    body = {"verb": "freeze", "why": why, "dry_run": dry_run} | ({"all": True} if name is None else {"to": to})
    why_not = _by_api(path, data_dir, name, body, as_json=as_json)
    if why_not is None:
        return
    folder = _data_dir(path, data_dir)
    snapshot = _snapshot(folder, why_not)
    if name is None:
        wanted = {one.name: one.baseline for one in snapshot.routes.values()}
    else:
        wanted = {name: _variant(snapshot, name, str(to))}
    _act(folder, dict(wanted), why, why_not, dry_run=dry_run, as_json=as_json)


def unfreeze(
    context: typer.Context,
    route: RouteArgument = None,
    option: RouteOption = None,
    everything: AllOption = False,
    why: WhyOption = "",
    dry_run: DryRunOption = False,
    data_dir: DataDirOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """End a freeze.

    The route is as its policy says again.
    """
    from gateway.files.overrides import frozen
    from gateway.nearest import unknown

    name, path = one_route(context, route, option), chosen(context, config)
    _one_of(context, name, everything)
    body = {"verb": "unfreeze", "why": why, "dry_run": dry_run} | ({"all": True} if name is None else {})
    why_not = _by_api(path, data_dir, name, body, as_json=as_json)
    if why_not is None:
        return
    folder = _data_dir(path, data_dir)
    held = frozen(_overrides(folder, why_not))
    if name is not None and name not in held:
        there = name in _snapshot(folder, why_not).routes
        raise fail(f"{name} is not frozen" if there else unknown("frozen route", name, held))
    _act(folder, dict.fromkeys(held if name is None else [name]), why, why_not, dry_run=dry_run, as_json=as_json)


def _one_of(context: typer.Context, route: str | None, everything: bool) -> None:
    if (route is None) is not everything:
        raise typer.BadParameter("name a route, or give --all", context, param_hint="ROUTE")


def _by_api(
    config: Path, data_dir: Path | None, route: str | None, body: Mapping[str, Any], *, as_json: bool
) -> str | None:
    """Ask the running gateway; return why it cannot be asked, None if it did it. Exits with 1 if it refuses the act."""
    if data_dir is not None:
        return "--data-dir is given"
    gateway = _stated(config)
    if gateway is None:
        return f"{config} cannot be read"
    if not _listens(gateway.admin):  # found out before anything is imported that takes its time
        return f"nothing answers at the admin port, {gateway.admin}"
    import httpx

    from gateway.cli.remote.acts import print_done
    from gateway.cli.remote.report import answering

    where = "/api/v1/acts" if route is None else f"/api/v1/routes/{quote(route, safe='')}/acts"
    said = io.StringIO()
    try:
        # What keeps it from being asked is no error here: it is said with what is done instead.
        with (
            contextlib.redirect_stderr(said),
            answering(gateway, config, "POST", where, seconds=ASK_SECONDS, json=body) as answer,
        ):
            answer.read()
        found = answer.json()
    except typer.Exit:
        return said.getvalue().removeprefix("turnout: error: ").partition("\n")[0]
    except (httpx.HTTPError, ValueError) as error:
        return f"the admin port at {gateway.admin} does not answer ({type(error).__name__})"
    if answer.status_code == 200 and isinstance(found, dict) and "said" in found:
        print_json(found) if as_json else print_done(route, found)
        return None
    detail = str(found.get("detail", "")) if isinstance(found, dict) else ""
    if detail and answer.status_code in (404, 409, 422) and "problem" in answer.headers.get("content-type", ""):
        raise fail(detail)
    return f"the admin port at {gateway.admin} answers {answer.status_code}{f': {detail}' if detail else ''}"


def _act(
    folder: Path, variants: Mapping[str, str | None], why: str, why_not: str, *, dry_run: bool, as_json: bool
) -> None:
    from gateway.cli.remote.report import user
    from gateway.files.overrides import OVERRIDES, act

    if not dry_run:
        try:
            act(folder, variants, who=f"{user() or 'somebody'} by the command line", why=why, via=VIA)
        except OSError as error:
            raise fail(*_unwritable(folder, error)) from None
    path = str(folder / OVERRIDES)
    if as_json:
        print_json({"frozen": variants, "via": VIA, "path": path, "dry_run": dry_run, "recorded": False})
        return
    if not variants:
        typer.echo("no route is frozen")
    for name, to in variants.items():
        would = "would be" if dry_run else "is"
        typer.echo(f"{name} {would} {'as its policy says again' if to is None else f'frozen to {to}'}")
    if not dry_run:
        typer.echo(f"by {path} of this node: {why_not}", err=True)


def _variant(snapshot: Snapshot, route: str, to: str) -> str:
    from gateway.nearest import unknown

    if route not in snapshot.routes:
        raise fail(unknown("route", route, snapshot.routes))
    if to not in snapshot.routes[route].variants:
        raise fail(f"route {route}: {unknown('variant', to, snapshot.routes[route].variants)}")
    return to


def _snapshot(folder: Path, why_not: str) -> Snapshot:
    """Return what the workers route by. Exits with 1 if there is none here."""
    from gateway.files.published import SNAPSHOT
    from gateway.files.regular import read_regular
    from router.snapshot import decode

    hint = f"{why_not}; so run it on the node, as the user of turnout serve; --data-dir names its directory"
    try:
        return decode(read_regular(folder / SNAPSHOT))
    except OSError as error:
        raise fail(f"{folder / SNAPSHOT} cannot be read: {error.strerror}", hint) from None
    except ValueError as error:
        raise fail(f"{folder / SNAPSHOT}: {error}", hint) from None


def _overrides(folder: Path, why_not: str) -> Overrides:
    from gateway.files.overrides import read_overrides

    try:
        return read_overrides(folder)
    except OSError as error:
        raise fail(
            _unwritable(folder, error)[0], f"{why_not}; so run it on the node, as the user of turnout serve"
        ) from None
    except ValueError as error:
        hint = "`turnout freeze` writes it anew; what was frozen before stays so until then"
        raise fail(str(error), hint) from None


def _unwritable(folder: Path, error: OSError) -> tuple[str, str]:
    said = f"{error.filename or folder}: {error.strerror or error}"
    return said, "run it on the node, as the user that turnout serve runs as"


def _data_dir(config: Path, given: Path | None) -> Path:
    """Return the data directory, also where the rest of the configuration is not valid."""
    stated = None if given is not None else _stated(config)
    if given is None and stated is None:
        raise fail(f"{config} does not say where the data directory is", "name it with --data-dir DIR")
    return given or Path(stated.data_dir if stated is not None else "")


def _stated(config: Path) -> Gateway | None:
    """Return the texts of the file's [gateway], and defaults for the rest; None if the file is no TOML.

    The file is not checked as for other commands: that takes longer than everything else here, and a freeze must work
    with a file that is not valid.
    """
    import tomllib

    from router.settings.gateway import Gateway

    try:
        said: Any = tomllib.loads(config.read_text(encoding="utf-8-sig")).get("gateway", {})
        texts: dict[str, Any] = {name: value for name, value in said.items() if isinstance(value, str)}
    except (OSError, ValueError, AttributeError):
        return None
    known = {one.name for one in fields(Gateway)}
    return replace(Gateway(), **{name: value for name, value in texts.items() if name in known})


def _listens(address: str) -> bool:
    """Return whether anything takes connections at an address."""
    import socket

    from gateway.cli.remote.report import reachable

    host, _, port = reachable(address).rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), ASK_SECONDS):
            return True
    except (OSError, ValueError, OverflowError):
        return False
