"""How a standing changes: one event for each change, from which the standing can be made again.

Rule: a standing's number grows by one with each event. An event holds the fields that it changed, before and after, so
that replaying all events gives the standing exactly, and one that is lost, doubled or of another history is noticed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, fields, replace
from typing import Any, Final, Literal

from policies.rollouts.standing import START, Command, Findings, Moved, Standing

#: What made a change: what is known of the route, a person (or a program for one), or an edit of the file.
Cause = Literal["evidence", "act", "edit"]

_FIELDS: Final = tuple(one.name for one in fields(Standing))


class Changes:
    """The changes of a standing that one call makes, in their order."""

    def __init__(self, standing: Standing, policy: str, findings: Findings, now_ms: int) -> None:
        self.standing = standing
        self.events: list[Mapping[str, Any]] = []
        self.findings: Final = findings
        self.now_ms: Final = now_ms
        self._policy: Final = policy

    def make(
        self, kind: str, why: str, cause: Cause, *, variant: str | None = None, by: Command | None = None, **after: Any
    ) -> None:
        """Change the standing's fields to ``after``, and note why; ``variant`` is the one that it is about."""
        before = self.standing
        now_ms = max(self.now_ms, before.changed_ms)  # a clock that was set back does not turn history round
        after |= {"number": before.number + 1, "policy": self._policy, "changed_ms": now_ms}
        self.standing = replace(before, **after)
        changed = [name for name in _FIELDS if getattr(before, name) != getattr(self.standing, name)]
        event: dict[str, Any] = {"kind": kind, "at_ms": self.now_ms, "cause": cause, "why": why}
        if variant is not None:
            event["variant"] = variant
        if by is not None:
            event |= {"verb": by.verb, "who": by.who}
            event |= {name: said for name in ("ticket", "author") if (said := getattr(by, name))}
            if by.why:
                event["reason"] = by.why
        event["from"] = {name: _plain(getattr(before, name)) for name in changed}
        event["to"] = {name: _plain(getattr(self.standing, name)) for name in changed}
        if cause != "edit":
            event["evidence"] = encode_findings(self.findings)
        self.events.append(event)

    def note(self, **detail: Any) -> dict[str, Any]:
        """Return the standing's detail with these entries; None removes one."""
        whole = {**self.standing.detail, **detail}
        return {name: value for name, value in whole.items() if value is not None}

    def moved(self) -> Moved | None:
        """Return what changed, or None if nothing did."""
        return Moved(self.standing, tuple(self.events)) if self.events else None


def replay(events: Iterable[Mapping[str, Any]], since: Standing = START) -> Standing:
    """Return the standing that these events lead to from ``since``. Events are as ``Changes`` made them, or as JSON.

    Raises ValueError if one is missing, doubled, or does not follow from those before it.
    """
    standing = since
    for event in events:
        before, after = event["from"], event["to"]
        if after["number"] != standing.number + 1:
            raise ValueError(f"event {after['number']} follows {standing.number}")
        for name, value in before.items():
            if getattr(standing, name) != value:
                raise ValueError(f"event {after['number']}: {name} was {value!r}, and is {getattr(standing, name)!r}")
        standing = replace(standing, **{name: value for name, value in after.items() if name in _FIELDS})
    return standing


def encode_findings(findings: Findings) -> dict[str, Any]:
    """Return findings as plain JSON values, without what is as if nothing was found."""
    nothing, whole = asdict(Findings()), asdict(findings)
    return {name: _plain(value) for name, value in whole.items() if value != nothing[name]}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
