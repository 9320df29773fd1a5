"""The kinds of conditions, one file each.

Rule: a kind is a class in its own file and a name in ``CONDITIONS``; no other file names it.
"""

from __future__ import annotations

from typing import Final

from router.triggers.condition import Condition
from router.triggers.conditions.against_baseline import WorseThanBaseline
from router.triggers.conditions.age import VersionAge
from router.triggers.conditions.coverage import CoverageBelow
from router.triggers.conditions.guardrail_broken import GuardrailBroken
from router.triggers.conditions.labels import LabelledRows
from router.triggers.conditions.limit import MetricLimit
from router.triggers.conditions.past import WorseThanPast
from router.triggers.conditions.request import OnRequest
from router.triggers.conditions.schedule import Schedule
from router.triggers.conditions.verdict_is import VerdictIs

CONDITIONS: Final[tuple[type[Condition], ...]] = (
    MetricLimit,
    WorseThanPast,
    WorseThanBaseline,
    LabelledRows,
    VersionAge,
    Schedule,
    CoverageBelow,
    VerdictIs,
    GuardrailBroken,
    OnRequest,
)
