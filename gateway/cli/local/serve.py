"""``turnout serve`` and ``turnout demo``: the commands that run until they are stopped."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gateway.cli.options import ConfigOption, chosen


def serve(context: typer.Context, config: ConfigOption = None) -> None:
    """Run the gateway until it is told to stop.

    Traffic is answered on `listen`, operators are on `admin`. SIGHUP reads the configuration again; SIGTERM and Ctrl-C
    let requests finish and end it; a second one ends it at once.
    """
    from gateway.process.supervisor import serve as run

    raise typer.Exit(run(chosen(context, config)))


def demo(
    duration: Annotated[
        str | None, typer.Option("--for", metavar="DURATION", help="How long users ask, as in 60s or 5m.")
    ] = None,
    rate: Annotated[
        float | None, typer.Option("--rate", metavar="N", help="Requests a second, over all routes.")
    ] = None,
    seed: Annotated[int | None, typer.Option("--seed", metavar="N", help="Fix what the users do.")] = None,
    whole_loop: Annotated[
        bool, typer.Option("--loop", help="Instead, have a trigger retrain a model that a rollout brings to everyone.")
    ] = False,
    json_file: Annotated[
        Path | None, typer.Option("--json-file", metavar="FILE", help="Write what was found as JSON too.")
    ] = None,
) -> None:
    """Show it at work on real models and data.

    Trains small models, serves them behind every policy, sends users' requests and, later, their labels and clicks,
    and ends with what it found. Needs the extra: pip install "turnout[demo]".
    """
    seconds = None if duration is None else _seconds(duration)
    from gateway.demo import DEFAULT_RATE, DEFAULT_SECONDS, LOOP_SECONDS, run

    usual = LOOP_SECONDS if whole_loop else DEFAULT_SECONDS
    code = run(
        usual if seconds is None else seconds,
        DEFAULT_RATE if rate is None else rate,
        seed=seed,
        json_file=json_file,
        whole_loop=whole_loop,
    )
    raise typer.Exit(code)


def _seconds(duration: str) -> float:
    """Return a duration such as "60s" or "5m" in seconds; a bare number is of seconds."""
    units = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
    number = duration.rstrip("abcdefghijklmnopqrstuvwxyz")
    unit = duration[len(number) :] or "s"
    try:
        seconds = float(number) * units[unit]
    except (KeyError, ValueError):
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise typer.BadParameter(f'"{duration}" is no duration; write it as 60s, 5m or 1h', param_hint="--for")
    return seconds
