"""A valid file becomes values, key by key; secrets and unreadable files are refused in words."""

from __future__ import annotations

import os
from dataclasses import fields
from pathlib import Path

import pytest

from policies import Canary
from router.config.config import MAX_BYTES, ConfigError, load
from router.config.file import BACKEND, GATEWAY, MIRROR, ROUTE, metric_table
from router.snapshot import Backend, DeclaredTest, Gateway, Guardrail, Metric, Route, RouteMirror
from tests.router.builders import SMALL, changed, config_of, messages_of


def test_a_file_without_a_gateway_has_its_defaults() -> None:
    assert config_of().gateway == Gateway()


def test_every_key_of_the_gateway_is_the_field_of_that_name_and_has_its_default() -> None:
    defaults = {f.name: f.default for f in fields(Gateway)}
    assert {name: setting.default for name, setting in GATEWAY.settings.items()} == defaults


def test_a_gateway_is_what_the_file_says() -> None:
    text = '[gateway]\nworkers = 4\njournal_full = "refuse"\ntrusted_proxies = ["10.0.0.0/8", "::1"]\n'
    config = config_of(text + SMALL)
    assert config.gateway == Gateway(workers=4, journal_full="refuse", trusted_proxies=("10.0.0.0/8", "::1"))


def test_a_head_smaller_than_the_longest_target_needs_a_shorter_target() -> None:
    """Reported even if max_target_bytes has its default, since both values would be enforced."""
    [message] = messages_of("[gateway]\nmax_header_bytes = 4096\n" + SMALL)
    assert "max_target_bytes must be at most max_header_bytes, 4096, got 8192" in message
    assert config_of("[gateway]\nmax_header_bytes = 4096\nmax_target_bytes = 4096\n" + SMALL)


def test_a_backend_is_its_urls_with_the_defaults_of_its_fields() -> None:
    assert config_of().backends["v1"] == Backend(name="v1", urls=("http://127.0.0.1:9001",), version="1", model="v1")


def test_every_key_of_a_backend_arrives() -> None:
    text = """
[backends.b]
urls = ["http://a", "https://b:1/base/"]
path = "/p"
model = "m"
version = "2"
reported_version = "/v"
timeout_ms = 1
connect_timeout_ms = 2
idle_timeout_ms = 3
total_timeout_ms = 5
max_concurrency = 4
max_waiting = 6
wait_timeout_ms = 7
retries = 8
eject_after = 9
eject_ms = 10
max_ejected_share = 0.25
health_path = "/healthz"
health_interval_ms = 120
health_timeout_ms = 12
unhealthy_after = 13
healthy_after = 14
tls_ca_file = "ca.pem"
request_headers = { Authorization = "Bearer ${TOKEN}", x-a = "${file:/f}" }
"""
    assert config_of(SMALL + text).backends["b"] == Backend(
        name="b",
        urls=("http://a", "https://b:1/base"),
        path="/p",
        model="m",
        version="2",
        reported_version="/v",
        timeout_ms=1,
        connect_timeout_ms=2,
        idle_timeout_ms=3,
        total_timeout_ms=5,
        max_concurrency=4,
        max_waiting=6,
        wait_timeout_ms=7,
        retries=8,
        eject_after=9,
        eject_ms=10,
        max_ejected_share=0.25,
        health_path="/healthz",
        health_interval_ms=120,
        health_timeout_ms=12,
        unhealthy_after=13,
        healthy_after=14,
        tls_ca_file="ca.pem",
        request_headers=(("authorization", "Bearer ${TOKEN}"), ("x-a", "${file:/f}")),
    )


def metric_of(text: str) -> Metric:
    return config_of(f"{SMALL}\n[metrics.m]\n{text}").metrics["m"]


@pytest.mark.parametrize(
    ("text", "score", "better", "fold"),
    [
        ('kind = "event"', None, "higher", "any"),
        ('kind = "value"', None, "higher", "last"),
        ('kind = "label"', "match", "higher", "last"),
        ('kind = "label"\nscore = "absolute_error"', "absolute_error", "lower", "last"),
    ],
)
def test_the_defaults_of_a_metric_follow_from_its_kind(text: str, score: str | None, better: str, fold: str) -> None:
    metric = metric_of(text)
    assert (metric.score, metric.better, metric.fold) == (score, better, fold)
    assert (metric.window_ms, metric.mature, metric.missing, metric.range) == (86_400_000, "window", None, None)


def test_every_key_of_a_metric_arrives() -> None:
    metric = metric_of(
        'kind = "value"\nbetter = "lower"\nwindow = "90s"\nmature = "arrival"\n'
        'missing = "exclude"\nfold = "max"\nrange = [0, 2]\ncap = 1.5'
    )
    assert metric == Metric(
        name="m",
        kind="value",
        score=None,
        better="lower",
        window_ms=90_000,
        mature="arrival",
        missing=None,
        fold="max",
        range=(0.0, 2.0),
        cap=1.5,
        definition=metric.definition,
    )


