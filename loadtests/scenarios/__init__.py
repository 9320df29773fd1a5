"""The scenarios, in the order in which they run. Adding one is one file and one name here."""

from __future__ import annotations

from typing import Final

from loadtests.scenarios.hostile import HOSTILE
from loadtests.scenarios.idle import IDLE
from loadtests.scenarios.interleave import INTERLEAVE
from loadtests.scenarios.large import LARGE
from loadtests.scenarios.latency import LATENCY
from loadtests.scenarios.mirror import MIRROR
from loadtests.scenarios.overload import OVERLOAD
from loadtests.scenarios.plain import PLAIN
from loadtests.scenarios.scenario import Scenario
from loadtests.scenarios.slow import SLOW
from loadtests.scenarios.soak import SOAK
from loadtests.scenarios.split import SPLIT
from loadtests.scenarios.storm import STORM
from loadtests.scenarios.stream import STREAM
from loadtests.scenarios.workers import WORKERS

SCENARIOS: Final = (
    SPLIT,
    LATENCY,
    PLAIN,
    LARGE,
    STREAM,
    SLOW,
    INTERLEAVE,
    STORM,
    IDLE,
    HOSTILE,
    MIRROR,
    OVERLOAD,
    WORKERS,
    SOAK,
)

__all__ = ["SCENARIOS", "Scenario"]
