"""The demo's models, trained on the handwritten digits that scikit-learn bundles: three classifiers and two rankers.

Rule: a model sees only the training half, and training is deterministic, so its score on the held-out half is known
before the first request is sent. That score is the truth with which the demo's report is compared.
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.float64]
Labels = NDArray[np.int64]

PIXELS = 64
#: How many items a ranker answers with: twice what is shown, so that a draft of ten never exhausts a ranker's list.
DEPTH = 20
#: How many of them a user sees.
SHOWN = 10


@dataclass(frozen=True, slots=True)
class Digits:
    """Images of 8 × 8 pixels, 0 to 16 each, one image per row; the held-out half is the demo's traffic."""

    train_pixels: Pixels
    train_labels: Labels
    held_pixels: Pixels
    held_labels: Labels


@dataclass(frozen=True, slots=True)
class Tensor:
    """One output of a model, in the terms of the Open Inference Protocol."""

    name: str
    datatype: Literal["INT64", "BYTES"]
    data: list[int] | list[str]


@dataclass(frozen=True, slots=True)
class Classifier:
    """Reads a digit. ``estimator`` is a fitted scikit-learn classifier on rows of 64 pixels."""

    name: str
    model: str
    version: str
    title: str
    estimator: Any
    #: One of so many requests is answered with 502; 0: none.
    fails_every: int = 0

    def answer(self, pixels: Pixels) -> Tensor:
        return Tensor("digit", "INT64", [int(digit) for digit in self.estimator.predict(pixels)])


@dataclass(frozen=True, slots=True)
class Ranker:
    """Finds the catalogue's images most like the one given, the nearest first."""

    name: str
    model: str
    version: str
    title: str
    catalogue: Pixels
    by: Literal["rows", "pixels"]

    def answer(self, pixels: Pixels) -> Tensor:
        asked = pixels[:1] if self.by == "pixels" else _ink(pixels[:1])
        distances = ((self.catalogue - asked) ** 2).sum(axis=1)
        nearest = np.argsort(distances, kind="stable")[:DEPTH]
        return Tensor("items", "BYTES", [item_id(int(index)) for index in nearest])


Model = Classifier | Ranker


def load() -> Digits:
    """Return the images, always split the same way and with every digit as frequent in one half as in the other."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    pixels, labels = load_digits(return_X_y=True)
    train_pixels, held_pixels, train_labels, held_labels = train_test_split(
        pixels, labels, test_size=0.5, random_state=0, stratify=labels
    )
    return Digits(train_pixels, train_labels, held_pixels, held_labels)


def train(digits: Digits) -> tuple[Model, ...]:
    """Fit every model: takes a fraction of a second."""
    # Imported here and not above: each model is served by its own process, and those of the rankers need no sklearn.
    from sklearn.linear_model import LogisticRegression
    from sklearn.naive_bayes import GaussianNB
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer

    # A third of the images: trained on all, the best model would make fewer mistakes in a minute of traffic than a
    # comparison needs.
    few = len(digits.train_pixels) // 3
    pixels, labels = digits.train_pixels[:few], digits.train_labels[:few]
    regression = make_pipeline(FunctionTransformer(_blur), LogisticRegression(max_iter=2000, random_state=0))
    bayes = GaussianNB(var_smoothing=0.1)
    neighbours = KNeighborsClassifier(n_neighbors=3)
    for estimator in (regression, bayes, neighbours):
        estimator.fit(pixels, labels)
    catalogue = digits.train_pixels
    return (
        Classifier("digits_v1", "digits", "1.0.0", "logistic regression on 16 blurred pixels", regression),
        Classifier("digits_v2", "digits", "2.0.0", "naive Bayes on every pixel", bayes),
        Classifier("digits_v3", "digits", "3.0.0", "3 nearest neighbours", neighbours),
        Ranker("search_rows", "search", "1.0.0", "similar images by the ink in each row", _ink(catalogue), "rows"),
        Ranker("search_pixels", "search", "2.0.0", "similar images by every pixel", catalogue, "pixels"),
    )


def faulty(models: tuple[Model, ...]) -> Classifier:
    """Return the best classifier in a version that fails a tenth of its requests, as one behind a bad network does."""
    best = next(model for model in models if isinstance(model, Classifier) and model.name == "digits_v3")
    title = "the same, but answers 502 to every tenth request"
    return replace(best, name="digits_v4", version="4.0.0", title=title, fails_every=10)


def held_out_score(model: Model, digits: Digits) -> float:
    """Return the true score of a model: a classifier's accuracy on the held-out half; for a ranker, the share of the
    items it shows there that are the same digit as the image asked about."""
    if isinstance(model, Classifier):
        return float(np.mean(model.estimator.predict(digits.held_pixels) == digits.held_labels))
    hits = [
        relevant(digits, str(item), int(label))
        for row, label in zip(digits.held_pixels, digits.held_labels, strict=True)
        for item in model.answer(row[np.newaxis, :]).data[:SHOWN]
    ]
    return sum(hits) / len(hits)


def item_id(index: int) -> str:
    """Return the id of the catalogue's image at ``index``, which is its place in the training half."""
    return f"image-{index}"


def relevant(digits: Digits, item: str, label: int) -> bool:
    """Return whether a catalogue's image shows the digit ``label``."""
    return int(digits.train_labels[int(item.removeprefix("image-"))]) == label


def save(model: Model, path: Path) -> None:
    """Write a fitted model to a file, from which the process that serves it reads it."""
    path.write_bytes(pickle.dumps(model))


def read(path: Path) -> Model:
    """Return the model that ``save`` wrote. Never for files from elsewhere: loading a pickle can run any code."""
    model = pickle.loads(path.read_bytes())
    if not isinstance(model, Classifier | Ranker):
        raise TypeError(f"{path} holds no model of the demo")
    return model


def rows(data: Sequence[float]) -> Pixels:
    """Return flat pixels as rows of 64. Raises ValueError if they are not whole images of finite numbers."""
    pixels = np.asarray(data, dtype=np.float64).reshape(-1, PIXELS)
    if not len(pixels) or not np.isfinite(pixels).all():
        raise ValueError("pixels must be finite numbers, 64 an image")
    return pixels


def _ink(pixels: Pixels) -> Pixels:
    """Sum each row of an image: how the ink is spread from top to bottom, without its place from left to right."""
    ink: Pixels = pixels.reshape(-1, 8, 8).sum(axis=2)
    return ink


def _blur(pixels: Pixels) -> Pixels:
    """Average each square of 2 × 2 pixels: a quarter of the detail."""
    blurred: Pixels = pixels.reshape(-1, 4, 2, 4, 2).mean(axis=(2, 4)).reshape(-1, 16)
    return blurred
