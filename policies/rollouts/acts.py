"""What people do to a rollout: approve, advance, pause, resume, rollback, restart, promote.

Rule: an act that does not apply is refused in a sentence that says what would do. Going on by hand does not go around
approvals: whoever advances approves, and is refused while others have to approve as well.
"""

from __future__ import annotations

from typing import Any

from policies.rollouts import calendar
from policies.rollouts.advance import begin, edited, enter, roll_back, step_words
from policies.rollouts.harm import accepting, broken_now
from policies.rollouts.history import Changes
from policies.rollouts.holds import worded
from policies.rollouts.ladder import Ladder, Stage, position
from policies.rollouts.standing import Command, Findings, Moved, Refused, Standing
from policies.rollouts.waits import held_ms
from policies.rollouts.words import moment


def act(
    ladder: Ladder, kind: str, standing: Standing, command: Command, findings: Findings, now_ms: int
) -> Moved | Refused:
    """Return what an act changes, or why it does not apply."""
    changes = Changes(standing, kind, findings, now_ms)
    edited(ladder, kind, changes)
    now, at = changes.standing, position(ladder.steps, changes.standing)
    refused = _refusal(ladder, now, command)
    if refused is not None:
        return Refused(refused)
    who, hand = command.who, {"verb": command.verb, "who": command.who, "at_ms": now_ms}
    broken = broken_now(findings, (ladder.candidate,))
    spite, accepted = accepting(broken) + _outside(ladder, now_ms), _accepted(ladder, now, broken)
    more: dict[str, Any] = {"by_hand": hand} | ({"accepted": accepted} if accepted else {})
    match command.verb:
        case "approve":
            given = [*now.detail.get("approvals", ()), {"who": who, "at_ms": now_ms, "ticket": command.ticket}]
            why = f"{who} approved {step_words(ladder, at)}"
            changes.make(
                "approved", why, "act", variant=ladder.candidate, by=command, detail=changes.note(approvals=given)
            )
        case "advance":
            last = at + 1 == len(ladder.steps)
            to = "the rollout is done" if last else f"next {step_words(ladder, at + 1)}"
            why = f"{who} ended {step_words(ladder, at)}: {to}{spite}"
            enter(ladder, changes, at + 1, "done" if last else "advanced", why, "act", by=command, **more)
        case "promote":
            why = f"{who} promoted {ladder.candidate}: it answers everything{spite}"
            enter(ladder, changes, len(ladder.steps) - 1, "promoted", why, "act", by=command, **more)
        case "pause":
            why = f"{who} paused {step_words(ladder, at)}"
            detail = changes.note(because=why, by_hand=hand)
            changes.make("paused", why, "act", variant=ladder.candidate, by=command, state="paused", detail=detail)
        case "resume":
            why = f"{who} resumed {step_words(ladder, at)}{accepting(broken)}"
            over: dict[str, Any] = {"because": None, "metric": None, "by_hand": None, "accepted": accepted or None}
            detail = changes.note(limit_from=held_ms(now, now_ms), **over)
            changes.make("resumed", why, "act", variant=ladder.candidate, by=command, state="running", detail=detail)
        case "rollback":
            failing = findings.failing
            why = f"{who} rolled back: {ladder.stable} answers everything"
            why += f", although it fails itself: it {failing}" if failing is not None else ""
            roll_back(ladder, changes, why, "act", by=command, by_hand=hand)
        case "restart":
            why = f"{who} restarted the rollout of {ladder.candidate} at {step_words(ladder, 0)}"
            begin(ladder, changes, "restarted", why, "act", by=command)
    return Moved(changes.standing, tuple(changes.events))


def _accepted(ladder: Ladder, now: Standing, broken: list[list[str]]) -> list[list[str]]:
    """Return the guardrails that do not act again after a pause because of one, which a person ended."""
    found = [*now.detail.get("accepted", ()), *broken]
    if now.detail.get("metric") == "agreement":
        found.append([ladder.candidate, "agreement"])
    return [one for index, one in enumerate(found) if one not in found[:index]]


def _refusal(ladder: Ladder, now: Standing, command: Command) -> str | None:
    """Return why an act does not apply; None if it does."""
    at, state = position(ladder.steps, now), worded(now)
    stage = ladder.steps[at]
    match command.verb:
        case "rollback":
            return f"it is {state} already" if now.state == "rolled_back" else None
        case "restart":
            return None
        case _ if now.state == "rolled_back":
            return f"it is {state}; restart it to begin at step 1"
        case _ if now.state == "done":
            return f"it is done: {ladder.candidate} answers everything; rollback or restart would change that"
        case "pause":
            return f"it is {state} already" if now.state == "paused" else None
        case "resume":
            return "it is not paused" if now.state == "running" else None
        case "approve":
            return _no_approval(ladder, now, stage, command)
        case "promote" if at + 1 == len(ladder.steps):
            return f"{ladder.candidate} answers everything already, in the last step; advance ends it"
        case "promote":
            lacking = [at for at in range(at, len(ladder.steps)) if _lacks(ladder.steps[at], now, at, command)]
            if lacking:
                return f"{step_words(ladder, lacking[0])} asks for approvals of its own, so no one person promotes"
        case "advance" if _lacks(stage, now, at, command):
            return f"{_needs(ladder, now, stage)}; approve it first"
    return None


def _lacks(stage: Stage, now: Standing, at: int, command: Command) -> bool:
    """Return whether a step still needs approvals of others, if the one who acts approves it by that."""
    if stage.approval is None:
        return False
    given = {one["who"] for one in now.detail.get("approvals", ())} if at == now.step else set[str]()
    able = not _unfit(stage, command)
    return len(given | ({command.who} if able else set())) < stage.approval.by


def _no_approval(ladder: Ladder, now: Standing, stage: Stage, command: Command) -> str | None:
    given = now.detail.get("approvals", ())
    if stage.approval is None:
        return f"{step_words(ladder, now.step)} asks for no approval"
    for one in given:
        if one["who"] == command.who:
            return f"{command.who} approved {step_words(ladder, now.step)} already, at {moment(one['at_ms'])}"
    if len(given) >= stage.approval.by:
        return f"{step_words(ladder, now.step)} has its {len(given)} approvals already"
    return _unfit(stage, command)


def _unfit(stage: Stage, command: Command) -> str | None:
    """Return why this approval does not count; None if it does."""
    approval = stage.approval
    if approval is None:
        return None
    if approval.ticket and not command.ticket:
        return "an approval of this step names a ticket, and this one has none"
    if not command.known and (approval.by > 1 or approval.not_author):
        return "this step needs to know who approves it, and the admin port asks nobody: it does with a token"
    if approval.not_author and command.author is None:
        return "it is not known who wrote the candidate's setting, and this step needs the approval of somebody else"
    if approval.not_author and command.author == command.who:
        return f"{command.who} wrote the candidate's setting, and this step needs the approval of somebody else"
    return None


def _needs(ladder: Ladder, now: Standing, stage: Stage) -> str:
    given, by = len(now.detail.get("approvals", ())), 0 if stage.approval is None else stage.approval.by
    return f"{step_words(ladder, now.step)} needs {by} approval{'s' if by != 1 else ''}, and has {given}"


def _outside(ladder: Ladder, now_ms: int) -> str:
    closed = calendar.closed_by(ladder.change_window, ladder.no_changes, now_ms)
    return "" if closed is None else f", although {closed}"
