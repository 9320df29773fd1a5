"""Rankers compete inside one merged list; clicks show whose items users prefer.

Rule: every ranker answers every request, and the order of the draft is drawn anew for each request.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from policies.plans import CompetitivePairs, TeamDraft
from policies.rollouts.standing import START, Standing
from policies.settings import distinct_problems, pointer_problems
from policies.types import Evidence, Path, Plan, Policy, SettingProblem


@dataclass(frozen=True, slots=True, kw_only=True)
class Interleave(Policy):
    """Merge the lists of ``rankers`` into one of ``length`` items.

    ``method`` "pairs" places two rankers' next items side by side, and credits neither for an item that both would
    place next: clicks on what they agree about are no noise. "team_draft" takes any number of rankers. Without it, two
    rankers make pairs, and more a team draft.

    ``items`` is the JSON Pointer to the list in an answer ("" when the answer is the list); ``item_id`` the pointer to
    the id inside an item ("" when the items are ids). Ask each ranker for at least twice ``length`` items: a ranker
    gets no credit for what is shown after its list, or all the others', ran out.

    >>> Interleave(rankers=("v1", "v2"), items="/hits", item_id="/id", length=10).plan(Evidence()).shares
    {'v1': 1.0, 'v2': 1.0}
    """

    kind: ClassVar[str] = "interleave"

    rankers: tuple[str, ...]
    items: str
    item_id: str = ""
    length: int
    method: Literal["pairs", "team_draft"] | None = None

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
        if self.method == "pairs" and len(self.rankers) > 2:
            message = f'"pairs" merges two rankers, and there are {len(self.rankers)}; write "team_draft"'
            problems.append(SettingProblem(("method",), message))
        return tuple(problems)

    def plan(self, evidence: Evidence, standing: Standing = START) -> Plan:
        paired = len(self.rankers) == 2 if self.method is None else self.method == "pairs"
        drafted = CompetitivePairs if paired else TeamDraft
        return drafted(self.rankers, self.items, self.item_id, self.length)
