"""Whatever a query or a body holds, the answer is a success or the client's error, and never a 500."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from urllib.parse import quote

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.routing import Route

from gateway.admin.app import create
from tests.gateway.admin.fake import control

HOSTILE = (
    "9" * 5_000, "-1", "+1", "1_0", "1e9", "0x10", " 1", "١", "²", "1.0", "NaN", "", "null", "\0", "\ud7ff",
    "a" * 5_000, "9" * 19, str(2**63), "../..", "%2e%2e", "digits", "'\"<>", "[" * 300,
)  # fmt: skip
NAMES = ("limit", "since_ms", "until_ms", "route", "id", "verbose", "epoch", "metric", "cursor", "unknown")
PATHS = [route for route in create(control().parts).routes if isinstance(route, Route)]


def asked(requests: Sequence[tuple[str, str, bytes]]) -> list[httpx.Response]:
    """Send each method, target and body to one app."""

    async def main() -> list[httpx.Response]:
        transport = httpx.ASGITransport(create(control().parts))
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:9090") as client:
            return [await client.request(method, target, content=body) for method, target, body in requests]

    return asyncio.run(main())


def held(answers: Sequence[httpx.Response], caplog: pytest.LogCaptureFixture) -> None:
    assert [(answer.status_code, str(answer.url)[:200]) for answer in answers if answer.status_code >= 500] == []
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


@pytest.mark.parametrize("name", ["limit", "since_ms", "until_ms"])
@pytest.mark.parametrize("value", [value for value in HOSTILE if value not in ("9" * 19, str(2**63))])
def test_a_parameter_that_is_no_number_is_400_and_says_what_is_valid(name: str, value: str) -> None:
    path = "/api/v1/feedback/orphans" if name == "limit" else "/api/v1/export"
    (answer,) = asked([("GET", f"{path}?{name}={quote(value, safe='')}", b"")])
    assert answer.status_code == 400
    assert answer.json()["detail"].startswith(f"{name} must be a whole number from ")
    assert len(answer.content) < 500


def test_no_parameter_of_any_path_is_a_500(caplog: pytest.LogCaptureFixture) -> None:
    paths = [route.path.replace("{route}", "digits").replace("{prediction}", "p1") for route in PATHS]
    queries = ["&".join(f"{name}={quote(value, safe='')}" for name in NAMES) for value in HOSTILE]
    held(asked([("GET", f"{path}?{query}", b"") for path in paths for query in queries[::2]]), caplog)


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    value=st.text(max_size=40) | st.integers().map(str) | st.sampled_from(HOSTILE),
    query=st.lists(st.tuples(st.sampled_from(NAMES), st.text(max_size=20) | st.integers().map(str)), max_size=3),
)
def test_no_path_and_no_query_is_a_500(
    caplog: pytest.LogCaptureFixture, value: str, query: list[tuple[str, str]]
) -> None:
    inside = quote(value, safe="", errors="replace")
    asks = "&".join(f"{name}={quote(text, safe='', errors='replace')}" for name, text in query)
    held(
        asked(
            [
                ("GET", f"{route.path.replace('{route}', inside).replace('{prediction}', inside)}?{asks}", b"")
                for route in PATHS
            ]
        ),
        caplog,
    )


def test_no_body_is_a_500(caplog: pytest.LogCaptureFixture) -> None:
    deep = [b"[" * n + b"]" * n for n in (254, 1_023, 1_024, 100_000)]
    bodies = [
        b"", b"\xff", b'"\\ud800"', b'{"units": "' + b"9" * 6_000 + b'"}', b'{"units": ["\\u0000"]}', b"9" * 6_000,
        b'{"units": [NaN]}', b"null", *deep, *(b'{"units": ' + body + b"}" for body in deep),
        *(b'{"units": ["a"], "x": ' + body + b"}" for body in deep),
    ]  # fmt: skip
    posts = [route.path for route in PATHS if route.methods and "POST" in route.methods]
    held(asked([("POST", path, body) for path in posts for body in bodies]), caplog)
