"""The statuses of a verdict, in one table.

Rule: a new status is a name and a row here, and the place that decides on it: ``comparison`` and ``verdict``. Sentence,
metrics and console take what is in the table; tests hold the document and the styles of console and terminal to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal, NamedTuple

Status = Literal["failing", "better", "worse", "no_difference_yet", "collecting", "invalid"]


class StatusMeaning(NamedTuple):
    """When a comparison has a status and when a route has, in Markdown; and how one clause says it.

    ``clause`` may name the ``{variant}`` and the ``{baseline}`` that are compared.
    """

    of_comparison: str
    of_route: str
    clause: str


#: By importance: of several comparisons, a sentence begins with the first of these that one of them has.
STATUSES: Final[Mapping[Status, StatusMeaning]] = {
    "failing": StatusMeaning(
        "the variant broke a guardrail (it fails more of its calls than the baseline, or half of them, or breaks a"
        " bound of the route's): then it is not better, whatever its answers are worth",
        "at least one variant is failing, and no comparison is invalid",
        "{variant} broke a guardrail.",
    ),
    "better": StatusMeaning(
        "the interval of the difference lies on the better side of zero",
        "at least one variant is better, none is failing, and no comparison is invalid",
        "{variant} is better than {baseline} too.",
    ),
    "worse": StatusMeaning(
        "the interval of the difference lies on the worse side of zero",
        "every other variant is worse than the baseline",
        "{variant} is worse than {baseline}.",
    ),
    "no_difference_yet": StatusMeaning(
        "the interval of the difference includes zero, and both sides have enough units",
        "none of the above, and each variant has enough units",
        "{variant} shows no difference yet.",
    ),
    "collecting": StatusMeaning(
        "there is too little evidence: no interval, or one that includes zero while a side has too few units",
        "none of the above, and at least one variant has too little evidence; or there is nothing to compare",
        "{variant} has too little feedback yet.",
    ),
    "invalid": StatusMeaning(
        "assignment or coverage is broken, with the reason",
        "at least one comparison cannot be trusted, whatever the others say",
        "{variant} cannot be judged.",
    ),
}
