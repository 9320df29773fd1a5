"""Several ranked answers → one, with attribution.

Rule: pure, and never worse than not merging: where answers cannot be merged, the first one that came passes unchanged,
and the result holds the reason, so that the caller can count it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Final, Literal, NamedTuple, get_args

import orjson

from policies.plans import Slot, TeamDraft
from policies.types import Occasion
from router.extract import MISSING, UNREADABLE, Pointer, identifier, pointer, text_of

#: Why answers could not be merged: a ranker's answer is not JSON, has nothing where ``items`` points, has no list
#: there, has an item without an id (text or a number) where ``item_id`` points, or nests too deep to be written again.
Reason = Literal["not_json", "no_list", "not_a_list", "no_item_id", "too_deep"]
REASONS: Final[tuple[Reason, ...]] = get_args(Reason)


class Placement(NamedTuple):
    """How one merged list treated a ranker and another; fair drafts have the mean 0 of each ``value`` in [−1, 1].

    ``measure``: "@first", whose item stood first in their first round (1 or −1); "@above", in how many more rounds the
    ranker's item stood above than below, divided by the most rounds that the list has room for; and of two rankers
    "@credited", whose items were more (1, 0 or −1).
    """

    ranker: str
    other: str
    measure: str
    value: float


FIRST: Final = "@first"
ABOVE: Final = "@above"
CREDITED: Final = "@credited"


@dataclass(frozen=True, slots=True)
class Merged:
    """The result of a merge.

    ``first`` is the ranker (index into the plan's) whose answer is the envelope: the first that answered. ``body`` is
    its answer with the merged list in place of its own, as JSON; None means that its answer passes as it is.
    ``items`` are, per ranker, the ids it is credited for in the order shown: None for a ranker that took no part,
    empty for one that did and got none. ``shown`` are the ids of the whole merged list, None where there is none.
    ``reason`` says why the answers could not be merged; None also when only one answer came, since there is nothing to
    merge.
    """

    first: int
    body: bytes | None
    items: tuple[tuple[str, ...] | None, ...]
    reason: Reason | None = None
    shown: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class _Ranking:
    items: Sequence[object]
    ids: tuple[str, ...]


def merge(plan: TeamDraft, occasion: Occasion, answers: Sequence[object]) -> Merged:
    """Merge the rankers' decoded answers, one per ranker of the plan and in its order.

    An answer is what ``extract.decode_json`` made of the body, or MISSING for a ranker that failed, which is left out;
    the others are drafted among themselves.

    Raises ValueError if there is not one answer per ranker, or none came.
    """
    if len(answers) != len(plan.rankers):
        raise ValueError(f"{len(plan.rankers)} rankers need as many answers, got {len(answers)}")
    came = [index for index, answer in enumerate(answers) if answer is not MISSING]
    if not came:
        raise ValueError("no ranker answered")
    uncredited: tuple[tuple[str, ...] | None, ...] = (None,) * len(answers)
    if len(came) == 1:
        return Merged(came[0], None, uncredited)
    items, item_id = pointer(plan.items), pointer(plan.item_id)
    rankings: list[_Ranking] = []
    for index in came:
        ranking = _ranking(answers[index], items, item_id)
        if isinstance(ranking, str):
            return Merged(came[0], None, uncredited, ranking)
        rankings.append(ranking)
    present = plan if len(came) == len(answers) else replace(plan, rankers=tuple(plan.rankers[i] for i in came))
    slots = present.draft([ranking.ids for ranking in rankings], occasion)
    content = [rankings[slot.source].items[slot.position] for slot in slots]
    shown = tuple(rankings[slot.source].ids[slot.position] for slot in slots)
    credited = dict(zip(came, _credits(slots, rankings), strict=True))
    try:
        body = orjson.dumps(items.replaced(answers[came[0]], content))
    except TypeError:  # orjson writes at most 254 levels, though it reads 1,024
        return Merged(came[0], None, uncredited, "too_deep")
    return Merged(came[0], body, tuple(credited.get(index) for index in range(len(answers))), None, shown)


def placements(items: Mapping[str, Sequence[str]], shown: Sequence[str]) -> Iterator[Placement]:
    """Yield how a merged list treated each two rankers, in the order of their names, given their credited items."""
    places = {item: place for place, item in enumerate(shown)}
    for one, other in combinations(sorted(items), 2):
        ours, theirs = items[one], items[other]
        above = [
            1 if places[mine] < places[its] else -1
            for mine, its in zip(ours, theirs, strict=False)
            if mine in places and its in places
        ]
        if above:
            yield Placement(one, other, FIRST, float(above[0]))
            # Not the mean over the rounds: drafts may end with a round because of how it was drawn.
            yield Placement(one, other, ABOVE, sum(above) / max(len(shown) // 2, len(above)))
        if len(items) == 2:
            yield Placement(one, other, CREDITED, float((len(ours) > len(theirs)) - (len(ours) < len(theirs))))


def _ranking(answer: object, items: Pointer, item_id: Pointer) -> _Ranking | Reason:
    if answer is UNREADABLE:
        return "not_json"
    found = items.find(answer)
    if found is MISSING:
        return "no_list"
    if not isinstance(found, list):
        return "not_a_list"
    ids = tuple(identifier(text) for item in found if (text := text_of(item_id.find(item))) is not None)
    return _Ranking(found, ids) if len(ids) == len(found) else "no_item_id"


def _credits(slots: Sequence[Slot], rankings: Sequence[_Ranking]) -> list[tuple[str, ...]]:
    return [
        tuple(rankings[slot.source].ids[slot.position] for slot in slots if slot.credit == ranker)
        for ranker in range(len(rankings))
    ]