EVENT = 'kind = "event"\nmissing = 0'


@pytest.mark.parametrize(
    "text",
    [
        'kind = "value"\nmissing = 0',
        'kind = "label"\nmissing = 0',
        'kind = "event"\nmissing = 1',
        'kind = "event"',
        f'{EVENT}\nwindow = "1h"',
        f'{EVENT}\nfold = "last"',
    ],
)
def test_a_definition_changes_with_everything_that_changes_a_number(text: str) -> None:
    assert metric_of(text).definition != metric_of(EVENT).definition


@pytest.mark.parametrize("text", ['mature = "arrival"', "cap = 200"])
def test_a_definition_changes_with_what_cannot_stand_beside_missing(text: str) -> None:
    assert metric_of(f'kind = "value"\n{text}').definition != metric_of('kind = "value"').definition


@pytest.mark.parametrize("text", [f'{EVENT}\nbetter = "lower"', f'{EVENT}\nfold = "any"', f'{EVENT}\nwindow = "24h"'])
def test_a_definition_stays_when_no_number_changes(text: str) -> None:
    assert metric_of(text).definition == metric_of(EVENT).definition


def test_every_key_of_a_route_arrives() -> None:
    text = """
[routes.r]
path = "/r/*"
methods = ["GET", "POST"]
headers = { X-Stage = "beta" }
unit = "cookie:u"
key = "body:/id"
features = { b = "query:b", a = "header:A" }
prediction = "/p"
metrics = ["click", "correct"]
primary_metric = "correct"
baseline = "v2"
mirrors = [{ variant = "v3", share = 0.5, methods = ["GET"] }, { variant = "v2" }]
fallback = "v1"
expose_variant = true
allow_force = true
policy = { kind = "canary", stable = "v1", candidate = "v2", share = 1, sticky = false, salt = "s" }
test = { smallest_effect = 0.02, expected_units = 9000, alpha = 0.1 }
guardrails = [{ metric = "click", worse_by = 0.01, alpha = 0.02 }, { metric = "latency_ms.p95", limit = 300 }]
"""
    route = config_of(SMALL + text).routes["r"]
    assert route.policy == Canary(stable="v1", candidate="v2", share=1.0, sticky=False)
    assert (route.path, route.methods, route.headers) == ("/r/*", ("GET", "POST"), (("x-stage", "beta"),))
    assert (route.unit, route.key) == ("cookie:u", "body:/id")
    assert route.features == (("b", "query:b"), ("a", "header:A"))
    assert (route.prediction, route.metrics, route.primary_metric) == ("/p", ("click", "correct"), "correct")
    assert (route.baseline, route.fallback, route.salt) == ("v2", "v1", "s")
    assert (route.expose_variant, route.allow_force) == (True, True)
    assert route.test == DeclaredTest(smallest_effect=0.02, expected_units=9_000, alpha=0.1)
    assert route.guardrails == (
        Guardrail(metric="click", worse_by=0.01, alpha=0.02),
        Guardrail(metric="latency_ms.p95", limit=300.0),
    )
    assert route.mirrors == (
        RouteMirror(variant="v3", share=0.5, methods=("GET",)),
        RouteMirror(variant="v2", share=1.0, methods=()),
    )


def test_what_a_route_leaves_out_follows_from_the_rest() -> None:
    route = config_of().routes["digits"]
    assert (route.salt, route.baseline, route.primary_metric) == ("digits", "v1", "correct")


def test_a_list_of_features_names_each_by_its_reference() -> None:
    text = changed(SMALL, ('metrics = ["correct"', 'features = ["query:a", "body:/b"]\nmetrics = ["correct"'))
    assert config_of(text).routes["digits"].features == (("query:a", "query:a"), ("body:/b", "body:/b"))


def test_a_default_stands_in_one_place() -> None:
    """The tables take their defaults from the classes; the exceptions are keys without a field."""
    for table, owner in ((BACKEND, Backend), (MIRROR, RouteMirror), (ROUTE, Route)):
        own = {f.name for f in fields(owner)}
        assert {name for name, setting in table.settings.items() if name not in own} <= {"url", "policy"}
    written = {"window", "window_before"}
    own = {"name", "definition", "window_ms", "before_ms"}
    assert set(metric_table().settings) | own == {f.name for f in fields(Metric)} | written


