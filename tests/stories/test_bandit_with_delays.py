"""A bandit must not take slow feedback for bad feedback."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from pathlib import Path

import httpx
import pytest

from tests.stories.backends import Backend, fixed
from tests.stories.harness import Turnout, eventually
from tests.stories.users import Users

pytestmark = pytest.mark.story

#: Seconds until the feedback for a variant arrives; the window is 5.
DELAYS = {"fast": 1.0, "slow": 4.0}

CONFIG = """
[backends.fast]
url = "{url}"
version = "1"
[backends.slow]
url = "{url}"
version = "1"

[metrics.click]
kind = "event"
window = "5s"
missing = 0

[routes.r]
path = "/r"
metrics = ["click"]
expose_variant = true
[routes.r.policy]
kind = "thompson"
variants = ["fast", "slow"]
reward = "click"
"""


def test_equal_variants_keep_equal_shares_though_the_clicks_of_one_come_three_seconds_later(tmp_path: Path) -> None:
    """Every second answer of either variant is clicked; what is not clicked is known only when the window closes.

    Counting clicks as they come and misses at the window's end would favour the fast variant for as long as it lasts,
    and a bandit would act on it.
    """
    answered: Counter[str] = Counter()

    async def click(client: httpx.AsyncClient, path: str, answer: httpx.Response) -> None:
        variant = answer.headers["turnout-variant"]
        answered[variant] += 1
        if answered[variant] % 2 == 0:
            event = {"prediction_id": answer.headers["turnout-prediction-id"], "metric": "click", "value": 1}
            await asyncio.sleep(DELAYS[variant])
            assert (await client.post("/-/feedback", json=event)).status_code == 202

    with Backend(fixed({})) as backend, Turnout(tmp_path, CONFIG.format(url=backend.url)) as program:
        looks: list[float] = []
        with Users(program.traffic.base_url, ("/r",), rate=40, then=click):
            for _ in range(16):
                time.sleep(1)
                looks.append(program.report("r")["variants"][0]["share"])

        def closed() -> bool:
            variants = program.report("r")["variants"]
            return all(variant["metrics"]["click"]["pending"] == 0 for variant in variants)

        eventually(closed, "the last windows close", seconds=15)
        variants = {variant["name"]: variant for variant in program.report("r")["variants"]}
        assert sum(variant["metrics"]["click"]["mature"]["n"] for variant in variants.values()) > 450
        for name, variant in variants.items():
            assert variant["metrics"]["click"]["mature"]["mean"] == pytest.approx(0.5, abs=0.01)
            assert abs(variant["share"] - 0.5) <= 0.1, (name, variant["share"], looks)
