"""Interleaving: every ranker answers, and units vote."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import pytest

from policies import CompetitivePairs, Interleave, TeamDraft
from policies.types import Decision, Evidence, Occasion, Path


def interleave(
    rankers: tuple[str, ...] = ("a", "b"), items: str = "/hits", item_id: str = "/id", length: int = 10
) -> Interleave:
    return Interleave(rankers=rankers, items=items, item_id=item_id, length=length)


def test_its_settings_are_the_plan() -> None:
    assert interleave().plan(Evidence()) == CompetitivePairs(("a", "b"), "/hits", "/id", 10)


@pytest.mark.parametrize(
    ("rankers", "method", "plan"),
    [
        (("a", "b"), "pairs", CompetitivePairs),
        (("a", "b"), "team_draft", TeamDraft),
        (("a", "b", "c"), None, TeamDraft),
        (("a", "b", "c"), "team_draft", TeamDraft),
    ],
)
def test_the_method_merges_and_two_rankers_make_pairs_without_one(
    rankers: tuple[str, ...], method: Literal["pairs", "team_draft"] | None, plan: type[TeamDraft]
) -> None:
    assert type(replace(interleave(rankers=rankers), method=method).plan(Evidence())) is plan


def test_every_ranker_answers_every_request() -> None:
    decision = interleave().plan(Evidence()).decide(Occasion("s", None, "r"))
    assert decision == Decision(("a", "b"), (), 1.0, "draft")


def test_the_first_ranker_is_the_baseline_and_units_vote() -> None:
    assert (interleave().baseline, interleave().by_unit, interleave().randomised) == ("a", True, False)


@pytest.mark.parametrize(
    ("policy", "path", "message"),
    [
        (interleave(rankers=()), ("rankers",), "needs at least two different rankers, got none"),
        (interleave(rankers=("a",)), ("rankers",), 'needs at least two different rankers, got "a"'),
        (interleave(rankers=("a", "b", "a")), ("rankers", 2), '"a" is named twice; name each of the rankers once'),
        (
            replace(interleave(rankers=("a", "b", "c")), method="pairs"),
            ("method",),
            '"pairs" merges two rankers, and there are 3; write "team_draft"',
        ),
        (interleave(length=0), ("length",), "must be at least 1, got 0"),
        (
            interleave(items="hits"),
            ("items",),
            '"hits" is no JSON Pointer: it must be empty or start with "/", as in "/hits"',
        ),
        (
            interleave(item_id="/a~2"),
            ("item_id",),
            '"/a~2" is no JSON Pointer: "~" must be followed by 0 (for "~") or 1 (for "/")',
        ),
        (
            interleave(item_id="/a~"),
            ("item_id",),
            '"/a~" is no JSON Pointer: "~" must be followed by 0 (for "~") or 1 (for "/")',
        ),
    ],
)
def test_a_wrong_setting_is_named(policy: Interleave, path: Path, message: str) -> None:
    (problem,) = policy.problems()
    assert (problem.path, problem.message) == (path, message)


@pytest.mark.parametrize("pointer", ["", "/", "/a/0/b", "/a~0b~1c", "/ü"])
def test_every_json_pointer_is_welcome(pointer: str) -> None:
    assert interleave(items=pointer, item_id=pointer).problems() == ()
