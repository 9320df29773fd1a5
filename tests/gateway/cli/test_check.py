"""check, schema, explain and dashboards export: commands that need no running gateway."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gateway.cli import run
from gateway.cli.exits import PROBLEM, USAGE
from gateway.files.assignment_key import keep
from gateway.files.published import publish
from policies import Occasion, Weighted
from policies.types import Evidence
from router.assignment import AssignmentKey
from router.compile import compile_snapshot
from router.config.config import parse
from router.config.schema import json_schema
from router.snapshot import Snapshot
from tests.gateway.cli.running import write_config

BROKEN = """
[gateway]
listenn = "127.0.0.1:8080"

[backends.old]
url = "http://127.0.0.1:9001"

[routes.digits]
path = "/digits"
[routes.digits.policy]
kind = "single"
variant = "odl"
"""


def test_a_valid_file_says_what_it_holds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["check", "-c", str(write_config(tmp_path))]) == 0
    assert "valid, 4 routes, 2 backends, 2 metrics" in capsys.readouterr().out


def test_every_problem_is_listed_with_its_place_and_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "turnout.toml"
    path.write_text(BROKEN)
    assert run(["check", "-c", str(path)]) == PROBLEM
    text = capsys.readouterr().out
    assert f"{path}:3:1: error: gateway: unknown setting" in text
    assert '^^^^^ did you mean "old"?' in text
    assert text.splitlines()[-1] == "3 problems"


def test_problems_as_json_are_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "turnout.toml"
    path.write_text(BROKEN)
    assert run(["check", "--json", "-c", str(path)]) == PROBLEM
    found = json.loads(capsys.readouterr().out)
    assert (found["ok"], found["file"], len(found["diagnostics"])) == (False, str(path), 3)
    assert found["diagnostics"][0].keys() == {"file", "line", "column", "path", "message", "hint", "severity"}


def test_warnings_are_shown_and_are_no_problem(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_config(tmp_path, more='listen = "0.0.0.0:8080"')
    assert run(["check", "-c", str(path)]) == 0
    text = capsys.readouterr().out
    assert "warning:" in text
    assert text.splitlines()[-1].endswith("; 1 warning")
    assert run(["check", "--strict", "-c", str(path)]) == PROBLEM
    assert run(["check", "--strict", "-c", str(write_config(tmp_path))]) == 0


def test_a_file_that_is_not_there_is_a_problem_like_any_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["check", "-c", str(tmp_path / "none.toml")]) == PROBLEM
    assert "cannot be read: No such file or directory" in capsys.readouterr().out


def test_the_schema_is_that_of_the_reader(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["schema"]) == 0
    assert json.loads(capsys.readouterr().out) == json_schema()


def test_dashboards_are_written_where_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["dashboards", "export", str(tmp_path / "out")]) == 0
    written = [Path(line) for line in capsys.readouterr().out.splitlines()]
    assert all(path.is_file() for path in written)
    assert {path.name for path in written} == {"turnout.json", "rules.yaml", "prometheus.yaml", "README.md"}


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    assert run(["dashboards", "export", str(tmp_path / "file")]) == PROBLEM
    assert capsys.readouterr().err.startswith("turnout: error: ")


def test_without_secrets_the_file_alone_is_checked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_config(tmp_path, more='tls_cert_file = "/no"\ntls_key_file = "/no"\nunit_key_file = "/no"')
    path.write_text(path.read_text().replace('version = "2.0.0"', 'version = "2"\nrequest_headers = { a = "${NO}" }'))
    assert run(["check", "-c", str(path)]) == PROBLEM
    assert "/no" in capsys.readouterr().out
    assert run(["check", "--no-secrets", "-c", str(path)]) == 0
    path.write_text(path.read_text().replace('candidate = "new"', 'candidate = "nwe"'))
    capsys.readouterr()
    assert run(["check", "--no-secrets", "--json", "-c", str(path)]) == PROBLEM
    [found] = json.loads(capsys.readouterr().out)["diagnostics"]
    assert "nwe" in found["message"]


def explained(
    path: Path, capsys: pytest.CaptureFixture[str], route: str = "digits", unit: str = "user-1"
) -> dict[str, Any]:
    assert run(["explain", "--route", route, "--unit", unit, "--json", "-c", str(path)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert isinstance(found, dict)
    return found


KEY = "0123456789abcdef" * 4


def with_key(folder: Path, more: str = "") -> Path:
    """A configuration whose units are assigned by a key, as after a first start."""
    (folder / "data").mkdir(exist_ok=True)
    keep(folder / "data", KEY)
    return write_config(folder, more=more)


def compiled(path: Path) -> Snapshot:
    config, key = parse(path.read_text(), str(path)), AssignmentKey(KEY)
    return compile_snapshot(config, previous=None, evidence=lambda *_: Evidence(), now_ms=1, revision=41, key=key)


def test_a_unit_is_explained_by_the_plan_that_workers_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = with_key(tmp_path)
    route = compiled(path).routes["digits"]
    for unit in ("user-1", "user-2", "user-3", "user-4", "user-5"):
        found = explained(path, capsys, unit=unit)
        decision = route.plan.decide(Occasion(route.salt, unit, "whatever"))
        assert (found["variant"],) == decision.answering
        assert (found["probability"], found["reason"]) == (decision.propensity, "unit")
        assert found["plan"] == {"source": "configuration", "revision": 0}


def test_a_published_plan_of_this_configuration_is_what_counts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = with_key(tmp_path)
    snapshot = compiled(path)
    publish(tmp_path / "data" / "snapshot.json", snapshot)
    assert explained(path, capsys)["plan"] == {"source": "published", "revision": 41}
    path.write_text(path.read_text().replace("share = 0.25", "share = 0.5"))
    assert explained(path, capsys)["plan"]["source"] == "configuration"
    (tmp_path / "data" / "snapshot.json").write_text("{")
    assert explained(path, capsys)["plan"]["source"] == "configuration"


def test_a_route_that_decides_per_request_has_shares_and_no_variant(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = explained(write_config(tmp_path), capsys, route="bandit")
    assert (found["per_request"], found["variant"], found["probability"]) == (True, None, None)
    assert found["shares"] == {"old": 0.5, "new": 0.5}
    assert isinstance(compiled(write_config(tmp_path)).routes["bandit"].plan, Weighted)


def test_an_empty_unit_is_none_and_each_request_stands_in(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As in the router: requests with an empty header have no unit; they are not all the same user."""
    found = explained(write_config(tmp_path), capsys, unit="")
    assert (found["per_request"], found["variant"], found["reason"]) == (True, None, "request")


