"""The scenarios, in the order in which they run. Adding one is one file and one name here."""

from __future__ import annotations

from typing import Final

from loadtests.scenarios.plain import PLAIN
from loadtests.scenarios.scenario import Scenario
from loadtests.scenarios.split import SPLIT

SCENARIOS: Final = (SPLIT, PLAIN)

__all__ = ["SCENARIOS", "Scenario"]
