"""The demo's config is valid, and what its scenes say is true of the models."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.demo import DEFAULT_RATE
from gateway.demo.models import Model, faulty, held_out_score, load, train
from gateway.demo.scenario import SCENES, WINDOW_SECONDS, Scene, config
from gateway.demo.traffic import AGAIN_SECONDS, DELAY_SECONDS
from gateway.report import report
from router.config.config import Config, parse
from tests.gateway.ledgers import Book, route, snapshot


@pytest.fixture(scope="module")
def models() -> tuple[Model, ...]:
    trained = train(load())
    return (*trained, faulty(trained))


@pytest.fixture(scope="module")
def parsed(models: tuple[Model, ...]) -> Config:
    urls = {model.name: f"http://127.0.0.1:{9000 + n}" for n, model in enumerate(models)}
    text = config(models, urls, listen="127.0.0.1:8080", admin="127.0.0.1:9090", data_dir=Path("data"))
    return parse(text, "turnout.toml")


def test_the_config_is_valid_and_warns_of_nothing(parsed: Config) -> None:
    assert parsed.warnings == ()
    assert set(parsed.routes) == {scene.route for scene in SCENES}


def test_the_routes_run_the_policies_that_choose(parsed: Config) -> None:
    kinds = {route.policy.kind for route in parsed.routes.values()}
    assert kinds == {"shadow", "canary", "ab", "interleave", "thompson", "rollout"}


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.route)
def test_a_scenes_variants_and_baseline_are_its_routes(scene: Scene, parsed: Config) -> None:
    route = parsed.routes[scene.route]
    assert (route.path, route.baseline) == (scene.target, scene.baseline)
    assert route.metrics == (scene.metric, *scene.secondary)
    assert scene.better in route.policy.variants


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.route)
def test_the_better_variant_of_a_scene_is_truly_the_best_of_its_route(
    scene: Scene, parsed: Config, models: tuple[Model, ...]
) -> None:
    digits = load()
    scores = {model.name: held_out_score(model, digits) for model in models}
    of_route = {name: scores[name] for name in parsed.routes[scene.route].policy.variants}
    assert max(of_route, key=of_route.__getitem__) == scene.better
    assert of_route[scene.better] - of_route[scene.baseline] >= 0.03


def test_the_routes_share_all_of_the_traffic() -> None:
    assert sum(scene.traffic for scene in SCENES) == pytest.approx(1)


def test_all_feedback_falls_due_within_the_window() -> None:
    """A correction follows its label, and a busy machine needs some slack."""
    assert DELAY_SECONDS[1] + AGAIN_SECONDS + 2 <= WINDOW_SECONDS


def test_what_fails_a_tenth_is_failing_by_what_comes_in_six_seconds() -> None:
    """Within ten it is reported: users come one by one, and the reports are read every two seconds."""
    [scene] = [scene for scene in SCENES if scene.fails and not scene.moves]
    each = round(6 * DEFAULT_RATE * scene.traffic / 2)
    book = Book().rate("old", "correct", round(0.9 * each), each).calls("new", each, failed=each // 10)
    given = snapshot(route(by_unit=False, unit=None))
    assert report(given, book.ledger())["verdict"]["status"] == "failing"
