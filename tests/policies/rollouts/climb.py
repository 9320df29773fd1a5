"""A rollout that is driven by hand: a small ladder, findings in words, and a clock that is moved.

Rule: it goes through ``advance`` and ``act`` as the controller does, and keeps every event.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from policies.rollouts.ladder import Stage
from policies.rollouts.rollout import Rollout
from policies.rollouts.standing import START, Command, Findings, Judged, Moved, Refused, Standing, Verb
from policies.types import Policy

MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000

#: Monday, 2026-03-02, 08:00 UTC.
MONDAY = 1_772_438_400_000

VERSIONS = {"v1": "1", "v2": "2"}


def rollout(*steps: Stage, **settings: Any) -> Rollout:
    """Return a rollout from v1 to v2; without steps 1 %, 10 % and everybody, an hour each."""
    three = (Stage(share=0.01, hold=HOUR), Stage(share=0.1, hold=HOUR), Stage(share=1.0, hold=HOUR, whole_days=False))
    return Rollout(stable="v1", candidate="v2", steps=steps or three, **settings)


def broken(metric: str = "failures", variant: str = "v2", **more: Any) -> Judged:
    return Judged(metric=metric, variant=variant, state="broken", **more)


@dataclass
class Climb:
    """``policy`` at ``standing`` at ``now``; each method returns the kinds of the events that it made."""

    policy: Policy
    now: int = MONDAY
    standing: Standing = START
    versions: Mapping[str, str] = field(default_factory=lambda: dict(VERSIONS))
    events: list[Mapping[str, Any]] = field(default_factory=list)

    def findings(self, **more: Any) -> Findings:
        """Return what is found where all variants have just had calls, and plenty of everything."""
        names = self.policy.variants
        plenty: dict[str, Any] = {
            "versions": self.versions,
            "last_ms": dict.fromkeys(names, self.now),
            **{name: dict.fromkeys(names, 1_000_000) for name in ("units", "calls", "pairs")},
        }
        return Findings(**{**plenty, **more})

    def after(self, ms: int = 0, **more: Any) -> list[str]:
        """Let this time pass, and let the rollout move if it does."""
        self.now += ms
        return self._take(self.policy.advance(self.standing, self.findings(**more), self.now))

    def act(self, verb: Verb, who: str = "ann", **more: Any) -> str | list[str]:
        """Do an act; return the events, or why it was refused."""
        given = {name: more.pop(name) for name in ("why", "ticket", "author", "known") if name in more}
        command = Command(verb=verb, who=who, **given)
        done = self.policy.act(self.standing, command, self.findings(**more), self.now)
        return done.why if isinstance(done, Refused) else self._take(done)

    def edit(self, policy: Policy | None = None, **settings: Any) -> None:
        self.policy = policy or replace(self.policy, **settings)  # type: ignore[type-var]

    @property
    def at(self) -> tuple[str, int]:
        """Where it stands: its state, and the step counted from 1."""
        return self.standing.state, self.standing.step + 1

    def waits(self, **more: Any) -> list[str]:
        """Return what it waits for."""
        return [wait.condition for wait in self.policy.waits_for(self.standing, self.findings(**more), self.now)]

    def _take(self, moved: Moved | None) -> list[str]:
        if moved is None:
            return []
        self.standing = moved.standing
        self.events += moved.events
        return [event["kind"] for event in moved.events]
