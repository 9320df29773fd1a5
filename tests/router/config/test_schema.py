"""The schema that editors use accepts and refuses what the reader of the file does."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from router.config.file import GATEWAY
from router.config.schema import json_schema
from tests.router.builders import CANARY, ROUTE, SMALL, changed, messages_of

EXAMPLE = (Path(__file__).parents[3] / "config.example.toml").read_text()


def complaints(text: str) -> list[str]:
    return [error.message for error in Draft202012Validator(json_schema()).iter_errors(tomllib.loads(text))]


def test_it_is_a_schema() -> None:
    Draft202012Validator.check_schema(json_schema())


@pytest.mark.parametrize("text", [SMALL, EXAMPLE, "#:schema ./turnout.schema.json\n" + SMALL])
def test_a_good_file_satisfies_it(text: str) -> None:
    assert complaints(text) == []


@pytest.mark.parametrize(
    "text",
    [
        changed(SMALL, ("[routes.digits]", "[route.digits]")),
        changed(SMALL, ("candidate =", "canry =")),
        changed(SMALL, ('kind = "canary"', 'kind = "canry"')),
        changed(SMALL, ("share = 0.05", 'share = "5 %"')),
        changed(SMALL, ('kind = "label"', 'kind = "labels"')),
        changed(SMALL, ('url = "http://127.0.0.1:9001"', "")),
        changed(SMALL, ('url = "http://127.0.0.1:9001"', 'url = "http://a"\nurls = ["http://b"]')),
        changed(SMALL, (ROUTE, ROUTE + 'mirrors = [{ variant = "v3", share = 2 }]\n')),
        changed(SMALL, (ROUTE, ROUTE + "methods = []\n")),
        changed(SMALL, (CANARY, "")),
        "[gateway]\nworkers = 0\n" + SMALL,
        "schema_version = 2\n" + SMALL,
        "",
    ],
)
def test_what_it_finds_wrong_is_refused_as_well(text: str) -> None:
    assert complaints(text)
    assert messages_of(text)


def test_every_key_is_described_and_says_its_default() -> None:
    schema = json_schema()
    for name, table in schema["$defs"].items():
        for key, value in table.get("properties", {}).items():
            assert value.get("description"), f"{name}.{key}"
    gateway = schema["$defs"]["gateway"]["properties"]
    for key, setting in GATEWAY.settings.items():
        assert gateway[key].get("default", ()) == (() if setting.default is None else setting.default)


def test_every_kind_of_policy_is_in_it_with_its_own_keys() -> None:
    schema = json_schema()
    kinds: dict[str, Any] = {
        table["properties"]["kind"]["const"]: set(table["properties"])
        for name, table in schema["$defs"].items()
        if name.startswith("policy_")
    }
    assert kinds["canary"] == {"kind", "stable", "candidate", "share", "sticky", "salt"}
    assert list(kinds) == ["single", "shadow", "canary", "rollout", "ab", "interleave", "thompson"]


def test_a_reference_resolves() -> None:
    schema = json_schema()
    references = [part.split('"')[1] for part in str(schema).replace("'", '"').split('"$ref": ')[1:]]
    assert references
    assert all(reference.removeprefix("#/$defs/") in schema["$defs"] for reference in references)
