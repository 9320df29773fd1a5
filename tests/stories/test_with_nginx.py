"""Turnout between two nginx: curl, a Java client and a reader of events send and receive exactly what was meant."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.stories.backends import Asked, Backend
from tests.stories.harness import Turnout
from tests.stories.nginx import needs_nginx, nginx
from tests.stories.test_streams import Dictation

pytestmark = [pytest.mark.story, needs_nginx]

CONFIG = """
[backends.model]
url = "{url}"
version = "1"
[routes.all]
path = "/*"
[routes.all.policy]
kind = "single"
variant = "model"
"""


async def echo(asked: Asked) -> Any:
    return {
        "method": asked.method,
        "target": asked.target,
        "body": asked.body.decode("latin-1"),
        "size": len(asked.body),
    }


@dataclass(frozen=True, slots=True)
class Between:
    """nginx at ``front``, Turnout at ``direct`` behind it, another nginx, and the ``model``."""

    front: str
    direct: str
    model: Backend
    dictation: Dictation


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Between]:
    directory = tmp_path_factory.mktemp("nginx")
    trusting = 'trusted_proxies = ["127.0.0.1"]'
    dictation = Dictation(100)

    async def answer(asked: Asked) -> Any:
        if asked.target == "/events":
            dictation.heard = 0
            return dictation.speak()
        return await echo(asked)

    with (
        Backend(answer) as model,
        nginx(directory / "behind", model.url) as behind,
        Turnout(directory, CONFIG.format(url=behind), gateway=trusting) as program,
        nginx(directory / "before", str(program.traffic.base_url).rstrip("/")) as before,
    ):
        yield Between(before, str(program.traffic.base_url).rstrip("/"), model, dictation)


@pytest.fixture
def b(chain: Between) -> Between:
    """The chain, with its recorded requests cleared."""
    chain.model.asked.clear()
    return chain


def curl(*arguments: str) -> str:
    run = subprocess.run(
        ["curl", "--silent", "--show-error", "--max-time", "20", *arguments], capture_output=True, text=True, check=True
    )
    return run.stdout


def test_curl_is_answered_through_nginx_and_without_it(b: Between, tmp_path: Path) -> None:
    large = tmp_path / "large"
    large.write_bytes(b"x" * 900_000)
    for url in (b.front, b.direct):
        head = curl("--include", "--path-as-is", f"{url}/a/../b?q=%2F", "-d", '{"x": 1}')
        assert head.startswith("HTTP/1.1 200")
        assert "turnout-prediction-id: " in head
        assert '"body":"{\\"x\\": 1}"' in head
        # Both kinds of long upload: announced and asked for, and in chunks.
        assert '"size":900000' in curl(url, "--data-binary", f"@{large}", "-H", "Expect: 100-continue")
        assert '"size":900000' in curl(url, "--data-binary", f"@{large}", "-H", "Transfer-Encoding: chunked")
        assert curl("--head", url).startswith("HTTP/1.1 200")
    assert [asked.method for asked in b.model.asked] == ["POST", "POST", "POST", "HEAD"] * 2


def test_the_model_learns_who_asked_through_both(b: Between) -> None:
    """The front nginx is a trusted proxy: its header is passed on, and its address added."""
    curl(f"{b.front}/x", "-H", "X-Forwarded-For: 203.0.113.9", "-H", "Connection: x-forwarded-for")
    [asked] = b.model.asked
    # Added by the client, by the front nginx, by Turnout, and by the nginx behind.
    assert asked.headers["x-forwarded-for"] == "203.0.113.9, 127.0.0.1, 127.0.0.1, 127.0.0.1"
    assert asked.headers["via"] == "1.1 turnout"
    assert asked.headers["host"] == "127.0.0.1"


@pytest.mark.parametrize("entrance", ["front", "direct"])
def test_a_java_client_that_offers_http_2_has_its_body_delivered(b: Between, entrance: str) -> None:
    """The JDK's HttpClient offers h2c with every first request to a plain URL, bodies and all: the bytes it sends."""
    body = b'{"inputs": "GET /smuggled HTTP/1.1"}\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n'
    url = urlsplit(getattr(b, entrance))
    head = (
        f"POST /infer HTTP/1.1\r\nConnection: Upgrade, HTTP2-Settings\r\nContent-Length: {len(body)}\r\n"
        f"Host: {url.netloc}\r\nHTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA\r\nUpgrade: h2c\r\n"
        "User-Agent: Java-http-client/17.0.12\r\nContent-Type: application/json\r\n\r\n"
    ).encode()
    assert url.hostname is not None
    with socket.create_connection((url.hostname, url.port), 10) as sock:
        sock.sendall(head + body)
        sock.sendall(b"GET /next HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        answers = b""
        while piece := sock.recv(65_536):
            answers += piece
    assert answers.count(b"HTTP/1.1 200 ") == 2
    assert b"HTTP/1.1 101" not in answers
    assert [(asked.method, asked.target, asked.body) for asked in b.model.asked] == [
        ("POST", "/infer", body),
        ("GET", "/next", b""),
    ]
    assert "upgrade" not in b.model.asked[0].headers


@pytest.mark.parametrize("entrance", ["front", "direct"])
def test_events_arrive_one_by_one_through_all_of_them(b: Between, entrance: str) -> None:
    """The model sends the next event only once the previous one was confirmed."""
    command = ["curl", "--silent", "--no-buffer", "--max-time", "20", f"{getattr(b, entrance)}/events"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as listening:
        assert listening.stdout is not None
        for line in listening.stdout:
            if line.strip():
                assert line == f"data: {b.dictation.heard}\n"
                b.dictation.heard += 1
    assert listening.returncode == 0
    assert b.dictation.heard == 100
