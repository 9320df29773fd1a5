"""The demo's users, in front of a gateway of a few lines that counts what they send."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from gateway.demo.models import load
from gateway.demo.scenario import SCENES
from gateway.demo.traffic import Traffic
from gateway.proxy.client.upstream import Upstream
from router.snapshot import Backend
from tests.stories.backends import Asked, Reply
from tests.stories.backends import Backend as Server


class Gateway:
    """Answers as Turnout would: an id, a variant, and 202 for feedback."""

    def __init__(self, *, refuse: bool = False) -> None:
        self.refuse = refuse
        self.numbers = itertools.count()
        self.requests: dict[str, tuple[str, str]] = {}
        self.events: list[dict[str, Any]] = []

    async def __call__(self, asked: Asked) -> Reply:
        if asked.target == "/-/feedback":
            self.events += asked.json
            return Reply({"accepted": len(asked.json)}, 503 if self.refuse else 202)
        route = asked.target.split("/")[1]
        prediction_id = f"p{next(self.numbers)}"
        self.requests[prediction_id] = (route, asked.headers["x-user-id"])
        data = [f"image-{n}" for n in range(20)] if route == "search" else [3]
        named = {"turnout-prediction-id": prediction_id, "turnout-variant": "digits_v1"}
        return Reply({"outputs": [{"data": data}]}, headers=named)


def run(gateway: Gateway, *, seconds: float = 1.0, rate: float = 150.0, seed: int = 1) -> Traffic:
    async def go(url: str) -> Traffic:
        upstream = Upstream(Backend(name="g", urls=(url,), version="", model="g"))
        traffic = Traffic(load(), upstream, url.removeprefix("http://"), rate=rate, seed=seed)
        try:
            await traffic.run(seconds)
        finally:
            await upstream.close()
        return traffic

    with Server(gateway) as server:
        return asyncio.run(go(server.url))


@pytest.fixture(scope="module", autouse=True)
def _short_delays() -> Iterator[None]:
    """What takes seconds in the demo, so that it can be watched, takes tenths of seconds here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gateway.demo.traffic.DELAY_SECONDS", (0.1, 0.4))
        patch.setattr("gateway.demo.traffic.AGAIN_SECONDS", 0.1)
        yield


@pytest.fixture(scope="module")
def gateway() -> Gateway:
    return Gateway()


@pytest.fixture(scope="module")
def traffic(gateway: Gateway) -> Traffic:
    return run(gateway, seconds=3.0, rate=250.0)


def test_every_answer_and_every_event_is_counted_once(gateway: Gateway, traffic: Traffic) -> None:
    for scene in SCENES:
        account = traffic.accounts[scene.route]
        mine = [i for i, (route, _) in gateway.requests.items() if route == scene.route]
        assert sorted(account.prediction_ids) == sorted(mine)
        assert account.events == sum(event["prediction_id"] in set(mine) for event in gateway.events)
        assert (account.failed, account.refused_events, account.held_back) == (0, 0, 0)
        assert account.asked == len(mine) > 20


def test_users_ask_more_than_once_and_on_one_route(gateway: Gateway, traffic: Traffic) -> None:
    routes: dict[str, set[str]] = {}
    for route, user in gateway.requests.values():
        routes.setdefault(user, set()).add(route)
    asked = Counter(user for _, user in gateway.requests.values())
    assert set(map(len, routes.values())) == {1}
    assert 1.5 < sum(asked.values()) / len(asked) <= 5
    assert sum(account.users for account in traffic.accounts.values()) == len(asked)


def test_each_label_ends_as_the_truth_though_some_are_wrong_at_first(gateway: Gateway, traffic: Traffic) -> None:
    """What counts is the highest revision: wrong labels that are corrected must not change the truth."""
    labels = [event for event in gateway.events if event["metric"] == "correct"]
    revised = {event["prediction_id"] for event in labels if event.get("revision")}
    assert len(revised) == sum(account.corrected for account in traffic.accounts.values())
    values: dict[str, set[int]] = {}
    for event in labels:
        values.setdefault(event["prediction_id"], set()).add(event["value"])
    assert {i for i, seen in values.items() if len(seen) > 1} == revised


def test_clicks_name_an_item_that_was_shown(gateway: Gateway, traffic: Traffic) -> None:
    clicks = [event for event in gateway.events if event["metric"] == "click"]
    assert clicks
    assert {event["item"] for event in clicks} <= {f"image-{n}" for n in range(10)}


def test_feedback_that_was_not_acknowledged_is_not_counted_as_sent() -> None:
    account = run(Gateway(refuse=True), seconds=0.3).accounts["ab"]
    assert account.events == 0
    assert account.refused_events > 0


def test_a_gateway_that_is_not_there_is_counted_as_failures() -> None:
    async def go() -> Traffic:
        upstream = Upstream(Backend(name="g", urls=("http://127.0.0.1:9",), version="", model="g"))
        traffic = Traffic(load(), upstream, "nowhere", rate=100, seed=3)
        try:
            await traffic.run(0.3)
        finally:
            await upstream.close()
        return traffic

    accounts = asyncio.run(go()).accounts.values()
    assert sum(account.failed for account in accounts) == sum(account.asked for account in accounts) > 0
