"""How a rollout moves by itself: passed, failed, inconclusive, no data and measuring error are five different things.

Rule: guardrails are judged first and always, whatever the step waits for. Passed goes on, inside the change window.
Failed rolls back or pauses. Inconclusive at the end of ``at_most`` pauses for a person. No data and a measuring error
neither pass nor fail: they are said, they hold the step, and it goes on by itself when they are over.
"""

from __future__ import annotations

from typing import Any, Final

from policies.rollouts.harm import Harm, harms, no_way_back, warn
from policies.rollouts.history import Cause, Changes
from policies.rollouts.ladder import Ladder, Stage, position
from policies.rollouts.standing import Command, Findings, Moved, Standing
from policies.rollouts.waits import EVIDENCE, held_ms, silent_since, waits_for
from policies.rollouts.words import lasting, percent

#: What was said of a failing baseline or a measuring error is taken back no sooner than this, so that it does not come
#: and go.
QUIET_MS: Final = 60_000

#: What a step keeps of the one before it: all else that was remembered is over with it.
_OF_THE_RUN: Final = ("began_ms", "accepted", "warned")


def advance(ladder: Ladder, kind: str, standing: Standing, findings: Findings, now_ms: int) -> Moved | None:
    """Return what an edit, the guardrails and the conditions of the present step change."""
    changes = Changes(standing, kind, findings, now_ms)
    if not ladder.steps:
        return None
    edited(ladder, kind, changes)
    if changes.events or changes.standing.state in ("rolled_back", "done"):
        return changes.moved()  # after an edit, what is known is about what was before it
    _say(ladder, changes)
    if not _harmed(ladder, changes) and changes.standing.state == "running" and not _set_back(ladder, changes):
        _judge(ladder, changes)
    return changes.moved()


def edited(ladder: Ladder, kind: str, changes: Changes) -> None:
    """Take over what an edit changed: another candidate begins at step 1; the present step goes on as it is now."""
    now, versions = changes.standing, changes.findings.versions
    names = (ladder.stable, ladder.candidate)
    of = {name: versions[name] if name in versions else now.of.get(name, "") for name in names}
    candidate = ladder.candidate
    if now.number == 0 or now.policy != kind:
        begin(ladder, changes, "started", f"the rollout of {candidate} begins{_at(ladder, 0)}", "edit", of=of)
    elif candidate not in now.of:
        begin(
            ladder,
            changes,
            "started",
            f"the candidate is {candidate} now: its rollout begins{_at(ladder, 0)}",
            "edit",
            of=of,
        )
    elif of[candidate] != now.of[candidate]:
        was = f'{candidate} has version "{of[candidate]}" now, and had "{now.of[candidate]}"'
        begin(ladder, changes, "started", f"{was}: its rollout begins{_at(ladder, 0)}", "edit", of=of)
    elif of != now.of:
        _another_stable(ladder, changes, of)
    elif now.state in ("running", "paused"):
        at = position(ladder.steps, now)
        stage, count = ladder.steps[at], len(ladder.steps)
        detail = changes.note(stage=stage.key, steps=count)
        if (at, detail) != (now.step, now.detail):
            why = f"the file changed the steps: it goes on{_at(ladder, at)}, with what has run"
            changes.make("edited", why, "edit", variant=candidate, step=at, detail=detail)


def begin(
    ladder: Ladder, changes: Changes, kind: str, why: str, cause: Cause, *, by: Command | None = None, **after: Any
) -> None:
    """Begin at step 1, with nothing of what was before."""
    detail = _detail(ladder, 0, began_ms=changes.now_ms)
    after = {"state": "running", "step": 0, "since_ms": changes.now_ms, "held": {}, "detail": detail} | after
    changes.make(kind, why, cause, variant=ladder.candidate, by=by, **after)


def enter(
    ladder: Ladder,
    changes: Changes,
    at: int,
    kind: str,
    why: str,
    cause: Cause,
    *,
    by: Command | None = None,
    **more: Any,
) -> None:
    """Begin a step; beyond the last one the rollout is done."""
    kept = {name: changes.standing.detail[name] for name in _OF_THE_RUN if name in changes.standing.detail}
    over = at >= len(ladder.steps)
    at = min(at, len(ladder.steps) - 1)
    changes.make(
        kind,
        why,
        cause,
        variant=ladder.candidate,
        by=by,
        state="done" if over else "running",
        step=at,
        since_ms=changes.now_ms,
        detail=_detail(ladder, at, **(kept | more)),
    )


