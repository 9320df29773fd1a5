"""How a trigger advances: from where it stands and what is read to where it stands next, and whether it fires.

Rule: pure, and the only place that decides on firing. What was fired is in the standing that is stored with its event,
so it fires once, whoever looks. Data that is missing neither fires it nor clears it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from hashlib import blake2b
from typing import Any, NamedTuple

from router.settings.trigger import Trigger
from router.triggers.condition import ConditionJudged, Since
from router.triggers.readings import TriggerReadings


@dataclass(frozen=True, slots=True, kw_only=True)
class TriggerStanding:
    """Where a trigger stands: plain JSON values.

    ``met`` says of each condition since when it is met, None while it is not, as last known; it is ``armed`` unless
    the trigger has fired since. ``fired`` counts firings; ``labels`` were there at the last one, in ``epoch``, and
    ``version`` was the variant's. ``owed`` are actions of the last firing that are not done yet.
    """

    settings: str = ""
    began_ms: int = 0
    met: tuple[int | None, ...] = ()
    armed: tuple[bool, ...] = ()
    fired: int = 0
    fired_ms: int | None = None
    version: str | None = None
    epoch: str = ""
    labels: Mapping[str, int] = field(default_factory=dict)
    owed: tuple[str, ...] = ()

    @property
    def since(self) -> Since:
        """Since when conditions count."""
        at_ms = self.began_ms if self.fired_ms is None else self.fired_ms
        return Since(at_ms=at_ms, epoch=self.epoch, labels=self.labels)

    @property
    def stored(self) -> dict[str, Any]:
        """The same as plain JSON values."""
        return {**asdict(self), "met": list(self.met), "armed": list(self.armed), "owed": list(self.owed)}


class AskedToFire(NamedTuple):
    """That somebody asked a trigger to fire, by whatever name they are known, and why."""

    who: str
    why: str = ""


class TriggerAdvanced(NamedTuple):
    """Where a trigger stands now, its conditions, and the event if it fired: plain JSON values."""

    standing: TriggerStanding
    judged: tuple[ConditionJudged, ...]
    event: dict[str, Any] | None


def standing_of(body: Mapping[str, Any]) -> TriggerStanding:
    """Return a standing from its JSON; what a newer program added is left out."""
    known = {f.name for f in fields(TriggerStanding)}
    values = {name: value for name, value in body.items() if name in known}
    for name in ("met", "armed", "owed"):
        values[name] = tuple(values.get(name, ()))
    return TriggerStanding(**values)


def advance(
    trigger: Trigger, standing: TriggerStanding | None, seen: TriggerReadings, asked: AskedToFire | None = None
) -> TriggerAdvanced:
    """Return what comes of a trigger by these readings; ``standing`` is None if it is looked at for the first time."""
    now = _begun(trigger, standing, seen)
    judged = tuple(_judged(trigger, index, seen, now) for index in range(len(trigger.conditions)))
    met = tuple(_met(one, before, seen.at_ms) for one, before in zip(judged, now.met, strict=True))
    armed = tuple(ready or since is None for ready, since in zip(now.armed, met, strict=True))
    now = replace(now, met=met, armed=armed)
    if asked is None and not (_may(trigger, now, seen) and _due(trigger, now, judged, seen.at_ms)):
        return TriggerAdvanced(now, judged, None)
    number = now.fired + 1
    owed = [f"freeze:{trigger.freeze}"] if trigger.freeze is not None else []
    fired = replace(
        now,
        armed=tuple(since is None for since in met),
        fired=number,
        fired_ms=seen.at_ms,
        version=seen.version,
        epoch=seen.epoch,
        labels=dict(seen.labels),
        owed=(*owed, *(["pause"] if trigger.pause else [])),
    )
    return TriggerAdvanced(fired, judged, _event(trigger, fired, judged, seen, asked))


def next_look_ms(trigger: Trigger, standing: TriggerStanding) -> int | None:
    """Return when a trigger must be looked at though nothing was counted; None if time alone changes nothing."""
    found = [moment for one in trigger.conditions if (moment := one.next_ms(standing.since)) is not None]
    met = [since for since in standing.met if since is not None]
    found += [since + trigger.hold for since in met]
    if met and trigger.cool_down is not None and standing.fired_ms is not None:
        found.append(standing.fired_ms + trigger.cool_down)
    return min(found, default=None)


def _begun(trigger: Trigger, standing: TriggerStanding | None, seen: TriggerReadings) -> TriggerStanding:
    """Return the standing by the trigger's present conditions: with others none was met yet."""
    settings = blake2b(repr((trigger.route, trigger.variant, trigger.any, trigger.all)).encode(), digest_size=8)
    digest, n = settings.hexdigest(), len(trigger.conditions)
    if standing is not None and standing.settings == digest:
        return standing
    begun = TriggerStanding(began_ms=seen.at_ms, epoch=seen.epoch, labels=dict(seen.labels))
    return replace(standing or begun, settings=digest, met=(None,) * n, armed=(True,) * n)


