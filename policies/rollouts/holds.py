"""What guardrails and people do to the variants of any policy: take one out, give it the least share, pause.

Rule: a guardrail never holds the baseline, and no variant while the baseline itself fails: that is said instead. A held
variant is free again with another version, and after ``resume`` or ``restart``; what a person did lasts until the file
changes what the policy gives to variants.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from policies.rollouts.harm import Harm, accepting, broken_now, harms, no_way_back, warn
from policies.rollouts.history import Changes
from policies.rollouts.standing import Command, Findings, Held, Moved, Refused, Standing
from policies.rollouts.waits import Wait


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What this has to know of a policy; ``settings`` is a hash of what the file says that each variant gets."""

    kind: str
    variants: tuple[str, ...]
    baseline: str
    adaptive: bool
    settings: str

    @property
    def others(self) -> tuple[str, ...]:
        return tuple(name for name in self.variants if name != self.baseline)


def reconciled(subject: Subject, standing: Standing, findings: Findings, now_ms: int) -> Moved | None:
    """Return what an edit of the file changes by itself."""
    changes = Changes(standing, subject.kind, findings, now_ms)
    _edited(subject, changes)
    return changes.moved()


def advance(subject: Subject, standing: Standing, findings: Findings, now_ms: int) -> Moved | None:
    """Return what an edit and the guardrails change."""
    changes = Changes(standing, subject.kind, findings, now_ms)
    _edited(subject, changes)
    found = harms(findings, subject.others, subject.baseline, changes.standing, None)
    acting = [harm for harm in found if harm.action in ("rollback", "floor")]
    said, failing = changes.standing.detail.get("said"), no_way_back(findings, acting)
    if acting and failing is not None and said is None:
        why = f"nothing is taken out, as the baseline itself does no better: {subject.baseline} {failing}"
        detail = changes.note(said="baseline_failing")
        changes.make("baseline_failing", why, "evidence", variant=subject.baseline, detail=detail)
    elif failing is None and said is not None:
        why = f"the baseline {subject.baseline} does not fail any more"
        changes.make("baseline_recovered", why, "evidence", variant=subject.baseline, detail=changes.note(said=None))
    for harm in found:
        _answer(changes, harm, stopped=findings.failing is not None or harm.shared is not None)
    return changes.moved()


def act(subject: Subject, standing: Standing, command: Command, findings: Findings, now_ms: int) -> Moved | Refused:
    """Return what an act changes, or why it does not apply."""
    changes = Changes(standing, subject.kind, findings, now_ms)
    _edited(subject, changes)
    refused = _refusal(subject, changes.standing, command)
    if refused is not None:
        return Refused(refused)
    hand = {"verb": command.verb, "who": command.who, "at_ms": now_ms, "settings": subject.settings}
    after: dict[str, Any] = {"held": {}, "of": {}, "state": "running"}
    match command.verb:
        case "pause":
            kind, why = "paused", f"{command.who} paused it"
            after = {"state": "paused", "detail": changes.note(by_hand=hand, because=why)}
        case "rollback":
            kind, why = "rolled_back", f"{command.who} rolled back: {subject.baseline} gets everything"
            versions = {name: findings.versions.get(name, "") for name in subject.others}
            out = dict.fromkeys(subject.others, "out")
            after = {
                "state": "rolled_back",
                "held": out,
                "of": versions,
                "detail": changes.note(by_hand=hand, because=why),
            }
        case "restart":
            kind, why = "restarted", f"{command.who} restarted it"
            after["detail"] = {"began_ms": now_ms}
        case _:
            accepted = broken_now(findings, subject.others)
            kind, why = "resumed", f"{command.who} resumed it{accepting(accepted)}"
            after["detail"] = changes.note(accepted=accepted or None, by_hand=None, because=None)
    changes.make(kind, why, "act", by=command, **after)
    return Moved(changes.standing, tuple(changes.events))


