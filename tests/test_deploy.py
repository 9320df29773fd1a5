"""The files in ``deploy/`` are valid by the published schemas, and agree with each other and with the program."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from gateway.cli import run
from gateway.cli.exits import PROBLEM
from router.config.config import Config, parse
from router.config.spellings import address

DEPLOY = Path(__file__).parent.parent / "deploy"
KUBERNETES = "1.33"


def documents() -> Iterator[tuple[str, dict[str, Any]]]:
    for path in sorted((DEPLOY / "kubernetes").glob("*.yaml")):
        for document in yaml.safe_load_all(path.read_text()):
            yield f"{path.name} {document['kind']}", document


def one(kind: str) -> dict[str, Any]:
    [found] = [document for _, document in documents() if document["kind"] == kind]
    return found


def compose() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    return found


def configs() -> dict[str, Config]:
    given = {
        "compose": (DEPLOY / "turnout.toml").read_text(),
        "kubernetes": one("ConfigMap")["data"]["turnout.toml"],
    }
    return {name: parse(text, name) for name, text in given.items()}


@pytest.mark.parametrize(
    ("name", "document"), list(documents()), ids=lambda value: value if isinstance(value, str) else ""
)
def test_a_manifest_is_valid_and_has_no_field_that_is_unknown(name: str, document: dict[str, Any]) -> None:
    kubernetes_validate.validate(document, KUBERNETES, strict=True)


def test_the_check_of_manifests_finds_what_is_wrong() -> None:
    wrong = one("StatefulSet")
    wrong["spec"]["template"]["spec"]["containers"][0]["readinesProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, KUBERNETES, strict=True)


def test_the_compose_file_is_valid() -> None:
    schema = files("check_jsonschema") / "builtin_schemas/vendor/compose-spec.json"
    jsonschema.validate(compose(), json.loads(schema.read_text()))


@pytest.mark.parametrize("where", ["compose", "kubernetes"])
def test_the_configs_are_taken_without_a_warning_and_are_those_of_a_fleet(where: str) -> None:
    config = configs()[where]
    assert config.warnings == ()
    assert config.gateway.store.startswith("postgresql://")
    assert "@" in config.gateway.store
    assert not re.search(r":[^/]+@", config.gateway.store)  # no password in the file


@pytest.mark.parametrize("where", ["compose", "kubernetes"])
def test_the_configs_can_be_checked_where_their_secrets_are_not(
    where: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As in the pipeline of an operator who copies them."""
    file = DEPLOY / "turnout.toml"
    if where == "kubernetes":
        file = tmp_path / "turnout.toml"
        file.write_text(one("ConfigMap")["data"]["turnout.toml"])
    assert run(["check", "--no-secrets", "-c", str(file)]) == 0
    assert "valid" in capsys.readouterr().out
    assert run(["check", "-c", str(file)]) == PROBLEM


def test_the_manifests_agree_with_the_config_they_mount() -> None:
    gateway = configs()["kubernetes"].gateway
    pod = one("StatefulSet")["spec"]["template"]["spec"]
    [container] = pod["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {"http": address(gateway.listen)[1], "admin": address(gateway.admin)[1]}
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert gateway.data_dir == mounts["data"]
    for secret in (gateway.store_password_file, gateway.admin_token_file, gateway.feedback_token_file):
        assert secret is not None
        assert Path(secret).parent == Path(mounts["secrets"])
    assert Path(container["args"][-1]).parent == Path(mounts["config"])
    assert Path(container["args"][-1]).name in one("ConfigMap")["data"]
    assert pod["terminationGracePeriodSeconds"] * 1000 > gateway.drain_timeout_ms + 40_000
    assert (container["readinessProbe"]["httpGet"]["path"], container["livenessProbe"]["httpGet"]["path"]) == (
        "/-/readyz",
        "/-/livez",
    )


def test_what_the_manifests_name_of_each_other_is_there() -> None:
    stateful = one("StatefulSet")
    labels = stateful["spec"]["template"]["metadata"]["labels"].items()
    services = {document["metadata"]["name"]: document for _, document in documents() if document["kind"] == "Service"}
    assert stateful["spec"]["serviceName"] in services
    named = {port["name"] for port in stateful["spec"]["template"]["spec"]["containers"][0]["ports"]}
    for service in services.values():
        assert service["spec"]["selector"].items() <= labels
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= named
    assert one("PodDisruptionBudget")["spec"]["selector"]["matchLabels"].items() <= labels


def test_the_image_has_the_python_that_the_tests_run_on_and_a_compiled_turnout() -> None:
    lines = (DEPLOY / "Containerfile").read_text().splitlines()
    project = tomllib.loads((DEPLOY.parent / "pyproject.toml").read_text())["project"]
    python = project["requires-python"].removeprefix(">=")
    assert [line.split()[1] for line in lines if line.startswith("FROM")] == [f"python:{python}-slim"] * 2
    assert any("install" in line and " gcc " in line for line in lines)
    assert [line for line in lines if "pip install" in line and "TURNOUT_COMPILE=1 " not in line] == []


def test_compose_runs_three_nodes_with_directories_of_their_own() -> None:
    services, gateway = compose()["services"], configs()["compose"].gateway
    nodes = {name: service for name, service in services.items() if name.startswith("node-")}
    assert len(nodes) == 3
    kept = {volume for node in nodes.values() for volume in node["volumes"] if volume.endswith(f":{gateway.data_dir}")}
    assert len(kept) == 3
    balanced = re.findall(r"server (\S+):(\d+)", (DEPLOY / "balancer.conf").read_text())
    assert balanced == [(name, str(address(gateway.listen)[1])) for name in nodes]
    for secret in (gateway.store_password_file, gateway.admin_token_file, gateway.feedback_token_file):
        assert secret is not None
        assert Path(secret).name in compose()["secrets"]
    for backend in configs()["compose"].backends.values():
        for url in backend.urls:
            assert url.removeprefix("http://").split(":")[0] in services
            assert f"listen {url.rpartition(':')[2]};" in (DEPLOY / "model.conf").read_text()


@pytest.mark.skipif(shutil.which("nginx") is None, reason="nginx is not installed")
@pytest.mark.parametrize("name", ["balancer.conf", "model.conf"])
def test_nginx_takes_its_files(name: str, tmp_path: Path) -> None:
    text = re.sub(r"node-\d:", "127.0.0.1:", (DEPLOY / name).read_text())
    (tmp_path / name).write_text(f"pid {tmp_path}/pid;\nerror_log {tmp_path}/log;\n{text}")
    tested = subprocess.run(
        ["nginx", "-t", "-p", tmp_path, "-c", tmp_path / name], capture_output=True, text=True, timeout=20
    )
    assert tested.returncode == 0, tested.stderr
