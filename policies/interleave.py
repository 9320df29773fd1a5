"""Rankers compete inside one merged list; clicks show whose items users prefer.

Rule: every ranker answers every request, and the order of the draft is drawn anew for each request.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from policies.plans import TeamDraft
from policies.settings import distinct_problems, pointer_problems
from policies.types import Evidence, Path, Plan, Policy, SettingProblem


@dataclass(frozen=True, slots=True, kw_only=True)
class Interleave(Policy):
    """Merge the lists of ``rankers`` by team draft into one of ``length`` items.

    ``items`` is the JSON Pointer to the list in an answer ("" when the answer is the list); ``item_id`` the pointer to
    the id inside an item ("" when the items are ids). Ask each ranker for at least twice ``length`` items: drafting,
    and with it credit, stops where a list runs out of items.

    >>> Interleave(rankers=("v1", "v2"), items="/hits", item_id="/id", length=10).plan(Evidence()).shares
    {'v1': 1.0, 'v2': 1.0}
    """

    kind: ClassVar[str] = "interleave"

    rankers: tuple[str, ...]
    items: str
    item_id: str = ""
    length: int

    def references(self) -> tuple[tuple[Path, str], ...]:
        return tuple((("rankers", index), name) for index, name in enumerate(self.rankers))

    def problems(self) -> tuple[SettingProblem, ...]:
        problems = [
            *distinct_problems(("rankers",), self.rankers, what="rankers"),
            *pointer_problems(("items",), self.items),
            *pointer_problems(("item_id",), self.item_id),
        ]
        if self.length < 1:
            problems.append(SettingProblem(("length",), f"must be at least 1, got {self.length}"))
        return tuple(problems)

    def plan(self, evidence: Evidence) -> Plan:
        return TeamDraft(self.rankers, self.items, self.item_id, self.length)