def waits_for(standing: Standing) -> tuple[Wait, ...]:
    """Return that a person is waited for, where something is paused or held."""
    found = []
    if standing.state == "paused":
        found.append(Wait("person", f"a person resumes it: {standing.detail.get('because', 'it is paused')}"))
    if standing.held:
        held = ", ".join(f"{name} ({how})" for name, how in standing.held.items())
        found.append(Wait("person", f"a person resumes it, or another version comes: held are {held}"))
    return tuple(found)


def worded(standing: Standing) -> str:
    """Return a state in words, with who made it so by hand."""
    words = {"running": "running", "paused": "paused", "rolled_back": "rolled back", "done": "done"}[standing.state]
    hand = standing.detail.get("by_hand")
    return words if not hand or standing.state == "running" else f"{words} by {hand['who']}"


def _refusal(subject: Subject, now: Standing, command: Command) -> str | None:
    """Return why an act does not apply; None if it does."""
    match command.verb:
        case "approve" | "advance" | "promote":
            return f"the policy {subject.kind} has no steps; only a rollout has something to {command.verb}"
        case "pause" if not subject.adaptive:
            return f"shares of the policy {subject.kind} do not move by themselves; freeze the route, or roll it back"
        case "pause" if now.state != "running":
            return f"it is {worded(now)} already"
        case "rollback" if not subject.others:
            return f"the route has no variant but {subject.baseline}, so there is nothing to roll back"
        case "rollback" if all(now.held.get(name) == "out" for name in subject.others):
            return f"{subject.baseline} gets everything already"
        case "resume" | "restart" if now.state == "running" and not now.held:
            return f"nothing is paused or held, so there is nothing to {command.verb}"
    return None


def _answer(changes: Changes, harm: Harm, *, stopped: bool) -> None:
    """Do what the file says about a variant that does harm."""
    now, variant = changes.standing, harm.variant
    if harm.action == "warn":
        return warn(changes, harm)
    if harm.action == "pause":
        if now.state == "running":
            why = f"paused: {variant} {harm.why}"
            changes.make("paused", why, "evidence", variant=variant, state="paused", detail=changes.note(because=why))
        return None
    how: Held = "out" if harm.action == "rollback" else "floor"
    if not stopped and now.held.get(variant) not in ("out", how):
        why = f"{variant} gets {'nothing' if how == 'out' else 'the least share'} now: it {harm.why}"
        of = {**now.of, variant: changes.findings.versions.get(variant, "")}
        changes.make("held", why, "evidence", variant=variant, held={**now.held, variant: how}, of=of)
    return None


def _edited(subject: Subject, changes: Changes) -> None:
    """Take over what an edit changed: another policy, other settings than a hand act was about, other versions."""
    now, versions = changes.standing, changes.findings.versions
    if now.number and now.policy != subject.kind:
        why = f"the policy is {subject.kind} now"
        changes.make("begun_anew", why, "edit", state="running", step=0, since_ms=0, held={}, of={}, detail={})
        return
    hand = now.detail.get("by_hand")
    if hand and hand["settings"] != subject.settings:
        why = f"the file changed the shares, which ends what {hand['who']} did by hand ({hand['verb']})"
        detail = changes.note(by_hand=None, because=None)
        changes.make("freed", why, "edit", state="running", held={}, of={}, detail=detail)
        return
    for name in tuple(now.held):
        version, of_it = versions.get(name), now.of.get(name)
        if name in subject.variants and (not version or not of_it or version == of_it):
            continue  # the same version, or one that is not known
        now = changes.standing
        held = {other: how for other, how in now.held.items() if other != name}
        of = {other: said for other, said in now.of.items() if other != name}
        state = "running" if now.state == "rolled_back" and not held else now.state
        detail = changes.note(by_hand=None, because=None) if state != now.state else changes.note()
        why = f"{name} is free again: " + (
            "the policy has it no more" if name not in subject.variants else f"its version is {version} now"
        )
        changes.make("freed", why, "edit", variant=name, state=state, held=held, of=of, detail=detail)
