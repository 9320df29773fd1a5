"""The demo's models are real, different, and the same at each run."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from gateway.demo.models import (
    DEPTH,
    SHOWN,
    Classifier,
    Digits,
    Model,
    Ranker,
    held_out_score,
    load,
    read,
    relevant,
    rows,
    save,
    train,
)


@pytest.fixture(scope="module")
def digits() -> Digits:
    return load()


@pytest.fixture(scope="module")
def models(digits: Digits) -> dict[str, Model]:
    return {model.name: model for model in train(digits)}


def test_the_classifiers_are_three_to_ten_points_of_held_out_accuracy_apart(
    digits: Digits, models: dict[str, Model]
) -> None:
    """Any closer and a minute of traffic could not tell them apart; any further and no canary would be needed."""
    scores = sorted(held_out_score(model, digits) for model in models.values() if isinstance(model, Classifier))
    assert len(scores) == 3
    gaps = [high - low for low, high in pairwise(scores)]
    assert all(0.03 <= gap <= 0.10 for gap in (*gaps, scores[-1] - scores[0])), scores


def test_later_versions_are_better(digits: Digits, models: dict[str, Model]) -> None:
    for family in ("digits", "search"):
        scores = [(model.version, held_out_score(model, digits)) for model in models.values() if model.model == family]
        assert sorted(scores) == sorted(scores, key=lambda scored: scored[1])


def test_training_again_gives_the_same_models(digits: Digits, models: dict[str, Model]) -> None:
    """The truth is printed before the traffic begins, so it must be the same in every run."""
    for model in train(load()):
        again, before = model.answer(digits.held_pixels[:40]), models[model.name].answer(digits.held_pixels[:40])
        assert again == before


def test_no_model_has_seen_what_it_is_asked(digits: Digits) -> None:
    trained = {row.tobytes() for row in digits.train_pixels}
    assert len(digits.held_pixels) > 800
    assert not trained & {row.tobytes() for row in digits.held_pixels}


def test_a_ranker_answers_with_twice_what_is_shown_the_nearest_first(digits: Digits, models: dict[str, Model]) -> None:
    ranker = models["search_pixels"]
    assert isinstance(ranker, Ranker)
    asked = digits.held_pixels[:1]
    items = [str(item) for item in ranker.answer(asked).data]
    assert len(set(items)) == len(items) == DEPTH >= 2 * SHOWN
    distances = [float(np.sum((digits.train_pixels[int(i.removeprefix("image-"))] - asked[0]) ** 2)) for i in items]
    assert distances == sorted(distances)
    assert distances[0] == min(np.sum((digits.train_pixels - asked[0]) ** 2, axis=1))


def test_an_item_is_relevant_when_it_shows_the_digit_asked_for(digits: Digits) -> None:
    label = int(digits.train_labels[5])
    assert relevant(digits, "image-5", label)
    assert not relevant(digits, "image-5", (label + 1) % 10)


def test_a_saved_model_answers_as_before(
    digits: Digits, models: dict[str, Model], tmp_path_factory: pytest.TempPathFactory
) -> None:
    directory = tmp_path_factory.mktemp("models")
    for model in models.values():
        save(model, directory / model.name)
        assert read(directory / model.name).answer(digits.held_pixels[:3]) == model.answer(digits.held_pixels[:3])


@pytest.mark.parametrize("data", [[], [1.0, 2.0], [float("nan")] * 64, [1.0] * 65])
def test_what_is_not_whole_images_of_finite_numbers_is_refused(data: list[float]) -> None:
    with pytest.raises(ValueError, match=r"pixels|reshape"):
        rows(data)
