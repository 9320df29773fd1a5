"""A guardrail that is broken."""

from __future__ import annotations

from dataclasses import dataclass

from router.triggers.condition import Condition, ConditionJudged, MetricName, Since, key, unknown
from router.triggers.readings import Need, TriggerReadings


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardrailBroken(Condition):
    """A guardrail is broken by the variant, or by any if the trigger is about the baseline."""

    kind = "guardrail"

    metric: MetricName | None = key(None, "What the guardrail is about; without it, any.")

    def judge(self, seen: TriggerReadings, since: Since) -> ConditionJudged:
        about = {
            (variant, metric): state
            for (variant, metric), state in seen.guardrails.items()
            if seen.variant in (variant, seen.baseline) and self.metric in (None, metric)
        }
        if not about:
            return unknown("no guardrail was judged yet")
        broken = sorted(of for of, state in about.items() if state == "broken")
        if broken:
            return ConditionJudged("met", ", ".join(f"{variant} breaks {metric}" for variant, metric in broken))
        undecided = any(state == "undecided" for state in about.values())
        return ConditionJudged("between" if undecided else "clear", "no guardrail is broken")

    @property
    def needs(self) -> tuple[Need, ...]:
        return (Need("guardrails", self.metric or ""),)
