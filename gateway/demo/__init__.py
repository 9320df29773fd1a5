"""``turnout demo``: real models on real data behind a real gateway for a minute, and then what the gateway found.

Rule: nothing here is part of the gateway, and no module of the gateway imports it: the demo starts ``turnout serve`` as
a user would and talks to it over HTTP. Nothing is imported or started before it runs, and it says when scikit-learn is
missing.
"""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import Coroutine
from pathlib import Path
from secrets import randbits
from typing import Any

from rich.console import Console

from gateway.cli import output

#: 205 requests a second over eight routes keep one slow core busy at most, models included.
DEFAULT_SECONDS = 60.0
#: What the loop takes at most; on an idle machine it is done after a minute and a half.
LOOP_SECONDS = 180.0
DEFAULT_RATE = 205.0


def run(
    duration_seconds: float = DEFAULT_SECONDS,
    rate: float = DEFAULT_RATE,
    *,
    seed: int | None = None,
    json_file: Path | None = None,
    whole_loop: bool = False,
    console: Console | None = None,
) -> int:
    """Run the demo and return its exit code: 0, or 1 when something is missing or the accounts do not add up.

    Users send ``rate`` requests a second for ``duration_seconds``. Training, starting and waiting for the last windows
    to close take some seconds more. ``seed`` fixes what the users do (None: a random one); the findings are written to
    ``json_file``. With ``whole_loop`` a trigger has a model retrained instead, which a rollout brings to everyone.
    Ctrl-C and SIGTERM end every process that was started; then it returns 130.
    """
    console = console or output.console()
    if importlib.util.find_spec("sklearn") is None:
        console.print("The demo trains its models with scikit-learn, which is not installed.", style="red")
        console.print('Install it with: pip install "turnout[demo]"', markup=False)
        return 1
    if not (duration_seconds > 0 and rate > 0):
        console.print("The demo needs a duration and a rate above 0.", style="red")
        return 1
    if whole_loop:
        from gateway.demo.loop import RATE, loop

        work = loop(console, duration_seconds, RATE, randbits(32) if seed is None else seed)
        return _ended(work, console)
    from gateway.demo.show import Show

    show = Show(console, duration_seconds, rate, randbits(32) if seed is None else seed, json_file)
    return _ended(show.run(), console)


def _ended(work: Coroutine[Any, Any, int], console: Console) -> int:
    """Run it to its end, or until it is interrupted; return its exit code."""
    try:
        return asyncio.run(work)
    except (KeyboardInterrupt, asyncio.CancelledError):
        console.print("Stopped; everything that was started has ended.")
        return 130
