"""The interface of a trigger's conditions.

Rule: a condition is settings and a pure function of readings. It is met only where the whole interval lies beyond its
bound, and cleared only once the value itself is back by ``hysteresis``: in between it stays as it was.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Final, Literal, NamedTuple, TypeVar

from router.triggers.readings import Need, TriggerReadings, ValueBand

T = TypeVar("T")

#: "between": neither met nor cleared, so as it was before; "unknown": there is no data, so nothing may follow.
State = Literal["met", "clear", "between", "unknown"]

MetricName = Annotated[str, "text"]
Length = Annotated[int, "duration"]  # in milliseconds
Bound = Annotated[float, "number"]
Margin = Annotated[float, "not_negative"]
AtLeast = Annotated[int, "count"]

WEEK_MS: Final = 7 * 86_400_000


def key(default: T, description: str) -> T:
    """Declare a key of a condition that may be left out."""
    made: T = field(default=default, metadata={"description": description})
    return made


def needed(description: str) -> Any:
    """Declare a key of a condition that must be given."""
    return field(metadata={"description": description})


class ConditionJudged(NamedTuple):
    """What a condition is at one moment, in words too; ``bound`` is what the value and its interval are beside."""

    state: State
    said: str
    value: float | None = None
    low: float | None = None
    high: float | None = None
    bound: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Since:
    """Since when a trigger counts: its last firing, else when it began; ``labels`` were there then, in that epoch."""

    at_ms: int
    epoch: str = ""
    labels: Mapping[str, int] = field(default_factory=dict)


class Condition(ABC):
    """One condition of a trigger. Subclasses are frozen dataclasses; their fields are their keys in the file."""

    __slots__ = ()

    kind: ClassVar[str]
    #: Whether what it needs is known of past hours too, so that `turnout trigger test` can look back.
    has_history: ClassVar[bool] = False

    @abstractmethod
    def judge(self, seen: TriggerReadings, since: Since) -> ConditionJudged:
        """Return what it is, by these readings."""

    @property
    def needs(self) -> tuple[Need, ...]:
        """What it reads."""
        return ()

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics that it names, which the route must have."""
        return ()

    @property
    def compares(self) -> bool:
        """Whether it compares the variant with the baseline, and says nothing of the baseline itself."""
        return False

    def next_ms(self, since: Since) -> int | None:
        """Return when it must be looked at next though nothing was counted; None if time alone changes nothing."""
        return None

    def problems(self) -> Iterator[tuple[str, str]]:
        """Yield what is wrong with the settings: the key, and words that follow it."""
        return iter(())


def beyond(
    band: ValueBand, bound: float, side: Literal["above", "below"], hysteresis: float, said: str
) -> ConditionJudged:
    """Judge an interval beside a bound: met if all of it lies on this side."""
    away = (band.low - bound, bound - band.high)[side == "below"]
    back = (bound - band.value, band.value - bound)[side == "below"]
    state: State = "met" if away > 0 else "clear" if back >= hysteresis else "between"
    return ConditionJudged(state, said, band.value, band.low, band.high, bound)


def unknown(said: str) -> ConditionJudged:
    return ConditionJudged("unknown", said)
