"""Which requests the admin port answers, by token, host and origin; and which headers every answer has."""

from __future__ import annotations

import base64
import os
from pathlib import Path

import pytest

from gateway.admin.guard import hostname, is_loopback
from gateway.admin.identity import credential
from tests.gateway.admin.fake import ask, control

PATHS = ["/", "/routes/digits", "/api/v1/routes", "/api/v1/config", "/api/v1/events", "/metrics", "/static/console.css"]


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text("s3cret\n")
    return path


def basic(password: str, user: str = "anyone") -> dict[str, str]:
    return {"authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


@pytest.mark.parametrize("path", PATHS)
def test_without_a_token_file_everything_is_open(path: str) -> None:
    assert ask(control(), path).status_code == 200


@pytest.mark.parametrize("path", [*PATHS, "/nowhere"])
def test_with_a_token_file_nothing_is_shown_without_the_token(path: str, token_file: Path) -> None:
    fake = control(admin_token_file=str(token_file))
    answer = ask(fake, path)
    assert answer.status_code == 401
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["www-authenticate"].startswith("Basic ")
    assert ask(fake, path, headers={"authorization": "Bearer s3cret"}).status_code in {200, 404}
    assert ask(fake, path, headers=basic("s3cret")).status_code in {200, 404}


@pytest.mark.parametrize("path", ["/livez", "/readyz"])
def test_health_needs_no_token(path: str, token_file: Path) -> None:
    assert ask(control(admin_token_file=str(token_file)), path).status_code == 200


@pytest.mark.parametrize(
    "authorization",
    ["Bearer", "Bearer ", "Bearer wrong", "Bearer s3cret2", "Basic !", "Basic czNjcmV0", "s3cret", "Digest s3cret"],
)
def test_what_is_not_the_token_is_refused(authorization: str, token_file: Path) -> None:
    fake = control(admin_token_file=str(token_file))
    assert ask(fake, "/metrics", headers={"authorization": authorization}).status_code == 401


def test_a_token_can_be_rotated_without_a_restart(token_file: Path) -> None:
    fake = control(admin_token_file=str(token_file))
    assert ask(fake, "/metrics", headers={"authorization": "Bearer s3cret"}).status_code == 200
    token_file.write_text("n3w-token")
    os.utime(token_file, ns=(1, 1))
    assert ask(fake, "/metrics", headers={"authorization": "Bearer s3cret"}).status_code == 401
    assert ask(fake, "/metrics", headers={"authorization": "Bearer n3w-token"}).status_code == 200


def test_several_tokens_are_valid_while_they_are_rotated(token_file: Path) -> None:
    token_file.write_text("n3w\ns3cret\n")
    fake = control(admin_token_file=str(token_file))
    for token, status in (("n3w", 200), ("s3cret", 200), ("n3w\ns3cret", 401), ("", 401)):
        assert ask(fake, "/metrics", headers=basic(token)).status_code == status


def test_a_token_that_reads_changes_nothing(token_file: Path, tmp_path: Path) -> None:
    reads = tmp_path / "reads"
    reads.write_text("l00k")
    fake = control(admin_token_file=str(token_file), admin_read_token_file=str(reads))
    for path in PATHS:
        assert ask(fake, path, headers={"authorization": "Bearer l00k"}).status_code == 200
    for path in ("/-/reload", "/api/v1/privacy/erase", "/api/v1/privacy/export"):
        refused = ask(fake, path, method="POST", headers=basic("l00k"))
        assert (refused.status_code, refused.json()["detail"][:22]) == (403, "this token reads and c")
        assert ask(fake, path, method="POST", headers=basic("s3cret")).status_code != 403
        assert ask(fake, path, method="POST").status_code == 401
    token_file.unlink()
    assert ask(fake, "/metrics", headers=basic("l00k")).status_code == 200
    assert ask(fake, "/metrics", headers=basic("s3cret")).status_code == 503


def test_metrics_may_be_open_while_the_rest_is_not(token_file: Path) -> None:
    fake = control(admin_token_file=str(token_file), metrics_open=True)
    assert ask(fake, "/metrics").status_code == 200
    for path in ("/", "/api/v1/routes", "/metrics/", "/api/v1/config"):
        assert ask(fake, path).status_code == 401


@pytest.mark.parametrize("content", [None, "", " \n"])
def test_with_a_token_file_without_a_token_every_request_is_refused(content: str | None, tmp_path: Path) -> None:
    path = tmp_path / "token"
    if content is not None:
        path.write_text(content)
    fake = control(admin_token_file=str(path))
    for authorization in ("Bearer ", "Bearer", "Bearer x"):
        assert ask(fake, "/metrics", headers={"authorization": authorization}).status_code in {401, 503}


@pytest.mark.parametrize("host", ["localhost:9090", "127.0.0.1:9090", "127.0.0.1", "[::1]:9090", "admin.localhost"])
def test_a_port_bound_to_loopback_answers_to_loopback_names(host: str) -> None:
    assert ask(control(), "/livez", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:9090", "127.0.0.1.evil.example", "192.168.0.4:9090", ""]
)
def test_a_port_bound_to_loopback_answers_to_no_other_name(host: str) -> None:
    """A page of evil.example can point its own name at 127.0.0.1 and then read what is not its own (DNS rebinding)."""
    for path in ("/livez", "/api/v1/routes"):
        assert ask(control(), path, headers={"host": host}).status_code == 421


def test_a_port_bound_to_an_address_answers_to_any_name() -> None:
    assert ask(control(admin="0.0.0.0:9090"), "/livez", headers={"host": "turnout.internal"}).status_code == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"sec-fetch-site": "same-origin"}, 200),
        ({"sec-fetch-site": "none"}, 200),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-site"}, 403),
        ({"origin": "http://127.0.0.1:9090"}, 200),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://127.0.0.1:8080"}, 403),
    ],
)
def test_a_page_of_another_site_changes_nothing(headers: dict[str, str], status: int) -> None:
    assert ask(control(), "/-/reload", method="POST", headers=headers).status_code == status


def test_reading_is_not_for_other_sites_either_but_needs_no_origin() -> None:
    answer = ask(control(), "/api/v1/routes", headers={"origin": "http://evil.example"})
    assert answer.status_code == 200
    assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize("path", [*PATHS, "/livez", "/nowhere"])
def test_every_answer_carries_the_headers_that_keep_browsers_safe(path: str) -> None:
    headers = ask(control(), path).headers
    assert headers["content-security-policy"].startswith("default-src 'none'; style-src 'self'")
    assert "unsafe" not in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"


def test_parts_of_the_headers_are_read_as_written() -> None:
    assert credential("bearer abc") == b"abc"
    assert credential(basic("a:b")["authorization"]) == b"a:b"
    assert credential("Basic " + base64.b64encode(b"no colon").decode()) is None
    assert hostname("[::1]") == "::1"
    assert hostname("::1") == "::1"
    assert is_loopback("127.8.9.1")
    assert not is_loopback("localhost.evil.example")