def _judged(trigger: Trigger, index: int, seen: TriggerReadings, standing: TriggerStanding) -> ConditionJudged:
    one = trigger.conditions[index]
    if trigger.min_coverage:
        for metric in one.metrics:
            covered = seen.coverage.get(metric)
            if covered is None or covered.value < trigger.min_coverage:
                share = "none" if covered is None else f"{covered.value:.0%}"
                said = f"{share} of predictions have a value of {metric}, and {trigger.min_coverage:.0%} are needed"
                return ConditionJudged("unknown", said)
    return one.judge(seen, standing.since)


def _met(one: ConditionJudged, before: int | None, at_ms: int) -> int | None:
    """Return since when a condition is met; what is unknown or between stays as it was."""
    if one.state == "met":
        return at_ms if before is None else before
    return None if one.state == "clear" else before


def _cooled(trigger: Trigger, standing: TriggerStanding, at_ms: int) -> bool:
    """Return whether a cool-down is given and over."""
    if trigger.cool_down is None:
        return False
    return standing.fired_ms is None or at_ms - standing.fired_ms >= trigger.cool_down


def _may(trigger: Trigger, standing: TriggerStanding, seen: TriggerReadings) -> bool:
    """Return whether it may fire now, whatever its conditions are."""
    if trigger.cool_down is not None and not _cooled(trigger, standing, seen.at_ms):
        return False
    return not (trigger.once_per_version and standing.fired and standing.version == seen.version)


def _due(trigger: Trigger, standing: TriggerStanding, judged: Sequence[ConditionJudged], at_ms: int) -> bool:
    """Return whether its conditions are met, are known to be, have been for long enough, and are new or cooled."""
    cooled = _cooled(trigger, standing, at_ms)
    held = [
        since is not None and one.state != "unknown" and at_ms - since >= trigger.hold
        for since, one in zip(standing.met, judged, strict=True)
    ]
    if trigger.any:
        return any(holds and (new or cooled) for holds, new in zip(held, standing.armed, strict=True))
    return bool(held) and all(held) and (cooled or any(standing.armed))


def _event(
    trigger: Trigger,
    fired: TriggerStanding,
    judged: Sequence[ConditionJudged],
    seen: TriggerReadings,
    asked: AskedToFire | None,
) -> dict[str, Any]:
    met = [one for one in judged if one.state in ("met", "between")] if asked is None else []
    why = "; ".join(one.said for one in met if one.state == "met") or "; ".join(one.said for one in met)
    if asked is not None:
        why = f"{asked.who} asked for it{f': {asked.why}' if asked.why else ''}"
    return {
        "trigger": trigger.name,
        "number": fired.fired,
        "at_ms": seen.at_ms,
        "variant": seen.variant,
        "version": seen.version,
        "cause": "conditions" if asked is None else "request",
        "why": why,
        "conditions": [
            {"kind": one.kind, **result._asdict()} for one, result in zip(trigger.conditions, judged, strict=True)
        ],
        "webhook": trigger.webhook,
        "freeze": trigger.freeze,
        "pause": trigger.pause,
    }
