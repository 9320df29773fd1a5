"""A new score is one class and one name in ``SCORES``: everything else works with it unchanged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

from gateway import cli
from gateway.process.effective import effective
from gateway.proxy.feedback.validate import read_events
from gateway.report import report
from gateway.store.counts.ledger import CALLS, Ledger, TallyKey
from policies import Tally
from policies.types import Evidence
from router import scores
from router.compile import compile_snapshot
from router.config.config import ConfigError, parse
from router.config.schema import json_schema
from router.outcomes import values
from router.records import Feedback, Prediction
from router.scores import Score
from router.snapshot import Snapshot, decode, encode
from tests.router import test_scores

pytestmark = pytest.mark.story


class Closeness(Score):
    """1 for the truth, and less the further off."""

    name = "closeness"
    better = "higher"
    bounds = (0.0, 1.0)
    noun = "mean closeness"
    failed = 0.0

    def refusal(self, label: Any) -> str | None:
        return None if type(label) is int else "must be a whole number"

    def value(self, label: Any, prediction: Any) -> float | None:
        return 1 / (1 + abs(label - prediction)) if type(label) is type(prediction) is int else None


class Miss(Score):
    """1 where the prediction has another parity than the label."""

    name = "miss"
    better = "lower"
    bounds = (0.0, 1.0)
    binary = True
    noun = "share of misses"
    failed = 1.0

    def refusal(self, label: Any) -> str | None:
        return None if type(label) is int else "must be a whole number"

    def value(self, label: Any, prediction: Any) -> float | None:
        return float(label % 2 != prediction % 2) if type(label) is type(prediction) is int else None


CONFIG = """
schema_version = 1
[backends]
old = { url = "http://127.0.0.1:1", version = "1" }
new = { url = "http://127.0.0.1:2", version = "2" }
[metrics]
near = { kind = "label", score = "closeness" }
odd = { kind = "label", score = "miss" }
[routes.r]
path = "/r"
unit = "header:x-user-id"
prediction = "/answer"
metrics = ["near", "odd"]
baseline = "old"
policy = { kind = "ab", shares = { old = 0.5, new = 0.5 } }
"""
BANDIT = '{ kind = "thompson", variants = ["old", "new"], reward = "near" }'


@pytest.fixture(autouse=True)
def _added(monkeypatch: pytest.MonkeyPatch) -> None:
    """Add the one name, here two of them."""
    added = (*scores.SCORES, Closeness(), Miss())
    monkeypatch.setattr(scores, "SCORES", added)
    monkeypatch.setattr(test_scores, "SCORES", added)


@pytest.fixture
def snapshot() -> Snapshot:
    compiled = compile_snapshot(
        parse(CONFIG, "turnout.toml"), previous=None, evidence=lambda *_: Evidence(), now_ms=1_000, revision=1
    )
    return decode(encode(compiled))


def refusal_of(text: str) -> str:
    with pytest.raises(ConfigError) as refused:
        parse(text, "turnout.toml")
    return str(refused.value)


@pytest.mark.parametrize("score", [Closeness(), Miss()], ids=lambda score: score.name)
def test_it_obeys_the_laws_of_every_score(score: Score) -> None:
    test_scores.test_a_score_is_what_its_class_says(score)
    test_scores.test_a_score_says_all_there_is_to_know(next(one for one in scores.SCORES if one.name == score.name))


def test_the_file_takes_it_with_its_direction_and_its_bounds(snapshot: Snapshot) -> None:
    near, odd = snapshot.metrics["near"], snapshot.metrics["odd"]
    assert (near.score, near.better, near.binary, near.bounds) == ("closeness", "higher", False, (0.0, 1.0))
    assert (odd.score, odd.better, odd.binary, odd.bounds) == ("miss", "lower", True, (0.0, 1.0))
    assert effective(snapshot)["metrics"]["near"]["bounds"] == (0.0, 1.0)


def test_mistakes_are_found_in_it_as_in_any_other() -> None:
    said = refusal_of(CONFIG.replace('"closeness"', '"closenes"'))
    assert 'must be "match", "absolute_error", "squared_error", "percentage_error", "closeness" or "miss"' in said
    assert 'did you mean "closeness"?' in said
    said = refusal_of(CONFIG.replace('score = "miss"', 'score = "miss", range = [0, 5], missing = 0.5'))
    assert "range has no effect: every value is 0 or 1" in said
    assert "missing must be 0, 1 or" in said


def test_a_bandit_learns_by_it_only_if_it_is_0_or_1_and_higher_is_better() -> None:
    policy = CONFIG[CONFIG.index('{ kind = "ab"') :].strip()
    said = refusal_of(CONFIG.replace(policy, BANDIT))
    assert 'scored 0 or 1 (an event, or a label with match or miss), got "near", a label with closeness' in said
    assert "of which higher is better" in refusal_of(CONFIG.replace(policy, BANDIT.replace("near", "odd")))
    turned = CONFIG.replace('score = "miss"', 'score = "miss", better = "higher"')
    assert parse(turned.replace(policy, BANDIT.replace("near", "odd")), "turnout.toml").metrics["odd"].scorer


def test_it_is_in_the_schema_with_what_it_does_and_its_direction() -> None:
    metric = json_schema()["$defs"]["metric"]["properties"]
    assert metric["score"]["enum"][-2:] == ["closeness", "miss"]
    assert "closeness: 1 for the truth, and less the further off." in metric["score"]["description"]
    assert 'miss "lower"' in metric["better"]["description"]


def test_feedback_is_refused_unless_it_can_be_scored(snapshot: Snapshot) -> None:
    def read(value: object) -> tuple[list[Feedback], list[str]]:
        body = orjson.dumps({"prediction_id": "p", "metric": "near", "value": value})
        events, problems, _ = read_events(body, snapshot, 1_000)
        return events, [problem.detail for problem in problems]

    assert read(7)[0][0].value == 7
    assert read("seven") == ([], ['metric "near": value must be a whole number, got "seven"'])
    assert read(None)[1] == ["value null takes back what was said before: give a revision higher than that had"]


def prediction(**more: Any) -> Prediction:
    common: dict[str, Any] = {"id": "p", "at_ms": 1, "route": "r", "epoch": "e", "period": 1, "revision": 1}
    choice: dict[str, Any] = {"model": "m", "version": "1", "reason": "unit", "propensity": 0.5, "status": 200}
    return Prediction(**{**common, **choice, "variant": "old", "role": "primary", **more})


def test_labels_score_predictions_by_it_and_failed_calls_as_it_says(snapshot: Snapshot) -> None:
    def worth(metric: str, *calls: Prediction) -> list[float | None]:
        label = Feedback(metric=metric, value=7, received_ms=2, prediction_id="p")
        return [value.mature for value in values(calls, [label], snapshot.metrics[metric], closed=True)]

    answered = prediction(predicted=True, prediction=10)
    failed = prediction(predicted=True, prediction=10, fault="timeout", status=None)
    copied = prediction(predicted=True, prediction=6, variant="new", role="shadow")
    assert worth("near", answered) == [0.25]
    assert worth("near", failed) == [0.0]
    assert worth("odd", failed) == [1.0]
    assert worth("near", answered, copied) == [0.25, 0.5, 0.25]
    assert worth("near", prediction(predicted=True, prediction="ten")) == []


@pytest.mark.parametrize(
    ("metric", "words"),
    [
        ("near", "new's mean closeness is 0.7 higher than old's"),
        ("odd", "new's share of misses is 70.0 points higher than old's"),
    ],
)
def test_the_report_says_it_by_its_noun(snapshot: Snapshot, metric: str, words: str) -> None:
    route, meant = snapshot.routes["r"], snapshot.metrics[metric]

    def key(variant: str, name: str, definition: str, phase: str) -> TallyKey:
        version = snapshot.backends[variant].version
        return TallyKey(1_000, variant, version, "primary", "", name, definition, phase)  # type: ignore[arg-type]

    units = {"old": Tally.of_units([(0, 1)] * 90 + [(1, 1)] * 10), "new": Tally.of_units([(1, 1)] * 80 + [(0, 1)] * 20)}
    tallies = {key(name, metric, meant.definition, "mature"): tally for name, tally in units.items()}
    tallies |= {key(name, CALLS, "", "live"): Tally.of_units([(0, 1)] * 100) for name in units}
    given = parse(CONFIG.replace('["near", "odd"]', f'["{metric}"]'), "turnout.toml")
    made = compile_snapshot(given, previous=None, evidence=lambda *_: Evidence(), now_ms=1_000, revision=1)
    found = report(made, Ledger("r", route.epoch, tallies), given.routes["r"].policy)
    assert words in found["verdict"]["sentence"]
    assert found["verdict"]["status"] == ("better" if meant.better == "higher" else "worse")
    assert found["definitions"][metric]["score"] == meant.score
    assert found["definitions"][metric]["binary"] == meant.binary


def test_the_command_line_takes_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "turnout.toml"
    file.write_text(CONFIG)
    assert cli.run(["check", "-c", str(file)]) == 0
