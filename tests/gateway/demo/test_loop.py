"""What the demo's pipeline takes: signed webhooks, once each; and labelled rows alone."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import httpx
import orjson
import pytest

from gateway.sinks.signature import signed, signing_keys
from router.config.config import parse

pytest.importorskip("sklearn")

from gateway.demo import loop
from gateway.demo.models import load

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def test_its_config_is_taken_without_a_warning(tmp_path: Path) -> None:
    of = {"listen": "127.0.0.1:1", "admin": "127.0.0.1:2", "data_dir": tmp_path, "port": 3, "labels": 9}
    assert parse(loop._CONFIG.format(**of, secret=tmp_path / "secret"), "turnout.toml").warnings == ()


def test_it_retrains_once_for_each_webhook_that_is_signed(monkeypatch: pytest.MonkeyPatch) -> None:
    retrained: list[str] = []

    async def fit(self: loop.Pipeline, why: str) -> None:
        retrained.append(why)

    async def story() -> list[int]:
        monkeypatch.setattr(loop.Pipeline, "_fit", fit)
        pipeline = loop.Pipeline(load(), "127.0.0.1:1", SECRET, print)
        body, now = orjson.dumps({"data": {"why": "drift"}}), int(time.time())
        found = []
        async with httpx.AsyncClient(transport=httpx.ASGITransport(pipeline.app), base_url="http://pipeline") as client:
            for name, at, altered in (("a", now, b""), ("a", now, b""), ("b", now, b" "), ("c", now - 999, b"")):
                head = {
                    "webhook-id": name,
                    "webhook-timestamp": str(at),
                    "webhook-signature": signed(signing_keys(SECRET), name, at, body),
                }
                found.append((await client.post("/retrain", content=body + altered, headers=head)).status_code)
            await asyncio.sleep(0)
        return found

    assert asyncio.run(story()) == [204, 204, 401, 401]
    assert retrained == ["drift"]


def test_rows_without_a_label_are_left_out() -> None:
    outcomes = [{"metric": "correct", "live": 1.0}, {"metric": "digit", "live": 3.0}]
    assert loop._labelled({"features": {"image": "7"}, "outcomes": outcomes}) == (7, 3)
    assert loop._labelled({"features": {"image": "7"}, "outcomes": outcomes[:1]}) is None
    assert loop._labelled({"features": None, "outcomes": outcomes}) is None
