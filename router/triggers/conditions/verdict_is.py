"""A verdict that changed to a status."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Final

from router.triggers.condition import Condition, ConditionJudged, Since, needed, unknown
from router.triggers.readings import Need, TriggerReadings

#: What a verdict can be.
STATUSES: Final = ("failing", "better", "worse", "no_difference_yet", "collecting", "invalid")


@dataclass(frozen=True, slots=True, kw_only=True)
class VerdictIs(Condition):
    """The verdict on the variant, or on any other than the baseline if the trigger is about that, has a status."""

    kind = "verdict"

    status: Annotated[tuple[str, ...], "some"] = needed("One or more of the statuses of a verdict.")

    def judge(self, seen: TriggerReadings, since: Since) -> ConditionJudged:
        about = {
            name: status
            for name, status in seen.verdicts.items()
            if seen.variant in (name, seen.baseline) and name != seen.baseline
        }
        if not about:
            return unknown("there is no verdict yet")
        found = sorted(name for name, status in about.items() if status in self.status)
        said = ", ".join(f"{name} is {about[name]}" for name in found or sorted(about))
        return ConditionJudged("met" if found else "clear", said)

    @property
    def needs(self) -> tuple[Need, ...]:
        return (Need("verdicts"),)

    def problems(self) -> Iterator[tuple[str, str]]:
        wrong = [one for one in self.status if one not in STATUSES]
        if wrong:
            yield "status", f'must be of {", ".join(STATUSES)}, got "{wrong[0]}"'
