"""``turnout demo``: real models on real data behind a real gateway, for a minute, and what came of it.

Rule: nothing here is part of the gateway, and the gateway knows nothing of it: the demo starts ``turnout serve`` as
anyone would and speaks to it over HTTP. It costs nothing until it is run, and says so when scikit-learn is missing.
"""

from __future__ import annotations

import asyncio
import importlib.util
from pathlib import Path
from secrets import randbits

from rich.console import Console

from gateway.cli import output

#: 125 requests a second over five routes keep one slow core busy at most, models included.
DEFAULT_SECONDS = 60.0
DEFAULT_RATE = 125.0


def run(
    duration_seconds: float = DEFAULT_SECONDS,
    rate: float = DEFAULT_RATE,
    *,
    seed: int | None = None,
    json_file: Path | None = None,
    console: Console | None = None,
) -> int:
    """Run the demo and return its exit code: 0, or 1 when something is missing or the accounts do not add up.

    Users ask for ``duration_seconds`` at ``rate`` requests a second; it takes some seconds more to train, to start and
    to wait for the last windows. ``seed`` fixes what the users do (None: by chance); ``json_file`` gets the findings.
    Ctrl-C and SIGTERM end everything that was started; then it returns 130.
    """
    console = console or output.console()
    if importlib.util.find_spec("sklearn") is None:
        console.print("The demo trains its models with scikit-learn, which is not installed.", style="red")
        console.print('Install it with: pip install "turnout[demo]"', markup=False)
        return 1
    if not (duration_seconds > 0 and rate > 0):
        console.print("The demo needs a duration and a rate above 0.", style="red")
        return 1
    from gateway.demo.show import Show

    show = Show(console, duration_seconds, rate, randbits(32) if seed is None else seed, json_file)
    try:
        return asyncio.run(show.run())
    except (KeyboardInterrupt, asyncio.CancelledError):
        console.print("Stopped; everything that was started has ended.")
        return 130
