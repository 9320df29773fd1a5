"""config show prints policies that can be put into the file, with what was done by hand in comments."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.cli import run
from gateway.cli.remote.config import _key, _toml, filled, in_line
from gateway.process.effective import effective
from policies.rollouts.standing import Standing
from router.compile import replan
from router.config.config import parse
from tests.router.builders import CANARY, SMALL, changed, snapshot_of

EVIDENCE: Any = None


def found(standing: Standing | None = None, **overrides: Any) -> dict[str, Any]:
    """What the API says of a route that stands so."""
    snapshot = snapshot_of(SMALL)
    if standing is not None:
        snapshot = replan(snapshot, parse(SMALL, "turnout.toml"), "digits", EVIDENCE, 9, standing, 5)
    acts = {name: {"to": to, "who": "ann", "why": "it lies"} for name, to in overrides.items()}
    return {**effective(snapshot), "overrides": acts}


POLICY = tomllib.loads(SMALL)["routes"]["digits"]["policy"]
#: What a guardrail did is of the versions; what a person did, of the policy's settings: only that is told here.
OUT: dict[str, Any] = {"held": {"v2": "out"}, "of": {"v2": "2"}, "policy": "canary", "number": 1}


def test_without_an_act_it_is_what_the_file_says() -> None:
    assert in_line("digits", POLICY, found()) == (POLICY, [])
    assert in_line("digits", POLICY, None) == (POLICY, [])


def test_what_was_done_by_hand_is_a_policy_that_does_the_same_by_itself() -> None:
    answer = found(Standing(state="rolled_back", **OUT))
    answer["routes"]["digits"]["standing"]["detail"] = {"by_hand": {"who": "ann", "verb": "rollback"}}
    policy, said = in_line("digits", POLICY, answer)
    assert policy == {"kind": "single", "variant": "v1"}
    assert said[0] == "ann did by hand: rollback"
    assert "v2 gets nothing" in said
    policy, said = in_line("digits", POLICY, found(digits="v2"))
    assert policy == {"kind": "single", "variant": "v2"}
    assert said == ["frozen to v2 by ann: it lies; `turnout unfreeze` ends that"]
    floor: dict[str, Any] = {**OUT, "held": {"v2": "floor"}}
    policy, said = in_line("digits", POLICY, found(Standing(**floor)))
    assert policy == {"kind": "ab", "shares": {"v1": 0.99, "v2": 0.01}}
    text = "".join(f"{key} = {_toml(value)}\n" for key, value in policy.items())
    parse(changed(SMALL, (CANARY, 'baseline = "v1"\n[routes.digits.policy]\n' + text)), "turnout.toml")


def test_a_filled_slot_is_the_version_that_the_file_could_have() -> None:
    answer = found() | {"slots": {"v2": {"version": "7", "who": "mlflow", "at_ms": 1}}}
    said, text = (lines := list(filled(answer)))[0], "\n".join(lines)
    assert said == "# mlflow filled the slot; these two in the file do the same"
    backend = answer["backends"]["v2"]
    assert tomllib.loads(text) == {"backends": {"v2": {"url": backend["urls"][0], "version": "7"}}}
    assert list(filled(None)) == list(filled(found())) == []


texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x7f"))
values = st.recursive(
    st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=40)
@given(st.dictionaries(texts, values, max_size=4))
def test_what_is_printed_is_read_back(settings: dict[str, Any]) -> None:
    text = "".join(f"{_key(key)} = {_toml(value)}\n" for key, value in settings.items())
    assert tomllib.loads(text) == settings


def test_it_prints_the_file_without_a_gateway(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "turnout.toml").write_text(SMALL)
    assert run(["config", "show", "-c", str(tmp_path / "turnout.toml")]) == 0
    assert tomllib.loads(capsys.readouterr().out)["routes"]["digits"]["policy"] == POLICY
    assert run(["config", "show", "--effective", "-c", str(tmp_path / "turnout.toml")]) == 1
