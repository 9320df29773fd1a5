"""The age of a version."""

from __future__ import annotations

from dataclasses import dataclass

from router.triggers.condition import Condition, ConditionJudged, Length, Since, needed, unknown
from router.triggers.readings import Need, TriggerReadings


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionAge(Condition):
    """The variant's version has served for so long."""

    kind = "age"
    has_history = True

    at_least: Length = needed('How long, as in "30d".')

    def judge(self, seen: TriggerReadings, since: Since) -> ConditionJudged:
        if seen.began_ms is None:
            return unknown(f"{seen.variant} has served nothing yet")
        days = (seen.at_ms - seen.began_ms) / 86_400_000
        bound = self.at_least / 86_400_000
        said = f"version {seen.version} of {seen.variant} has served for {days:.1f} days, of {bound:g}"
        return ConditionJudged("met" if days >= bound else "clear", said, value=days, bound=bound)

    @property
    def needs(self) -> tuple[Need, ...]:
        return (Need("age"),)
