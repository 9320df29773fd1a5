"""The settings of a rollout: its steps, with the conditions of each, and what holds for all of them.

Rule: values and what is wrong with them; nothing here decides.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final, Literal

from policies.rollouts import calendar
from policies.rollouts.calendar import ChangeWindow
from policies.rollouts.keys import Count, Duration, Share, setting
from policies.rollouts.standing import START, Standing
from policies.rollouts.words import lasting, percent

DAY_MS: Final = 86_400_000

#: A sample that takes longer is said to be out of reach.
MOST_DAYS: Final = 90

#: From this share on a step takes whole days, so that each hour of the day counts alike.
WHOLE_DAYS_FROM: Final = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Approval:
    """Who has to approve a step."""

    by: Count = setting(1, "How many people.")
    not_author: bool = setting(False, "Whether who wrote the candidate's setting cannot approve it.")
    ticket: bool = setting(False, "Whether each approval names a ticket.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One step: the share that the candidate answers, or of which it gets copies, and when it is passed.

    It is passed when all its conditions hold. Exactly one of ``share`` and ``shadow`` is given.
    """

    share: Share | None = setting(None, "The share of units that the candidate answers.")
    shadow: Share | None = setting(
        None, "The share of requests that the candidate gets a copy of; the stable variant answers."
    )
    hold: Duration | None = setting(None, "How long the step lasts at least; time without data does not count.")
    at_most: Duration | None = setting(None, "When it pauses for a person, if what it waits for is still not decided.")
    whole_days: bool = setting(True, "Whether a step from a share of 0.25 on lasts whole days.")
    units: Count | None = setting(None, "How many units the candidate must have answered.")
    pairs: Count | None = setting(None, "How many copies must have been compared with the answer.")
    agreement: Share | None = setting(
        None, "The share of copies that must agree with the answer, shown by the interval."
    )
    clean: tuple[str, ...] = setting((), "Metrics of guardrails that must be shown to hold, not only not be broken.")
    approve: bool | Approval = setting(False, "Whether a person has to approve; or by = 2, not_author, ticket.")

    @property
    def approval(self) -> Approval | None:
        """Who has to approve, or None."""
        if isinstance(self.approve, Approval):
            return self.approve
        return Approval() if self.approve else None

    @property
    def hold_ms(self) -> int:
        """How long it lasts at least, with days that are begun counted whole where that is asked for."""
        hold = self.hold or 0
        if self.whole_days and (self.share or 0.0) >= WHOLE_DAYS_FROM:
            return -(-hold // DAY_MS) * DAY_MS
        return hold

    @property
    def key(self) -> list[Any]:
        """What kind of step this is: of two lists of steps those with the same key are the same step."""
        return ["share", self.share] if self.shadow is None else ["shadow", self.shadow]

    @property
    def conditions(self) -> tuple[str, ...]:
        """What it waits for, in words.

        >>> Stage(share=0.1, hold=3_600_000, units=200, approve=True).conditions
        ('1 hour', '200 units', 'approval')
        """
        approval = self.approval
        named = (
            (self.hold_ms, lasting(self.hold_ms)),
            (self.units, f"{self.units} units"),
            (self.pairs, f"{self.pairs} pairs"),
            (self.agreement, f"agreement of {percent(self.agreement or 0)}"),
            (self.clean, f"{', '.join(self.clean)} shown clean"),
            (approval, "approval" if approval is None or approval.by == 1 else f"{approval.by} approvals"),
        )
        return tuple(words for asked, words in named if asked)

    def __str__(self) -> str:
        return f"{self.share or 0:.4g}" if self.shadow is None else f"shadow {self.shadow:.4g}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ladder:
    """What a rollout is made of; ``policies.rollouts.rollout`` makes a policy of it."""

    stable: str = field(metadata={"description": "The variant that answers now, and again after a rollback."})
    candidate: str = field(metadata={"description": "The variant that takes its traffic over."})
    steps: tuple[Stage, ...] = field(metadata={"description": "The steps, in order; the last has share = 1.0."})
    on_failure: Literal["rollback", "pause"] = setting(
        "rollback",
        "What a broken guardrail without an action of its own does: all to stable again, or wait for a person.",
    )
    change_window: ChangeWindow | None = setting(None, "When steps may be passed; without it, always.")
    no_changes: tuple[str, ...] = setting((), "Days in which no step is passed, as in 2026-12-20/2027-01-03.")
    no_data_after: Duration = setting(600000, "After how long without a call the step stands still.")
    sticky: bool = setting(True, "Whether a unit keeps its variant; else each request is drawn anew.")


def position(steps: tuple[Stage, ...], standing: Standing) -> int:
    """Return the step at which a standing is in this list of steps, which may have been edited since.

    It is the step that was in force, wherever that is now. If it was edited, it is the one in its place; if steps were
    added or removed as well, it is the last one that gives the candidate no more than it has: an edit elsewhere in
    the list is no reason to go ahead.
    """
    if standing == START or not steps:
        return 0
    at, before = min(standing.step, len(steps) - 1), standing.detail.get("stage")
    if before is None or steps[at].key == before:
        return at
    same = [index for index, stage in enumerate(steps) if stage.key == before]
    if same:
        return min(same, key=lambda index: abs(index - standing.step))
    if standing.detail.get("steps") == len(steps):
        return at
    had = before[1] if before[0] == "share" else 0.0
    return max((index for index, stage in enumerate(steps) if (stage.share or 0.0) <= had), default=0)


def mistakes(ladder: Ladder) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Yield everything wrong with a rollout's settings on their own: the path of each, and words that follow it."""
    if ladder.stable == ladder.candidate:
        yield ("candidate",), f'must differ from stable, got "{ladder.candidate}" for both; name the new variant'
    if not ladder.steps:
        yield ("steps",), "has no step; write at least one, as in [{ share = 1.0 }]"
    for index, stage in enumerate(ladder.steps):
        for path, words in _stage_mistakes(stage, last=index == len(ladder.steps) - 1):
            yield ("steps", index, *path), words
    given = [(index, stage.share) for index, stage in enumerate(ladder.steps) if stage.share is not None]
    for (before, less), (index, more) in pairwise(given):
        if 0 < more <= less:
            yield (
                ("steps", index, "share"),
                f"must be more than that of step {before + 1}, {less:g}, got {more:g}: a rollout sends no unit back",
            )
    shared = given[0][0] if given else len(ladder.steps)
    for index, stage in enumerate(ladder.steps):
        if stage.shadow is not None and index > shared:
            yield ("steps", index, "shadow"), f"comes after step {shared + 1}, in which the candidate answers already"
    yield from _calendar_mistakes(ladder)


def _stage_mistakes(stage: Stage, *, last: bool) -> Iterator[tuple[tuple[str, ...], str]]:
    if (stage.share is None) == (stage.shadow is None):
        yield (), "needs share, which the candidate answers, or shadow, of which it gets copies: one of them"
        return
    name, share = ("share", stage.share) if stage.shadow is None else ("shadow", stage.shadow)
    if share is None or not 0 < share <= 1:
        yield (name,), f"must be more than 0, and at most 1, got {share}"
    elif last and (name, share) != ("share", 1.0):
        yield (name,), "is that of the last step, which must be share = 1.0: done means that all get the candidate"
    wrong = ("units", "clean") if stage.shadow is not None else ("pairs", "agreement")
    for key in wrong:
        if getattr(stage, key):
            counted = "copies, which are counted in pairs" if stage.shadow is not None else "no copies to compare"
            yield (key,), f"has no meaning here: a step with {name} has {counted}"
    if stage.agreement is not None and not 0 < stage.agreement <= 1:
        yield ("agreement",), f"must be more than 0, and at most 1, got {stage.agreement}"
    if stage.at_most is not None and stage.at_most <= stage.hold_ms:
        yield ("at_most",), "must be longer than the step lasts at least (hold, in whole days from a share of 0.25 on)"
    waits = (stage.hold, stage.units, stage.pairs, stage.agreement, stage.clean, stage.approval)
    if not last and not any(waits):
        yield (), "has no condition, so it is passed at once; write hold, units, pairs, agreement, clean or approve"


def _calendar_mistakes(ladder: Ladder) -> Iterator[tuple[tuple[str | int, ...], str]]:
    window = ladder.change_window
    checks: list[tuple[tuple[str | int, ...], Callable[[str], object], str]] = []
    if window is not None:
        checks += [
            (("change_window", "days"), calendar.days_of, window.days),
            (("change_window", "hours"), calendar.hours_of, window.hours),
            (("change_window", "zone"), calendar.zone_of, window.zone),
        ]
    checks += [(("no_changes", index), calendar.stretch_of, text) for index, text in enumerate(ladder.no_changes)]
    for path, check, text in checks:
        try:
            check(text)
        except ValueError as error:
            yield path, str(error)


def days_to_reach(ladder: Ladder, units: float, requests: float) -> Mapping[int, float]:
    """Return for each step that asks for units or pairs how many days it takes, at so many of the route's a day."""
    found = {}
    for index, stage in enumerate(ladder.steps):
        wanted, share, per_day = stage.units, stage.share, units
        if stage.shadow is not None:
            wanted, share, per_day = stage.pairs, stage.shadow, requests
        if wanted and share:
            found[index] = wanted / (per_day * share) if per_day > 0 else float("inf")
    return found


def unreachable(ladder: Ladder, units: float, requests: float) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Yield what a step asks for that does not come before ``at_most``, or within months, at so many a day."""
    for index, days in days_to_reach(ladder, units, requests).items():
        stage = ladder.steps[index]
        if days <= (MOST_DAYS if stage.at_most is None else stage.at_most / DAY_MS):
            continue
        key, wanted, of = "units", stage.units, f"{percent(stage.share or 0)} of {units:,.0f} units"
        if stage.shadow is not None:
            key, wanted, of = "pairs", stage.pairs, f"{percent(stage.shadow)} of {requests:,.0f} requests"
        takes = f"{days:,.0f} days" if days < float("inf") else "for ever"
        limit = "" if stage.at_most is None else f", and at_most is {lasting(stage.at_most)}"
        yield ("steps", index, key), f"asks for {wanted:,} {key}, which take {takes} at {of} a day{limit}"
