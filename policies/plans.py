"""The plans that workers run.

Rule: imports the standard library and ``chance`` only. Plans are immutable, and encoded as plain JSON values so that
they can be stored, published and replayed. A policy makes one of these plans; a new policy rarely needs a new one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import fsum
from typing import Any, Final, TypeVar

from policies.chance import chance, pick
from policies.decision import Decision, Occasion
from policies.types import Plan

T = TypeVar("T")

#: How far the sum of a decoded plan's shares may be from 1: the rounding of decimal shares added in binary, no more.
SUM_TOLERANCE = 1e-6


@dataclass(frozen=True, slots=True)
class Mirror:
    """A variant that gets a copy of a share of the requests."""

    variant: str
    share: float

    def takes(self, occasion: Occasion) -> bool:
        """Return whether this request is copied."""
        return is_copied(self.variant, self.share, occasion)


def is_copied(variant: str, share: float, occasion: Occasion) -> bool:
    """Return whether a mirror copies this request: by unit when there is one, so the same units are always copied."""
    key = occasion.request_id if occasion.unit is None else occasion.unit
    return share >= 1 or chance(occasion.salt, key, f"mirror/{variant}") < share


@dataclass(frozen=True, slots=True)
class Weighted:
    """One variant answers, chosen by weight; mirrors get copies.

    ``weights`` are (variant, share) with shares in [0, 1] that sum to 1. With ``sticky`` the unit is hashed, so it
    keeps its variant while the shares stay; else the request id is hashed, so each request is drawn anew.
    """

    weights: tuple[tuple[str, float], ...]
    sticky: bool = True
    mirrors: tuple[Mirror, ...] = ()

    @property
    def shares(self) -> Mapping[str, float]:
        return dict(self.weights)

    def decide(self, occasion: Occasion) -> Decision:
        by_unit = self.sticky and occasion.unit is not None
        if len(self.weights) == 1:
            variant, share, reason = self.weights[0][0], 1.0, "only"
        else:
            key = occasion.unit if by_unit and occasion.unit is not None else occasion.request_id
            variant, share = pick(occasion.salt, key, self.weights)
            reason = "unit" if by_unit else "request"
        if not self.mirrors:
            return Decision((variant,), (), share, reason)
        mirrored = tuple(m.variant for m in self.mirrors if m.variant != variant and m.takes(occasion))
        return Decision((variant,), mirrored, share, reason)


@dataclass(frozen=True, slots=True)
class Slot:
    """One place of a merged list: where the item came from, and which ranker gets the credit for it, if any.

    ``source`` is the ranker (index into the plan's rankers) whose answer holds the item and ``position`` its place
    there; ``credit`` is that index again when the item was drafted, None when it belongs to no ranker. A ranker's
    n-th credited item competes with the n-th of each other: they were placed in one round, in an order drawn at random.
    """

    source: int
    position: int
    credit: int | None


@dataclass(frozen=True, slots=True)
class TeamDraft:
    """Every ranker answers and their lists are merged by team draft, in an order drawn anew for each request.

    ``items`` is the JSON Pointer to the list in an answer, ``item_id`` the pointer inside an item ("" when the items
    are ids), ``length`` the length of the merged list.

    Source: Radlinski, Kurup & Joachims, CIKM 2008; for more than two rankers Schuth et al., CIKM 2014.
    """

    rankers: tuple[str, ...]
    items: str
    item_id: str
    length: int

    @property
    def shares(self) -> Mapping[str, float]:
        return dict.fromkeys(self.rankers, 1.0)

    def decide(self, occasion: Occasion) -> Decision:
        return Decision(self.rankers, (), 1.0, "draft")

    def draft(self, lists: Sequence[Sequence[str]], occasion: Occasion) -> tuple[Slot, ...]:
        """Merge ranked lists of item ids, one per ranker and in the rankers' order, into at most ``length`` slots.

        Two rankers are compared by the rounds in which both took part (``Slot``), so a ranker that runs out of items
        leaves the draft and the others go on. When fewer than two are left, the list is filled without credit. A
        repeated id within one list counts where it stands first.

        Raises ValueError if there is not one list per ranker.
        """
        if len(lists) != len(self.rankers):
            raise ValueError(f"a draft of {len(self.rankers)} rankers needs as many lists, got {len(lists)}")
        return self._merge(lists, lambda turn: self._order(occasion, turn))

    def _merge(self, lists: Sequence[Sequence[str]], order: Callable[[int], Sequence[int]]) -> tuple[Slot, ...]:
        return team_draft(lists, self.length, order)

    def _order(self, occasion: Occasion, turn: int) -> list[int]:
        """Return a random permutation of the rankers, independent between requests and between turns."""
        coins = [chance(occasion.salt, occasion.request_id, f"draft/{turn}/{name}") for name in self.rankers]
        return sorted(range(len(coins)), key=coins.__getitem__)


@dataclass(frozen=True, slots=True)
class CompetitivePairs(TeamDraft):
    """Two rankers' lists are merged by competitive pairs: an item that both would place next belongs to neither.

    Source: Zhang et al., KDD 2025, arXiv:2508.00751.
    """

    def _merge(self, lists: Sequence[Sequence[str]], order: Callable[[int], Sequence[int]]) -> tuple[Slot, ...]:
        return competitive_pairs(lists, self.length, order(0))


class _Merging:
    """A list that is being merged: the slots so far, and per ranker the ids that are not shown yet."""

    def __init__(self, lists: Sequence[Sequence[str]], length: int) -> None:
        self.length: Final = length
        self.slots: Final[list[Slot]] = []
        # Each id with its first position, in the order of the list.
        self.unused: Final[list[dict[str, int]]] = []
        for items in lists:
            positions: dict[str, int] = {}
            for position, item in enumerate(items):
                positions.setdefault(item, position)
            self.unused.append(positions)

    @property
    def room(self) -> int:
        return self.length - len(self.slots)

    def head(self, ranker: int) -> str:
        return next(iter(self.unused[ranker]))

    def take(self, ranker: int, credit: int | None) -> None:
        """Show a ranker's next item."""
        item = self.head(ranker)
        self.slots.append(Slot(ranker, self.unused[ranker][item], credit))
        for items in self.unused:
            items.pop(item, None)

    def filled(self, order: Sequence[int]) -> tuple[Slot, ...]:
        """Return the list, filled from all rankers in turn without credit."""
        while self.room > 0 and any(self.unused):
            for ranker in order:
                if self.unused[ranker] and self.room > 0:
                    self.take(ranker, None)
        return tuple(self.slots)


def team_draft(lists: Sequence[Sequence[str]], length: int, order: Callable[[int], Sequence[int]]) -> tuple[Slot, ...]:
    """Merge by team draft, where ``order(turn)`` is the permutation of the rankers for that turn.

    Turns 0, 1, … are the drafted rounds; the turn after them orders the filling. A ranker takes part in rounds for as
    long as it has as many unused items as the round may use up, so that its turn never depends on the order. When the
    permutations are uniform and independent, in each round each place is as likely to be one ranker's as another's.
    """
    merging = _Merging(lists, length)
    unused = merging.unused
    drafting = list(range(len(lists)))
    turn = 0
    while merging.room > 0 and len(drafting) > 1:
        shortest = min(reversed(drafting), key=lambda ranker: len(unused[ranker]))
        if len(unused[shortest]) < min(len(drafting), merging.room):
            drafting.remove(shortest)
            continue
        for ranker in [one for one in order(turn) if one in drafting][: merging.room]:
            merging.take(ranker, ranker)
        turn += 1
    return merging.filled(order(turn))


def competitive_pairs(lists: Sequence[Sequence[str]], length: int, order: Sequence[int]) -> tuple[Slot, ...]:
    """Merge two lists by competitive pairs, where ``order`` is a uniform permutation of the two rankers.

    As long as both have unused items: when their next ones differ, they are a pair, placed in this order; when they are
    one item, it is shown and belongs to neither. So does the last item, where half a pair has room, and what fills the
    list after one ranker ran out.

    >>> [slot.credit for slot in competitive_pairs(["abcde", "bcafg"], 6, (0, 1))]
    [0, 1, None, 0, 1, None]
    """
    merging = _Merging(lists, length)
    while merging.room > 0 and all(merging.unused):
        if merging.room < 2 or merging.head(0) == merging.head(1):
            merging.take(order[0], None)
            continue
        for ranker in order:
            merging.take(ranker, ranker)
    return merging.filled(order)


def held(plan: Plan, holds: Mapping[str, str], baseline: str, floor: float) -> Plan:
    """Return a plan without the variants that are held "out", and with no more than ``floor`` for those at "floor".

    The others keep their proportions; no unit of theirs moves from one to another. Where they had nothing, the
    baseline gets the rest, or the first that is not held. A ranker that is left alone answers alone. Where every
    variant is out, the plan stays as it is: one has to answer.

    >>> held(Weighted((("v1", 0.5), ("v2", 0.25), ("v3", 0.25))), {"v3": "out"}, "v1", 0.01).shares
    {'v1': 0.6666666666666666, 'v2': 0.3333333333333333, 'v3': 0.0}
    """
    out = {name for name, how in holds.items() if how == "out"}
    if isinstance(plan, TeamDraft):
        left = tuple(name for name in plan.rankers if name not in out)
        if not left or left == plan.rankers:
            return plan
        if len(left) == 1:
            return Weighted(((left[0], 1.0),), sticky=False)
        return TeamDraft(left, plan.items, plan.item_id, plan.length)
    if not isinstance(plan, Weighted):
        return plan
    mirrors = tuple(mirror for mirror in plan.mirrors if mirror.variant not in out)
    fixed = {name: 0.0 if name in out else min(share, floor) for name, share in plan.weights if name in holds}
    free = [name for name, _ in plan.weights if name not in fixed]
    if not free:
        return Weighted(plan.weights, plan.sticky, mirrors)
    rest, left_over = fsum(share for name, share in plan.weights if name in free), 1 - fsum(fixed.values())
    heir = baseline if baseline in free else free[0]
    weights = tuple(
        (
            name,
            fixed[name] if name in fixed else share / rest * left_over if rest > 0 else float(name == heir) * left_over,
        )
        for name, share in plan.weights
    )
    return Weighted(weights, plan.sticky, mirrors)


def encode_plan(plan: Plan) -> dict[str, Any]:
    """Return the plan as plain JSON values; ``decode_plan`` is the inverse.

    Raises TypeError if it is not a plan of this module: workers could not run it.

    >>> encode_plan(Weighted((("v1", 0.75), ("v2", 0.25))))
    {'plan': 'weighted', 'weights': [['v1', 0.75], ['v2', 0.25]], 'sticky': True, 'mirrors': []}
    """
    if isinstance(plan, Weighted):
        return {
            "plan": "weighted",
            "weights": [[name, share] for name, share in plan.weights],
            "sticky": plan.sticky,
            "mirrors": [[mirror.variant, mirror.share] for mirror in plan.mirrors],
        }
    if isinstance(plan, TeamDraft):
        return {
            "plan": "competitive_pairs" if isinstance(plan, CompetitivePairs) else "team_draft",
            "rankers": list(plan.rankers),
            "items": plan.items,
            "item_id": plan.item_id,
            "length": plan.length,
        }
    raise TypeError(f"a plan must be Weighted or TeamDraft, got {type(plan).__name__}")


def decode_plan(value: Mapping[str, Any]) -> Plan:
    """Return the plan that ``encode_plan`` wrote. Raises ValueError naming what is wrong.

    It checks everything: a plan that decodes can be run, so no request fails because of a damaged snapshot.
    """
    kind = _field(value, "plan", str)
    if kind == "weighted":
        weights = tuple(_share(pair, "weights") for pair in _field(value, "weights", list))
        total = fsum(share for _, share in weights)
        _require(abs(total - 1) <= SUM_TOLERANCE, "weights", "shares that sum to 1", total)
        _require_distinct([name for name, _ in weights], "weights")
        mirrors = tuple(Mirror(*_share(pair, "mirrors")) for pair in _field(value, "mirrors", list))
        return Weighted(weights, _field(value, "sticky", bool), mirrors)
    if kind in ("team_draft", "competitive_pairs"):
        rankers = tuple(_field(value, "rankers", list))
        _require(len(rankers) > 0 and all(isinstance(name, str) for name in rankers), "rankers", "names", rankers)
        _require_distinct(rankers, "rankers")
        length = _field(value, "length", int)
        _require(length >= 1, "length", "at least 1", length)
        drafted = TeamDraft(rankers, _field(value, "items", str), _field(value, "item_id", str), length)
        if kind == "team_draft":
            return drafted
        _require(len(rankers) == 2, "rankers", "two names", rankers)
        return CompetitivePairs(rankers, drafted.items, drafted.item_id, length)
    raise ValueError(f'plan: expected "weighted", "team_draft" or "competitive_pairs", got {kind!r}')


def _field(value: Mapping[str, Any], name: str, kind: type[T]) -> T:
    content = value.get(name) if isinstance(value, Mapping) else None
    # To Python a bool is an int; in a plan it is not.
    if not isinstance(content, kind) or (isinstance(content, bool) and kind is not bool):
        raise ValueError(f"plan: {name}: expected {kind.__name__}, got {content!r}")
    return content


def _share(pair: Any, name: str) -> tuple[str, float]:
    match pair:
        case [str(variant), int() | float() as share] if 0 <= share <= 1 and not isinstance(share, bool):
            return variant, float(share)
    raise ValueError(f"plan: {name}: expected [variant, share in [0, 1]], got {pair!r}")


def _require(fact: bool, name: str, expected: str, got: object) -> None:
    if not fact:
        raise ValueError(f"plan: {name}: expected {expected}, got {got!r}")


def _require_distinct(names: Sequence[str], name: str) -> None:
    _require(len(set(names)) == len(names), name, "each variant once", list(names))
