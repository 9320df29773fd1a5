"""Laws that every score obeys, including any that is added later; and errors computed by hand."""

from __future__ import annotations

from dataclasses import asdict
from math import isfinite
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from router.records import LARGEST
from router.scores import PAIR_MEASURES, SCORES, AbsoluteError, Match, PercentageError, Score, SquaredError, score_of
from router.snapshot import Metric, decode, encode
from tests.router.builders import snapshot_of

ROOT = Path(__file__).parents[2]

every_score = pytest.mark.parametrize("score", SCORES, ids=lambda score: score.name)

NUMBERS = st.one_of(
    st.sampled_from([0, -0.0, 1, 5e-324, LARGEST, -LARGEST, 2 * LARGEST, 10**400]),
    st.integers(-10, 10),
    st.floats(allow_nan=False),
)
VALUES = st.one_of(NUMBERS, st.none(), st.booleans(), st.text(max_size=2), st.lists(st.integers(0, 2), max_size=2))


@every_score
@settings(max_examples=60)
@given(VALUES, VALUES)
@example(5e-324, LARGEST)
@example(-LARGEST, LARGEST)
def test_a_score_is_what_its_class_says(score: Score, label: Any, prediction: Any) -> None:
    """A label is refused exactly if it scores no prediction; values are bounded; no prediction beats the label."""
    found, perfect = score.value(label, prediction), score.value(label, label)
    assert (score.refusal(label) is None) == (perfect is not None)
    if found is None:
        return
    low, high = score.bounds
    assert isfinite(found)
    assert low <= found <= high
    assert abs(found) <= 2 * LARGEST
    assert not score.binary or found in (0.0, 1.0)
    assert perfect is not None
    assert perfect >= found if score.better == "higher" else perfect <= found


@every_score
def test_a_score_says_all_there_is_to_know(score: Score) -> None:
    """An answer that failed is worth no more than the worst one."""
    low, high = score.bounds
    assert [other.name for other in SCORES].count(score.name) == 1
    assert low < high
    assert (score.bounds == (0.0, 1.0)) or not score.binary
    assert score.failed in (None, low if score.better == "higher" else high)
    assert score.noun is not None or (score.binary and score.better == "higher")
    assert score_of("label", score.name) is score


@pytest.mark.parametrize("page", ["README.md", "docs/reference/feedback.md", "config.example.toml"])
@every_score
def test_a_score_is_on_the_pages_that_list_them(score: Score, page: str) -> None:
    written = f"`{score.name}`" if page.endswith(".md") else f'"{score.name}"'
    assert written in (ROOT / page).read_text()


def test_a_label_is_scored_by_match_unless_the_file_says_otherwise() -> None:
    assert isinstance(score_of("label", None), Match)
    assert score_of("event", None) is None
    assert score_of("value", None) is None


@pytest.mark.parametrize(
    ("score", "label", "prediction", "value"),
    [
        (AbsoluteError(), 4, 2.5, 1.5),
        (SquaredError(), 10, 13, 9.0),
        (SquaredError(), -LARGEST, LARGEST, LARGEST),
        (SquaredError(), 0, 1e12, LARGEST),
        (SquaredError(), "4", 4, None),
        (SquaredError(), 4, True, None),
        (PercentageError(), 200, 150, 0.25),
        (PercentageError(), -2, 1, 1.5),
        (PercentageError(), 5e-324, 1, LARGEST),
        (PercentageError(), 0, 0, None),
        (PercentageError(), 4, "4", None),
    ],
)
def test_an_error_is_between_numbers_and_bounded(
    score: Score, label: Any, prediction: Any, value: float | None
) -> None:
    assert score.value(label, prediction) == value