def test_copies_and_merged_lists_are_explained_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_config(tmp_path)
    copied = explained(path, capsys, route="shadowed")
    assert (copied["variant"], copied["reason"], copied["mirrored"]) == ("old", "only", ["new"])
    merged = explained(path, capsys, route="search")
    assert (merged["variant"], merged["answering"], merged["reason"]) == (None, ["old", "new"], "draft")


@pytest.mark.parametrize(
    ("route", "words"),
    [
        ("digits", "the unit's hash falls to it"),
        ("bandit", "each request is a fresh chance"),
        ("shadowed", "copies to"),
        ("search", "every ranker answers"),
    ],
)
def test_an_explanation_is_in_words(route: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["explain", "--route", route, "--unit", "u", "-c", str(with_key(tmp_path))]) == 0
    text = capsys.readouterr().out
    assert words in text
    assert "without evidence" in text


def test_before_the_first_start_nobody_can_tell_what_hangs_on_the_key(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_config(tmp_path)
    found = explained(path, capsys)
    assert (found["variant"], found["per_request"], found["assigned"]) == (None, False, False)
    assert found["shares"] == {"old": 0.75, "new": 0.25}
    assert explained(path, capsys, route="shadowed")["variant"] == "old"  # the same under any key
    assert run(["explain", "digits", "--unit", "u", "-c", str(path)]) == 0
    assert "not decided yet" in capsys.readouterr().out


def test_explain_says_what_is_wrong_with_a_key_that_it_cannot_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_config(tmp_path, more='assignment_key_file = "/nowhere/key"')
    assert run(["explain", "digits", "--unit", "u", "-c", str(path)]) == PROBLEM
    assert "/nowhere/key cannot be read" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["digits"], 0),
        (["--route", "digits"], 0),
        (["digits", "--route", "digits"], 0),
        (["digits", "--route", "search"], USAGE),
        ([], USAGE),
    ],
)
def test_a_route_is_named_alike_by_explain_and_report(
    arguments: list[str], code: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = with_key(tmp_path)
    assert run(["explain", *arguments, "--unit", "u", "-c", str(path)]) == code
    told = capsys.readouterr().err
    assert (code == 0) == (told == "")
    if arguments:  # report without a route reports all of them; and no gateway answers here
        assert run(["report", *arguments, "-c", str(path)]) == (code or PROBLEM)


def test_an_unknown_route_is_not_explained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["explain", "--route", "digit", "--unit", "u", "-c", str(write_config(tmp_path))]) == PROBLEM
    assert 'no route is named "digit"; did you mean "digits"?' in capsys.readouterr().err


def test_asking_needs_no_secrets_of_the_running_gateway(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An operator's shell does not have the environment of the service."""
    path = with_key(tmp_path, more='feedback_token_file = "/nowhere/token"')
    assert run(["check", "-c", str(path)]) == PROBLEM
    capsys.readouterr()
    assert explained(path, capsys)["variant"]
