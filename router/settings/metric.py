"""What feedback means: a table of the file's ``[metrics]``.

Its keys are declared in ``router.config.file``, because they are written in another form than the value has.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from typing import Literal

from router.scores import Better, Score, score_of, scored_01


class _Scored:
    """What a metric holds beside its fields: it follows from them, and is not encoded."""

    __slots__ = ("scorer",)

    #: The score itself, looked up once; None unless the metric's kind is "label".
    scorer: Score | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric(_Scored):
    """What feedback means. ``definition`` is the hash of every field that changes a number, the name included.

    ``cap`` is the largest value that a prediction can have: what it was worth beyond that is cut off. ``range`` is what
    each single event lies in.

    ``before_ms`` is how long before its prediction an event may have happened; None: at any
    time before if the event names the prediction by its id (clocks differ), never if by a key.
    """

    name: str
    kind: Literal["event", "value", "label"]
    score: str | None
    better: Better
    window_ms: int
    mature: Literal["window", "arrival"]
    missing: float | None
    fold: Literal["any", "first", "last", "sum", "mean", "max"]
    range: tuple[float, float] | None
    definition: str
    before_ms: int | None = None
    cap: float | None = None

    def __post_init__(self) -> None:
        """Raises ValueError if there is no such score."""
        object.__setattr__(self, "scorer", score_of(self.kind, self.score))

    @property
    def bounds(self) -> tuple[float, float] | None:
        """The interval every value lies in, when known: [0, 1] where all are 0 or 1, ``range``, or the score's own.

        ``cap`` replaces the upper end of ``range``.
        """
        if self.binary:
            return 0.0, 1.0
        if self.range is not None and self.cap is not None:
            return self.range[0], self.cap
        if self.range is None and self.scorer is not None and all(map(isfinite, self.scorer.bounds)):
            return self.scorer.bounds
        return self.range

    @property
    def binary(self) -> bool:
        """True when every value is 0 or 1."""
        return scored_01(self.kind, self.scorer)
