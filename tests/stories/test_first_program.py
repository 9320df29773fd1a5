"""The data of an earlier version is taken over: journal, store and snapshot of commit 30d391e, killed in the middle.

``first_program.tar.xz`` holds its data directory as ``kill -9`` left it: a store of schema version 1 with most of it in
the write-ahead log, a snapshot, and a journal whose last calls and events had not been recorded. Beside it are its
configuration and ``said.json``: what that program reported shortly before, what it showed of some predictions, and the
ids of the calls that it had not recorded.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from gateway.files.published import SNAPSHOT
from router.snapshot import decode
from tests.stories.backends import Backend, fixed
from tests.stories.harness import Turnout, eventually

pytestmark = pytest.mark.story

ARCHIVE = Path(__file__).with_name("first_program.tar.xz")
#: What a report counts; its intervals may become better.
COUNTED = {"accounting", "epoch", "failures", "forced", "live", "mean", "n", "name", "predictions", "units", "version"}


@pytest.fixture
def said(tmp_path: Path) -> Mapping[str, Any]:
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(tmp_path, filter="data")
    found: Mapping[str, Any] = json.loads((tmp_path / "said.json").read_text())
    return found


@pytest.fixture
def program(tmp_path: Path, said: Mapping[str, Any]) -> Iterator[Turnout]:
    with Backend(fixed({"outputs": [{"data": [1]}], "items": ["a"]})) as backend:
        config = (tmp_path / "turnout.toml").read_text()
        urls = dict.fromkeys(("one", "two", "three", "four"), backend.url)
        with Turnout(tmp_path, config.format(**urls)) as started:
            yield started


def test_what_the_first_program_wrote_is_reported_shown_and_gone_on_with(
    tmp_path: Path, said: Mapping[str, Any], program: Turnout
) -> None:
    assert decode((tmp_path / "data" / SNAPSHOT).read_bytes()).routes.keys() == said["reports"].keys()

    unrecorded = {id_ for ids in said["unrecorded"].values() for id_ in ids}
    assert len(unrecorded) == 20
    eventually(lambda: all(map(program.prediction, unrecorded)), "what stood in the journal is recorded")
    for shown in said["predictions"].values():
        now = program.prediction(shown["prediction_id"])
        assert now is not None
        assert _differences(shown, now) == []

    # These routes got no requests after the report was made.
    for route in ("shadowed", "search", "bandit"):
        assert _differences(_counted(said["reports"][route]), _counted(program.report(route))) == []
    # These had 10 calls and 5 events more, and one event about an older call came late.
    for route, metric, late in (("canary", "correct", 1), ("halves", "bought", 0)):
        was, now = (_answers(report) for report in (said["reports"][route], program.report(route)))
        assert sum(now.values()) == sum(was.values()) + 10
        joined = program.report(route)["accounting"][metric]
        assert (joined["joined"], joined["late"]) == (12 + 5, late)

    # Units keep their variants.
    for id_ in said["ids"]["canary"][:10]:
        call = _primary(program, id_)
        again = program.ask("/canary", x_user_id=call["unit"]).headers["turnout-prediction-id"]
        assert _primary(program, again)["variant"] == call["variant"]


def _primary(program: Turnout, id_: str) -> Mapping[str, Any]:
    """The call whose answer the client had, once it is recorded."""
    found = eventually(lambda: program.prediction(id_), f"{id_} is recorded")
    call: Mapping[str, Any] = next(call for call in found["calls"] if call["role"] == "primary")
    return call


def _answers(report: Mapping[str, Any]) -> dict[str, int]:
    return {variant["name"]: variant["predictions"] for variant in report["variants"]}


def _counted(value: Any) -> Any:
    """Only what counts, whatever it is in."""
    if isinstance(value, dict):
        inner = {name: _counted(part) for name, part in value.items()}
        return {
            name: part for name, part in inner.items() if name in COUNTED or (isinstance(part, dict | list) and part)
        }
    return [_counted(part) for part in value] if isinstance(value, list) else value


def _differences(was: Any, now: Any, path: str = "") -> list[str]:
    """Where ``now`` says something else than ``was`` did; it may say more."""
    if isinstance(was, dict) and isinstance(now, dict):
        return [d for name in was for d in _differences(was[name], now.get(name, "gone"), f"{path}/{name}")]
    if isinstance(was, list) and isinstance(now, list) and len(was) == len(now):
        return [d for n, (a, b) in enumerate(zip(was, now, strict=True)) for d in _differences(a, b, f"{path}/{n}")]
    return [] if was == now else [f"{path}: {was} => {now}"]