def roll_back(
    ladder: Ladder, changes: Changes, why: str, cause: Cause, *, by: Command | None = None, **more: Any
) -> None:
    """Give everything to the stable variant."""
    kept = {
        name: changes.standing.detail[name]
        for name in ("began_ms", "stage", "steps")
        if name in changes.standing.detail
    }
    detail = kept | {"because": why} | more
    changes.make(
        "rolled_back",
        why,
        cause,
        variant=ladder.candidate,
        by=by,
        state="rolled_back",
        since_ms=changes.now_ms,
        detail=detail,
    )


def step_words(ladder: Ladder, at: int) -> str:
    """Return a step in words.

    >>> step_words(Ladder(stable="v1", candidate="v2", steps=(Stage(share=0.1, hold=1), Stage(share=1.0))), 0)
    'step 1 of 2 (v2 answers 10 %)'
    """
    stage = ladder.steps[at]
    gets = f"answers {percent(stage.share or 0)}" if stage.shadow is None else f"gets copies of {percent(stage.shadow)}"
    return f"step {at + 1} of {len(ladder.steps)} ({ladder.candidate} {gets})"


def _at(ladder: Ladder, at: int) -> str:
    return f" at {step_words(ladder, at)}"


def _detail(ladder: Ladder, at: int, **more: Any) -> dict[str, Any]:
    return {"stage": ladder.steps[at].key, "steps": len(ladder.steps)} | more


def _another_stable(ladder: Ladder, changes: Changes, of: dict[str, str]) -> None:
    """Begin the present step again, at its share: what was compared with is another, and no unit is sent back."""
    now = changes.standing
    why = f"the stable variant is {ladder.stable} {of[ladder.stable]} now"
    if now.state in ("rolled_back", "done"):
        changes.make("baseline_changed", why, "edit", variant=ladder.stable, of=of)
        return
    at = position(ladder.steps, now)
    kept = {name: now.detail[name] for name in ("by_hand", "because") if name in now.detail}
    detail = _detail(ladder, at, began_ms=changes.now_ms, **kept)
    why = f"{why}: {step_words(ladder, at)} begins again, as what it is compared with is another"
    changes.make(
        "baseline_changed", why, "edit", variant=ladder.stable, of=of, step=at, since_ms=changes.now_ms, detail=detail
    )


def _say(ladder: Ladder, changes: Changes) -> None:
    """Say what keeps the step from being judged, and when that is over."""
    now, findings, now_ms = changes.standing, changes.findings, changes.now_ms
    said, why = None, ""
    silent = silent_since(ladder, now, findings, now_ms)
    failing = no_way_back(findings, _harms(ladder, now, findings))
    if failing is not None:
        said, why = (
            "baseline_failing",
            f"the stable variant itself fails, so there is no going back to it: {ladder.stable} {failing}",
        )
    elif findings.errors:
        said, why = "measuring_error", f"the step is held while it cannot be measured: {'; '.join(findings.errors)}"
    elif silent is not None:
        lasted = lasting(now_ms - silent)
        said, why = "no_data", f"{ladder.candidate} has had no data for {lasted}: the step neither passes nor fails"
    before = now.detail.get("said")
    if said == before or (said is None and before != "no_data" and now_ms - now.detail.get("said_ms", 0) < QUIET_MS):
        return
    more: dict[str, Any] = {"said": said, "said_why": why or None, "said_ms": now_ms if said else None}
    if before == "no_data":
        last = max(findings.last_ms.get(ladder.candidate, 0), now.since_ms)
        since = now.detail["silent_from_ms"]
        until = last if silent is None else now_ms
        more |= {"silent_from_ms": None, "silent_ms": now.detail.get("silent_ms", 0) + max(until - since, 0)}
    if said == "no_data":
        more["silent_from_ms"] = silent
    if said is None:
        kind, why = {
            "no_data": ("data_again", f"{ladder.candidate} has data again"),
            "measuring_error": ("measured_again", "it can be measured again"),
        }.get(str(before), ("baseline_recovered", f"the stable variant {ladder.stable} does not fail any more"))
        changes.make(
            kind, f"{why}: the step goes on", "evidence", variant=ladder.candidate, detail=changes.note(**more)
        )
    else:
        changes.make(said, why, "evidence", variant=ladder.candidate, detail=changes.note(**more))


