"""The verbs of a person in command: approve, advance, pause, resume, rollback, restart and promote a route.

Rule: each is one request to the running gateway, which performs it at whichever node can. A refusal is a sentence that
says what would do, and exits with 1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Final
from urllib.parse import quote

import typer

from gateway.cli.options import ConfigOption, JsonOption, chosen, configuration
from gateway.cli.output import print_json

if TYPE_CHECKING:
    from pathlib import Path

    from router.snapshot import Gateway

#: More than the gateway takes before it gives an act up.
ACT_SECONDS: Final = 30.0

#: Each verb and what its help says.
VERBS: Final = {
    "approve": """Approve the present step of a rollout.

    It goes on once everything else that the step asks for holds. Where the file asks for several people, each approves.
    """,
    "advance": """Go to the next step of a rollout now.

    Whatever the present step still waits for.
    """,
    "pause": """Keep the shares as they are.

    A rollout takes no step and a bandit moves nothing until `turnout resume`.
    """,
    "resume": """Go on after a pause or a rollback.""",
    "rollback": """Give everything to the baseline at once.

    On any route, whatever its policy, also after a rollout was promoted. `turnout resume` or `restart` goes on.
    """,
    "restart": """Begin a rollout again at its first step.

    With the same users in the same order, and without what was known before.
    """,
    "promote": """Give everything to a rollout's candidate.

    At once, without the steps that are left.
    """,
}

NameArgument = Annotated[str, typer.Argument(metavar="ROUTE", help="The route.", show_default=False)]
WhyOption = Annotated[str, typer.Option("--why", metavar="TEXT", help="The reason, for the record.")]
TicketOption = Annotated[str, typer.Option("--ticket", metavar="ID", help="The ticket that this is done for.")]
SawOption = Annotated[
    int | None,
    typer.Option("--saw", metavar="N", min=0, help="Act only if the route's standing still has this number."),
]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Say what would happen, and change nothing.")]


def _command(verb: str, said: str) -> Callable[..., None]:
    def command(
        context: typer.Context,
        route: NameArgument,
        why: WhyOption = "",
        ticket: TicketOption = "",
        saw: SawOption = None,
        dry_run: DryRunOption = False,
        config: ConfigOption = None,
        as_json: JsonOption = False,
    ) -> None:
        path = chosen(context, config)
        body = {"verb": verb, "why": why, "ticket": ticket, "saw": saw, "dry_run": dry_run}
        done = act(configuration(path).gateway, path, route, body)
        if as_json:
            print_json(done)
        else:
            print_done(route, done)

    command.__name__, command.__doc__ = verb, said
    return command


def act(
    gateway: Gateway, config: Path, route: str | None, body: dict[str, Any], *, seconds: float = ACT_SECONDS
) -> dict[str, Any]:
    """Ask the running gateway for an act, and return what it did; exits with 1 and a sentence if it did nothing."""
    from gateway.cli.remote.report import asking, value_of

    where = "/api/v1/acts" if route is None else f"/api/v1/routes/{quote(route, safe='')}/acts"
    with asking(gateway, config, "POST", where, seconds=seconds, json=body) as answer:
        return value_of(answer, gateway)


def print_done(route: str | None, done: dict[str, Any]) -> None:
    """Print what was done, or would be."""
    prefix = "would be done: " if done["dry_run"] else ""
    about = "" if route is None or done["verb"] in ("freeze", "unfreeze") else f"{route}: "
    for sentence in done["said"] or ["nothing changed"]:
        typer.echo(f"{prefix}{about}{sentence}")
    for name, to in (done.get("frozen") or {}).items() if "standing" in done else ():
        typer.echo(f"{name} is frozen to {to} all the same: `turnout unfreeze {name}` ends that")


COMMANDS: Final = tuple(_command(verb, said) for verb, said in VERBS.items())
