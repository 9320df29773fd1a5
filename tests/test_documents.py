"""The documents are true: their configs are valid, their commands exist, their tables name what exists."""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
import tomllib
from pathlib import Path

import pytest

import policies
from gateway.cli import run
from gateway.proxy.feedback.validate import FIELDS
from gateway.store.rows.feedback_status import STATUSES
from router.config.config import parse

ROOT = Path(__file__).parent.parent
PAGES = tuple(sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md")))
DOCUMENTS = ("README.md", "ARCHITECTURE.md", "CHANGELOG.md", "loadtests/README.md", *PAGES)

FEEDBACK = "docs/reference/feedback.md"

#: Run nothing that serves, listens or takes minutes; everything else is run as it stands.
LONG = {"serve", "demo"}


def blocks(language: str) -> list[tuple[str, str]]:
    """Every fenced block of a language, as (document, content)."""
    found = []
    for name in DOCUMENTS:
        text = (ROOT / name).read_text()
        found += [(name, block) for block in re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)]
    return found


def commands() -> list[list[str]]:
    """Every shell command of the documents, continuation lines joined."""
    lines = [line for _, block in blocks("sh") for line in block.replace("\\\n", " ").splitlines()]
    return [shlex.split(line, comments=True) for line in lines if line.strip()]


def table(heading: str, document: str = "README.md") -> dict[str, str]:
    """The rows of a document's table whose first heading is this, as first cell → last cell."""
    rows = (ROOT / document).read_text().partition(f"\n| {heading} |")[2].partition("\n\n")[0].splitlines()[2:]
    cells = [row.strip("|").split("|") for row in rows]
    return {row[0].strip(" `"): row[-1].strip() for row in cells}


@pytest.mark.parametrize(("document", "block"), blocks("toml"))
def test_every_config_in_the_documents_is_taken_without_a_warning(document: str, block: str) -> None:
    assert parse(block, document).warnings == ()


def test_the_first_config_is_fifteen_lines() -> None:
    """More would not be read; the rest is for config.example.toml."""
    assert len(blocks("toml")[0][1].splitlines()) <= 15


def test_every_make_target_in_the_documents_exists() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    asked = [command[1:] for command in commands() if command[0] == "make"]
    assert asked
    for (target,) in asked:
        assert target in targets


def test_every_command_in_the_documents_starts_with_a_known_program() -> None:
    assert {command[0] for command in commands()} <= {"make", "curl", "python3", ".venv/bin/pip", ".venv/bin/turnout"}


def test_every_extra_in_the_documents_is_one() -> None:
    known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"].keys()
    text = "".join((ROOT / name).read_text() for name in DOCUMENTS)
    named = re.findall(r"(?:turnout|\.)\[([a-z,]+)\]", text)
    assert named
    assert {extra for one in named for extra in one.split(",")} <= known


def test_every_turnout_command_in_the_documents_is_understood(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Run for real in an empty folder with README's own config. Those that ask the running gateway find none."""
    (tmp_path / "turnout.toml").write_text(blocks("toml")[0][1])
    monkeypatch.chdir(tmp_path)
    for _, *arguments in (command for command in commands() if command[0] == ".venv/bin/turnout"):
        if arguments[0] in LONG:
            arguments = [arguments[0], "--help"]
        code, (said, errors) = run(arguments), capsys.readouterr()
        expected = 1 if arguments[0] in {"report", "power", "events", "freeze", "unfreeze"} else 0
        assert code == expected, (arguments, said, errors)
        assert "Traceback" not in errors


def test_the_feedback_in_the_documents_is_feedback() -> None:
    sent = [command for command in commands() if command[0] == "curl" and "/-/feedback" in " ".join(command)]
    assert sent
    for command in sent:
        assert any(argument.endswith("/-/feedback") for argument in command)
        (event,) = json.loads(command[command.index("-d") + 1])
        assert event.keys() == {"prediction_id", "metric", "value"}


def test_every_other_request_in_the_documents_is_one_of_the_first_config() -> None:
    config = tomllib.loads(blocks("toml")[0][1])
    (route,) = config["routes"].values()
    sent = [command for command in commands() if command[0] == "curl" and "/-/feedback" not in " ".join(command)]
    assert sent
    for command in sent:
        assert f"http://127.0.0.1:8080{route['path']}" in command
        assert command[command.index("-H") + 1].startswith(route["unit"].removeprefix("header:") + ": ")
        assert isinstance(json.loads(command[command.index("-d") + 1]), dict)


def test_the_table_of_paths_names_each_path_of_the_admin_port() -> None:
    sources = (ROOT / "gateway/admin").rglob("*.py")
    paths = {path for source in sources for path in re.findall(r'Route\("([^"]+)"', source.read_text())}
    shown = {path.replace("{prediction}", "ID") for path in paths if "static" not in path}
    shown = {re.sub(r"{(\w+)}", lambda found: found[1].upper(), path) for path in shown}
    named = ", ".join(table("path", "docs/reference/http.md"))
    assert {path.strip("`") for path in named.split(", ")} == shown


def test_the_table_of_policies_names_each_kind_and_its_settings() -> None:
    named = table("policy")
    assert list(named) == [policy.kind for policy in policies.POLICIES]
    for policy in policies.POLICIES:
        settings = {field.name for field in dataclasses.fields(policy)} - {"sticky"}  # type: ignore[arg-type]
        assert set(re.findall(r"`(\w+)`", named[policy.kind])) == settings


def test_the_table_of_statuses_names_each_status() -> None:
    assert table("status", FEEDBACK) == {status: meaning.meaning for status, meaning in STATUSES.items()}


def test_the_table_of_fields_names_each_field_of_an_event() -> None:
    assert sorted(re.findall(r"\w+", " ".join(table("field", FEEDBACK)))) == sorted(FIELDS)


def test_the_index_of_the_documentation_names_each_page() -> None:
    index = (ROOT / "docs/README.md").read_text()
    assert [page for page in PAGES if f"({page.removeprefix('docs/')})" not in index] == ["docs/README.md"]


def test_the_readme_stays_a_tour() -> None:
    """Reference material belongs in docs."""
    assert len((ROOT / "README.md").read_text().splitlines()) < 160


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_link_to_a_file_leads_somewhere(document: str) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", (ROOT / document).read_text()):
        if "://" not in target:
            assert ((ROOT / document).parent / target).exists(), target


def test_the_licence_is_the_one_that_is_declared() -> None:
    licence = (ROOT / "LICENSE").read_text()
    assert "Apache License" in licence
    assert "END OF TERMS AND CONDITIONS" in licence
    assert 'license = "Apache-2.0"' in (ROOT / "pyproject.toml").read_text()
