"""On request alone."""

from __future__ import annotations

from dataclasses import dataclass

from router.triggers.condition import Condition, ConditionJudged, Since
from router.triggers.readings import TriggerReadings


@dataclass(frozen=True, slots=True, kw_only=True)
class OnRequest(Condition):
    """Never met by itself: the trigger fires when somebody asks for it, which any trigger does as well."""

    kind = "request"

    def judge(self, seen: TriggerReadings, since: Since) -> ConditionJudged:
        return ConditionJudged("clear", "it fires on request")
