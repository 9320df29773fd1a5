"""Scores: how one label judges one prediction; and pair measures: how a copy's prediction compares with the answer's.

Rule: pure, and everything that is known about a score stands in its class. Adding one is one class here and one name in
``SCORES``: the operator's file and its schema, the validation of feedback, outcomes, report and sentences ask the
class, and no other module names a score. A pair measure is one class and one name in ``PAIR_MEASURES``.

How this relates to the kinds of a metric: the value of an ``event`` is 0 or 1 and that of a ``value`` its number,
whatever was predicted, so neither has a score. A ``label`` is the truth; its value comes from comparing it with the
prediction, and the score says how.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from math import inf
from typing import Any, ClassVar, Literal

from router.extract import equal
from router.records import LARGEST

#: Which direction is good.
Better = Literal["higher", "lower"]


class Score(ABC):
    """How a label scores a prediction. Subclasses have no state, and state everything about themselves.

    The first paragraph of a subclass's docstring is what an editor shows beside its name.
    """

    __slots__ = ()

    name: ClassVar[str]
    #: Which direction is good, unless the metric says otherwise.
    better: ClassVar[Better]
    #: The lowest and the highest value; infinite where ``LARGEST`` is the only limit, which is too far away to make an
    #: interval narrower.
    bounds: ClassVar[tuple[float, float]]
    #: True when every value is 0 or 1.
    binary: ClassVar[bool] = False
    #: What the mean is called in a sentence; None: the mean is the share that the variant gets right.
    noun: ClassVar[str | None] = None
    #: What an answer that failed is worth; None: it has no value.
    failed: ClassVar[float | None] = None

    @abstractmethod
    def refusal(self, label: Any) -> str | None:
        """Return what a label must be if this one scores no prediction at all; None if it can score one."""

    @abstractmethod
    def value(self, label: Any, prediction: Any) -> float | None:
        """Return the score of a prediction by this label; None if the two cannot be compared.

        It lies in ``bounds``, and within 2 · ``LARGEST`` of 0, so that a tally of any number of scores stays finite.
        """


class Match(Score):
    """1 if the prediction equals the label, else 0."""

    __slots__ = ()

    name = "match"
    better = "higher"
    bounds = (0.0, 1.0)
    binary = True
    failed = 0.0

    def refusal(self, label: Any) -> str | None:
        return None

    def value(self, label: Any, prediction: Any) -> float | None:
        return 1.0 if equal(label, prediction) else 0.0


class ErrorScore(Score):
    """How far a predicted number is from the true one, by some measure; lower is better.

    An answer that failed has no value: 0 would be a perfect score.
    """

    __slots__ = ()

    better = "lower"
    bounds = (0.0, inf)

    def refusal(self, label: Any) -> str | None:
        return refused_number(label)

    def value(self, label: Any, prediction: Any) -> float | None:
        truth, guess = _number(label), _number(prediction)
        return None if truth is None or guess is None else self.error(truth, guess)

    @abstractmethod
    def error(self, truth: float, guess: float) -> float | None:
        """Return the error of a guess; None if the truth allows none."""


class AbsoluteError(ErrorScore):
    """How far the prediction is from the label, both being numbers."""

    __slots__ = ()

    name = "absolute_error"
    noun = "mean error"

    def error(self, truth: float, guess: float) -> float | None:
        return abs(guess - truth)


class SquaredError(ErrorScore):
    """The square of that distance, so that a few large errors outweigh many small ones.

    One beyond ``LARGEST`` counts as ``LARGEST``. If it had no value instead, the wildest guesses would be left out, and
    their variant would look better than it is.
    """

    __slots__ = ()

    name = "squared_error"
    noun = "mean squared error"

    def error(self, truth: float, guess: float) -> float | None:
        return min((guess - truth) ** 2, LARGEST)


class PercentageError(ErrorScore):
    """That distance as a share of the label: 0.1 is 10 %. A label of 0 is refused.

    One beyond ``LARGEST`` counts as ``LARGEST``, as with a squared error.
    """

    __slots__ = ()

    name = "percentage_error"
    noun = "mean relative error"  # reports show it as a share: a "percentage error" of 0.1 would be misread

    def refusal(self, label: Any) -> str | None:
        return super().refusal(label) or (None if label else "must not be 0, of which no error is a share")

    def error(self, truth: float, guess: float) -> float | None:
        return min(abs(guess - truth) / abs(truth), LARGEST) if truth else None


#: Every score; the first is what a label is scored by when the file does not say.
SCORES: tuple[Score, ...] = (Match(), AbsoluteError(), SquaredError(), PercentageError())


class PairMeasure(ABC):
    """How the prediction of a copy compares with that of the answer to the same request. Subclasses have no state."""

    __slots__ = ()

    #: The built-in metric that it is counted as, and its key in a report.
    name: ClassVar[str]
    key: ClassVar[str]
    #: The lowest and the highest value; infinite where ``LARGEST`` is the only limit.
    bounds: ClassVar[tuple[float, float]] = (0.0, 1.0)
    #: True where it is counted by unit, so that it has an interval; the others are descriptions, and cost no row.
    by_unit: ClassVar[bool] = False

    @abstractmethod
    def value(self, copy: Any, answer: Any) -> float | None:
        """Return the value for these two predictions; None if they are of no kind that it compares."""


class Agreement(PairMeasure):
    """1 if both are the same, else 0."""

    __slots__ = ()

    name, key, by_unit = "@agreement", "agreement", True

    def value(self, copy: Any, answer: Any) -> float | None:
        return float(equal(copy, answer))


class Change(PairMeasure):
    """The copy's number less the answer's."""

    __slots__ = ()

    name, key, bounds = "@difference", "difference", (-inf, inf)

    def value(self, copy: Any, answer: Any) -> float | None:
        mine, theirs = _number(copy), _number(answer)
        return None if mine is None or theirs is None else mine - theirs


class Distance(PairMeasure):
    """How far apart two numbers are."""

    __slots__ = ()

    name, key, bounds = "@distance", "distance", (0.0, inf)

    def value(self, copy: Any, answer: Any) -> float | None:
        mine, theirs = _number(copy), _number(answer)
        return None if mine is None or theirs is None else abs(mine - theirs)


class Beyond(PairMeasure):
    """1 if two numbers are further apart than a tenth of the answer's, else 0."""

    __slots__ = ()

    name, key = "@beyond_tenth", "beyond_tenth"

    def value(self, copy: Any, answer: Any) -> float | None:
        mine, theirs = _number(copy), _number(answer)
        return None if mine is None or theirs is None else float(abs(mine - theirs) > abs(theirs) / 10)


