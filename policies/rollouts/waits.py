"""What a step of a rollout waits for, and until when.

Rule: a step is passed when there is nothing left here. The same list is what people are shown.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import inf
from typing import Final, Literal

from policies.rollouts import calendar
from policies.rollouts.ladder import Ladder, Stage, position
from policies.rollouts.standing import Findings, Standing
from policies.rollouts.words import lasting, moment, percent

Condition = Literal[
    "person", "approval", "hold", "units", "pairs", "agreement", "clean", "window",
    "no_data", "measuring_error", "baseline_failing", "faltering",
]  # fmt: skip

#: What evidence decides: a step that still waits for one of these at the end of ``at_most`` is inconclusive.
EVIDENCE: frozenset[Condition] = frozenset({"units", "pairs", "agreement", "clean"})

#: A step that the rollout was set back to, to see whose fault a failure is, lasts so long.
SET_BACK_MS: Final = 60_000

#: Data are missed after the grace, and after so many times as long as calls came apart: one in 20,000 such gaps is
#: chance where calls come at random.
_GAPS: Final = 10

#: What takes longer is not said: ten years.
_FORESEEN_MS: Final = 3_650 * 86_400_000


@dataclass(frozen=True, slots=True)
class Wait:
    """One thing that is waited for: a sentence, and until when (at today's traffic), where that can be said."""

    condition: Condition
    sentence: str
    until_ms: int | None = None


def waits_for(
    ladder: Ladder, standing: Standing, findings: Findings, now_ms: int, *, ahead: bool = True
) -> tuple[Wait, ...]:
    """Return what the present step still waits for; nothing where it is passed, or the rollout is over.

    Without ``ahead`` it is not said when the change window opens: looking that up takes up to some milliseconds.
    """
    if standing.state in ("rolled_back", "done") or not ladder.steps:
        return ()
    at = position(ladder.steps, standing)
    found = list(_said(standing))
    if standing.state == "paused":
        because = standing.detail.get("because", "it is paused")
        found.append(Wait("person", f"a person resumes, advances or rolls back: {because}"))
    held = held_ms(standing, now_ms)
    if standing.detail.get("set_back"):
        if held < SET_BACK_MS:
            words = f"it was set back to step {at + 1} to see whose fault a failure is, for {lasting(SET_BACK_MS)}"
            found.append(Wait("hold", words, now_ms + SET_BACK_MS - held))
    else:
        found += _conditions(ladder, at, standing, findings, now_ms)
    known = [wait.until_ms for wait in found if wait.until_ms is not None] if ahead else []
    after = max([now_ms, *known])
    closed = calendar.closed_by(ladder.change_window, ladder.no_changes, after)
    if closed is not None:
        opens = calendar.opens_ms(ladder.change_window, ladder.no_changes, after) if ahead else None
        found.append(Wait("window", closed + (f"; next {moment(opens)}" if opens is not None else ""), opens))
    return tuple(found)


def _conditions(ladder: Ladder, at: int, standing: Standing, findings: Findings, now_ms: int) -> Iterator[Wait]:
    """Yield what a step asks for by its settings."""
    stage, held = ladder.steps[at], held_ms(standing, now_ms)
    yield from _sample(ladder, stage, findings, held, now_ms)
    if held < stage.hold_ms:
        asked = " in whole days" if stage.hold_ms != (stage.hold or 0) else ""
        words = f"step {at + 1} lasts {lasting(stage.hold_ms)}{asked}, and has lasted {lasting(held)}"
        silent = _silent_ms(standing, now_ms)
        words += f" (without {lasting(silent)} of no data)" if silent else ""
        yield Wait("hold", words, now_ms + stage.hold_ms - held)
    yield from _judged(ladder, stage, standing, findings)
    if ladder.candidate in findings.faltering:
        words = f"{ladder.candidate} {findings.faltering[ladder.candidate]}: no step is passed meanwhile"
        yield Wait("faltering", words)
    approval, given = stage.approval, standing.detail.get("approvals", ())
    if approval is not None and len(given) < approval.by:
        count = f"{len(given)} of {approval.by} approvals" if approval.by > 1 else "a person's approval"
        by = f" (so far {', '.join(one['who'] for one in given)})" if given else ""
        yield Wait("approval", f"step {at + 1} needs {count if approval.by == 1 else f'{approval.by} approvals'}{by}")


def held_ms(standing: Standing, now_ms: int) -> int:
    """Return how long the present step has lasted, without what had no data."""
    return max(now_ms - standing.since_ms - _silent_ms(standing, now_ms), 0)


def silent_since(ladder: Ladder, standing: Standing, findings: Findings, now_ms: int) -> int | None:
    """Return since when the candidate has had no call, if that is longer than the grace; else None."""
    begun = standing.since_ms
    last = max(findings.last_ms.get(ladder.candidate, begun), begun)
    calls = findings.calls.get(ladder.candidate, 0)
    apart = (last - begun) / calls if calls else 0.0
    return last if now_ms - last > max(ladder.no_data_after, _GAPS * apart) else None


def _silent_ms(standing: Standing, now_ms: int) -> int:
    before: int = standing.detail.get("silent_ms", 0)
    since = standing.detail.get("silent_from_ms")
    return before + (max(now_ms - since, 0) if since is not None else 0)


def _said(standing: Standing) -> Iterator[Wait]:
    """Yield what keeps the step from being judged at all, as it was said."""
    said = standing.detail.get("said")
    if said is not None:
        yield Wait(said, standing.detail.get("said_why", said))


def _sample(ladder: Ladder, stage: Stage, findings: Findings, held: int, now_ms: int) -> Iterator[Wait]:
    """Yield the counts that are not reached."""
    for wanted, counts, condition, what in (
        (stage.units, findings.units, "units", "units"),
        (stage.pairs, findings.pairs, "pairs", "pairs of copy and answer"),
    ):
        count = counts.get(ladder.candidate, 0)
        if wanted is not None and count < wanted:
            takes = (wanted - count) * held / count if count and held else inf
            until = now_ms + round(takes) if takes < _FORESEEN_MS else None
            yield Wait(
                "units" if condition == "units" else "pairs", f"{count} of {wanted} {what} of {ladder.candidate}", until
            )


def _judged(ladder: Ladder, stage: Stage, standing: Standing, findings: Findings) -> Iterator[Wait]:
    """Yield what evidence has not shown."""
    if stage.agreement is not None:
        found = findings.agreement.get(ladder.candidate)
        if found is None or not found[1] >= stage.agreement:
            words = (
                "nothing compared yet" if found is None else f"{percent(found[0])}, surely {percent(found[1])} or more"
            )
            yield Wait("agreement", f"{percent(stage.agreement)} of copies agree with the answer: {words}")
    accepted = standing.detail.get("accepted", ())
    for metric in stage.clean:
        mine = [one for one in findings.guardrails if (one.variant, one.metric) == (ladder.candidate, metric)]
        if [ladder.candidate, metric] not in accepted and not (mine and all(one.state == "clean" for one in mine)):
            yield Wait("clean", f"{metric} of {ladder.candidate} is not shown to hold its guardrail yet")