@pytest.mark.parametrize(
    ("score", "label", "refusal"),
    [
        (Match(), "not a number", None),
        (AbsoluteError(), "not a number", "must be a finite number"),
        (SquaredError(), "not a number", "must be a finite number"),
        (SquaredError(), True, "must be a finite number"),
        (SquaredError(), float("nan"), "must be a finite number"),
        (SquaredError(), 1e16, "must lie in [-1e+15, 1e+15]"),
        (PercentageError(), None, "must be a finite number"),
        (PercentageError(), -0.0, "must not be 0, of which no error is a share"),
        (PercentageError(), 0.5, None),
    ],
)
def test_a_label_that_cannot_score_is_refused_with_what_would_do(score: Score, label: Any, refusal: str | None) -> None:
    assert score.refusal(label) == refusal


def test_a_metric_finds_its_score_when_it_is_made_and_keeps_only_the_name() -> None:
    """Nothing is looked up per event, and a snapshot has no more in it than before."""
    snapshot = snapshot_of()
    correct = decode(encode(snapshot)).metrics["correct"]
    assert isinstance(correct.scorer, Match)
    assert correct == snapshot.metrics["correct"]
    assert asdict(correct)["score"] == "match"
    assert "scorer" not in asdict(correct)


def test_a_snapshot_with_a_score_that_this_program_does_not_know_is_refused() -> None:
    """A worker then goes on with the snapshot it has, instead of scoring by another score than the file asks for."""
    with pytest.raises(ValueError, match='there is no score "later"'):
        decode(encode(snapshot_of()).replace(b'"score": "match"', b'"score": "later"'))


@pytest.mark.parametrize(
    ("score", "range_", "bounds"),
    [("match", None, (0.0, 1.0)), ("absolute_error", None, None), ("absolute_error", (0.0, 5.0), (0.0, 5.0))],
)
def test_bounds_too_wide_to_be_of_use_are_none(
    score: str, range_: tuple[float, float] | None, bounds: tuple[float, float] | None
) -> None:
    metric = Metric(
        name="k",
        kind="label",
        score=score,
        better="lower",
        window_ms=1,
        mature="window",
        missing=None,
        fold="last",
        range=range_,
        definition="d",
    )
    assert metric.bounds == bounds


@pytest.mark.parametrize(
    ("copy", "answer", "values"),
    [
        ("cat", "cat", {"agreement": 1}),
        ("cat", "dog", {"agreement": 0}),
        (True, 1, {"agreement": 0}),
        (0.4, 0.6, {"agreement": 0, "difference": -0.2, "distance": 0.2, "beyond_tenth": 1, "flips": 1}),
        (0.5, 0.51, {"agreement": 0, "difference": -0.01, "distance": 0.01, "beyond_tenth": 0, "flips": 0}),
        (95, 100, {"agreement": 0, "difference": -5, "distance": 5, "beyond_tenth": 0}),
        ([1, 2, 3, 4], [4, 3, 9, 8], {"agreement": 0, "overlap_at_10": 0.5}),
        ([*range(20)], [*range(5, 20)], {"agreement": 0, "overlap_at_10": 0.5}),
        ([], [], {"agreement": 1, "overlap_at_10": 1}),
        ([1, 2], [1], {"agreement": 0, "overlap_at_10": 0.5}),
    ],
)
def test_pairs_of_predictions_by_hand(copy: Any, answer: Any, values: dict[str, float]) -> None:
    found = {one.key: one.value(copy, answer) for one in PAIR_MEASURES}
    assert {key: value for key, value in found.items() if value is not None} == pytest.approx(values)


@settings(max_examples=60)
@given(VALUES, VALUES)
@example(-LARGEST, LARGEST)
def test_a_pair_measure_is_what_its_class_says(copy: Any, answer: Any) -> None:
    """Values are bounded, and finite; predictions that are the same differ by nothing."""
    for measure in PAIR_MEASURES:
        found, same = measure.value(copy, answer), measure.value(answer, answer)
        assert found is None or (measure.bounds[0] <= found <= measure.bounds[1] and isfinite(found))
        assert same in (None, float(measure.key in {"agreement", "overlap_at_10"}))