def _harmed(ladder: Ladder, changes: Changes) -> bool:
    """Do what the file says about harm; return whether the step cannot be passed because of it."""
    found = _harms(ladder, changes.standing, changes.findings)
    for harm in found:
        if harm.action == "warn":
            warn(changes, harm)
    acting = [harm for harm in found if harm.action != "warn"]
    back = [harm for harm in acting if harm.action == "rollback"]
    if back and no_way_back(changes.findings, back) is None:
        harm = next(one for one in back if one.shared is None)
        why = f"rolled back to {ladder.stable}: {ladder.candidate} {harm.why}"
        roll_back(ladder, changes, why, "evidence", metric=harm.metric)
    elif acting and not back and changes.standing.state == "running":
        _pause(ladder, changes, "paused", f"{ladder.candidate} {acting[0].why}", metric=acting[0].metric)
    return bool(acting)


def _harms(ladder: Ladder, standing: Standing, findings: Findings) -> list[Harm]:
    """Return what speaks against the candidate; "floor" is for bandits, and is here what ``on_failure`` says."""
    found = harms(findings, (ladder.candidate,), ladder.stable, standing, ladder.on_failure)
    disagreeing = _disagreement(ladder, standing, findings)
    if disagreeing is not None:
        found.append(Harm(ladder.on_failure, ladder.candidate, "agreement", disagreeing))
    return [harm._replace(action=ladder.on_failure) if harm.action == "floor" else harm for harm in found]


def _set_back(ladder: Ladder, changes: Changes) -> bool:
    """Go one step back where all get the candidate and it fails: only beside the stable variant it shows whose fault it
    is. If it is the candidate's it is rolled back from there within seconds; in an outage of both it goes on by itself.
    """
    why = changes.findings.alone.get(ladder.candidate)
    at = changes.standing.step
    if why is None or ladder.steps[at].share != 1:
        return False
    why = f"{ladder.candidate} {why}"
    if at == 0 and ladder.on_failure == "pause":
        _pause(ladder, changes, "paused", why)
    elif at == 0:
        roll_back(ladder, changes, f"rolled back to {ladder.stable}: {why}", "evidence")
    else:
        words = f"set back to {step_words(ladder, at - 1)}, to see whether {ladder.stable} fails as well: {why}"
        enter(ladder, changes, at - 1, "set_back", words, "evidence", set_back=True)
    return True


def _disagreement(ladder: Ladder, standing: Standing, findings: Findings) -> str | None:
    """Return that copies are shown to agree too seldom, in words that follow the candidate's name."""
    stage = ladder.steps[position(ladder.steps, standing)]
    found = findings.agreement.get(ladder.candidate)
    if (
        stage.agreement is None
        or found is None
        or [ladder.candidate, "agreement"] in standing.detail.get("accepted", ())
    ):
        return None
    if findings.pairs.get(ladder.candidate, 0) < (stage.pairs or 0) or not found[2] < stage.agreement:
        return None
    return f"agrees with the answer in {percent(found[0])}, surely less than {percent(stage.agreement)}"


def _judge(ladder: Ladder, changes: Changes) -> None:
    """Pass the step, or find that it is inconclusive, or leave it."""
    now, now_ms = changes.standing, changes.now_ms
    waits = waits_for(ladder, now, changes.findings, now_ms, ahead=False)
    stage, step = ladder.steps[now.step], step_words(ladder, now.step)
    held = held_ms(now, now_ms)
    if not waits:
        why = f"{step} passed after {lasting(held)}{_shown(ladder, stage, changes.findings)}"
        if now.step + 1 < len(ladder.steps):
            enter(
                ladder,
                changes,
                now.step + 1,
                "step_passed",
                f"{why}; next {step_words(ladder, now.step + 1)}",
                "evidence",
            )
        else:
            enter(ladder, changes, now.step + 1, "done", f"{why}: {ladder.candidate} answers everything", "evidence")
        return
    open_ones = [wait.sentence for wait in waits if wait.condition in EVIDENCE]
    blocked = now.detail.get("said") is not None
    if (
        stage.at_most is not None
        and open_ones
        and not blocked
        and held - now.detail.get("limit_from", 0) > stage.at_most
    ):
        why = f"{step} is not decided after {lasting(held)}: {'; '.join(open_ones)}"
        _pause(ladder, changes, "inconclusive", why)


def _pause(ladder: Ladder, changes: Changes, kind: str, why: str, **more: Any) -> None:
    detail = changes.note(because=why, **more)
    changes.make(kind, why, "evidence", variant=ladder.candidate, state="paused", detail=detail)


def _shown(ladder: Ladder, stage: Stage, findings: Findings) -> str:
    """Return the counts that a step was passed with."""
    words = ""
    if stage.units is not None:
        words += f", {findings.units.get(ladder.candidate, 0)} units"
    if stage.pairs is not None:
        words += f", {findings.pairs.get(ladder.candidate, 0)} pairs"
    if stage.clean:
        words += f", {', '.join(stage.clean)} shown clean"
    return words
