"""A schedule."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from policies.rollouts.calendar import zone_of
from router.triggers.condition import Condition, ConditionJudged, MetricName, Since, key, needed
from router.triggers.cron import cron, next_due_ms
from router.triggers.readings import TriggerReadings


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule(Condition):
    """A time of a schedule has come since the last firing, else since the trigger began: once, however many have."""

    kind = "schedule"
    has_history = True

    cron: MetricName = needed('Minute, hour, day of the month, month and weekday, as in "0 4 * * mon".')
    zone: MetricName = key("UTC", 'The time zone of its clock, as in "Europe/Berlin".')

    def judge(self, seen: TriggerReadings, since: Since) -> ConditionJudged:
        due = seen.at_ms >= next_due_ms(self.cron, self.zone, since.at_ms)
        said = f'the schedule "{self.cron}" ({self.zone}) is {"due" if due else "not due yet"}'
        return ConditionJudged("met" if due else "clear", said)

    def next_ms(self, since: Since) -> int | None:
        return next_due_ms(self.cron, self.zone, since.at_ms)

    def problems(self) -> Iterator[tuple[str, str]]:
        for name, check, value in (("cron", cron, self.cron), ("zone", zone_of, self.zone)):
            try:
                check(value)
            except ValueError as error:
                yield name, str(error)