def test_the_hash_is_that_of_the_content() -> None:
    rewritten = (
        "# a comment\n" + SMALL.replace(" = ", "   =   ").replace("0.05", "5e-2").replace('"v1"', "'v1'") + "\n\n"
    )
    assert config_of(rewritten).hash == config_of().hash
    assert config_of(changed(SMALL, ("0.05", "0.06"))).hash != config_of().hash


def test_a_byte_order_mark_is_overlooked(tmp_path: Path) -> None:
    path = tmp_path / "turnout.toml"
    path.write_bytes(b"\xef\xbb\xbf" + SMALL.encode())
    assert load(path).hash == config_of().hash


def refused(path: Path) -> str:
    with pytest.raises(ConfigError) as error:
        load(path, environ={})
    return str(error.value)


def test_what_cannot_be_read_is_said_in_a_line(tmp_path: Path) -> None:
    path = tmp_path / "turnout.toml"
    assert refused(path) == f"{path}:1:1: error: cannot be read: No such file or directory"
    assert refused(tmp_path) == f"{tmp_path}:1:1: error: cannot be read: Is a directory"
    assert "cannot be read" in refused(Path("a\0b"))
    path.write_bytes(b"a = 1\nb = '\xff'\n")
    assert refused(path).startswith(f"{path}:2:6: error: not UTF-8 text")
    path.write_bytes("a = 1".encode("utf-16"))
    assert refused(path).startswith(f"{path}:1:1: error: not UTF-8 text")
    path.write_bytes(b"#" * (MAX_BYTES + 1))
    assert "is larger than" in refused(path)
    path.write_bytes(b"")
    assert "has no routes" in refused(path)


def test_secrets_that_are_not_there_are_refused_where_they_are_named(tmp_path: Path) -> None:
    (tmp_path / "full").write_text("s3cret\n")
    (tmp_path / "empty").write_text("\n")
    path = tmp_path / "turnout.toml"
    path.write_text(
        f"""[gateway]
admin_token_file = "{tmp_path}/full"
feedback_token_file = "{tmp_path}/empty"
force_token_file = "{tmp_path}/none"
{SMALL}
[backends.b]
url = "http://b"
version = "1"
request_headers = {{ a = "${{SET}}", B = "${{UNSET}}", c = "${{file:{tmp_path}/full}}", d = "${{file:{tmp_path}}}" }}
"""
    )
    with pytest.raises(ConfigError) as error:
        load(path, environ={"SET": "x"})
    assert [(d.line, d.message) for d in error.value.diagnostics] == [
        (3, f'gateway.feedback_token_file: the file "{tmp_path}/empty" is empty'),
        (4, f'gateway.force_token_file: the file "{tmp_path}/none" cannot be read: No such file or directory'),
        (43, "backends.b.request_headers.B: the environment variable UNSET is not set"),
        (43, f'backends.b.request_headers.d: the file "{tmp_path}" cannot be read: Is a directory'),
    ]


def test_secrets_that_no_worker_could_send_are_refused_without_telling_them(tmp_path: Path) -> None:
    """Otherwise the controller would publish a snapshot that every worker refuses."""
    (tmp_path / "lines").write_text("hush\nhush\n")
    (tmp_path / "bytes").write_bytes(b"hush\xff")
    path = tmp_path / "turnout.toml"
    path.write_text(
        f"""[gateway]
force_token_file = "{tmp_path}/bytes"
{SMALL}
[backends.b]
url = "http://b"
version = "1"
request_headers = {{ a = "${{SET}}", b = "${{file:{tmp_path}/lines}}", c = "${{file:{tmp_path}/bytes}}" }}
"""
    )
    with pytest.raises(ConfigError) as error:
        load(path, environ={"SET": "hush\r\n"})
    several = "has more than one line, and a header has one"
    assert [d.message for d in error.value.diagnostics] == [
        f'gateway.force_token_file: the file "{tmp_path}/bytes" is not UTF-8 text',
        f"backends.b.request_headers.a: the environment variable SET {several}",
        f'backends.b.request_headers.b: the file "{tmp_path}/lines" {several}',
        f'backends.b.request_headers.c: the file "{tmp_path}/bytes" is not UTF-8 text',
    ]


def test_secrets_never_enter_a_config(tmp_path: Path) -> None:
    (tmp_path / "turnout.toml").write_text(
        SMALL + '\n[backends.b]\nurl = "http://b"\nversion = "1"\nrequest_headers = { a = "Bearer ${TOKEN}" }\n'
    )
    assert "s3cret" not in repr(load(tmp_path / "turnout.toml", environ={"TOKEN": "s3cret"}))


def test_parsing_reads_nothing_but_the_text() -> None:
    assert config_of('[gateway]\nadmin_token_file = "/no/such/file"\n' + SMALL)
    assert "/no/such/file" not in os.environ