class Flip(PairMeasure):
    """1 if two numbers in [0, 1] lie on different sides of one half, else 0."""

    __slots__ = ()

    name, key = "@flips", "flips"

    def value(self, copy: Any, answer: Any) -> float | None:
        mine, theirs = _number(copy), _number(answer)
        if mine is None or theirs is None or not (0 <= mine <= 1 and 0 <= theirs <= 1):
            return None
        return float((mine >= 0.5) != (theirs >= 0.5))


class Overlap(PairMeasure):
    """Of the first ten items of two lists, the share that both have. A shorter list is compared as far as it goes."""

    __slots__ = ()

    name, key = "@overlap_at_10", "overlap_at_10"

    def value(self, copy: Any, answer: Any) -> float | None:
        if not (isinstance(copy, list) and isinstance(answer, list)):
            return None
        mine, theirs = copy[:10], answer[:10]
        most = max(len(mine), len(theirs))
        return sum(any(equal(one, other) for other in theirs) for one in mine) / most if most else 1.0


#: Every pair measure.
PAIR_MEASURES: tuple[PairMeasure, ...] = (Agreement(), Change(), Distance(), Beyond(), Flip(), Overlap())


def score_of(kind: str, name: str | None) -> Score | None:
    """Return what a metric is scored by: None unless its kind is "label". Raises ValueError if there is no such score.

    >>> score_of("label", None).name, score_of("event", None)
    ('match', None)
    """
    if kind != "label":
        return None
    # SCORES is looked up at each call, so that a score added there is found here.
    found = [score for score in SCORES if name in (None, score.name)]
    if not found:
        raise ValueError(f'there is no score "{name}"')
    return found[0]


def scored_01(kind: str | None, scorer: Score | None) -> bool:
    """Return whether every value of a metric is 0 or 1: an event, or a label with a score of which that holds."""
    return kind == "event" or (scorer is not None and scorer.binary)


def better_of(scorer: Score | None, given: Better | None) -> Better:
    """Return which direction is good: what the file says, else what the score does; of events and values the higher."""
    return given or ("higher" if scorer is None else scorer.better)


def refused_number(value: object) -> str | None:
    """Return what a value must be if it is not a number that counts; None if it is one.

    >>> refused_number("7"), refused_number(True), refused_number(1e16), refused_number(7)
    ('must be a finite number', 'must be a finite number', 'must lie in [-1e+15, 1e+15]', None)
    """
    if _number(value) is not None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < inf:
        return "must be a finite number"
    return f"must lie in [{-LARGEST:g}, {LARGEST:g}]"


def _number(value: Any) -> float | None:
    """Return a number that counts. NaN is within no bounds, and a boolean is no number."""
    if type(value) in (int, float) and -LARGEST <= value <= LARGEST:  # JSON has no other numbers
        return float(value)
    return None
