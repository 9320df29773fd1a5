"""A real Prometheus watches the running program, and no panel of the dashboard stays empty."""

from __future__ import annotations

from math import isnan
from pathlib import Path

import httpx
import pytest

from gateway.dashboards import panel_queries
from tests.gateway.prometheus import needs_prometheus, prometheus
from tests.stories.backends import Backend, fixed
from tests.stories.harness import Turnout
from tests.stories.users import Users

pytestmark = pytest.mark.story

CONFIG = """
[backends]
one = {{ url = "{one}", version = "1" }}
two = {{ url = "{two}", version = "2" }}

[metrics.correct]
kind = "label"
window = "1s"

[routes.watched]
path = "/watched"
unit = "header:x-user-id"
prediction = "/y"
metrics = ["correct"]
policy = {{ kind = "shadow", primary = "one", shadows = {{ two = 1.0 }} }}

[routes.learning]
path = "/learning"
features = {{ country = "header:x-country" }}
prediction = "/y"
metrics = ["correct"]
policy = {{ kind = "thompson", variants = ["one", "two"], reward = "correct" }}

[routes.moving]
path = "/moving"
unit = "header:x-user-id"
[routes.moving.policy]
kind = "rollout"
stable = "one"
candidate = "two"
steps = [{{ share = 0.5, hold = "1d" }}, {{ share = 1.0 }}]
"""


@needs_prometheus
def test_every_panel_of_the_dashboard_has_an_answer_from_the_running_program(tmp_path: Path) -> None:
    """With labels coming back at once and windows of a second, everything that can be shown is there in seconds."""

    async def tell(client: httpx.AsyncClient, path: str, answer: httpx.Response) -> None:
        event = {"prediction_id": answer.headers["turnout-prediction-id"], "metric": "correct", "value": 1}
        await client.post("/-/feedback", json=event)

    queries = {f"{query.panel} {query.ref}": query.expr for query in panel_queries()}
    with Backend(fixed({"y": 1})) as one, Backend(fixed({"y": 2})) as two:
        config = CONFIG.format(one=one.url, two=two.url)
        with (
            Turnout(tmp_path, config) as program,
            prometheus(program.admin.base_url.netloc.decode(), tmp_path) as server,
        ):
            with Users(program.traffic.base_url, ("/watched", "/learning"), rate=30, then=tell) as users:
                assert server.empty(queries, within_seconds=20) == []
                # A rate is low while part of its window lies before the first request: wait until it means something.
                steady = {"steady": f"({queries['Requests per second A']}) > 10"}
                assert server.empty(steady, within_seconds=20) == []
                numbers = {
                    name: [float(sample["value"][1]) for sample in server.ask(queries[name])] for name in queries
                }
            assert set(users.statuses) == {200}
        # A quantile of empty buckets is NaN: an answer, but not to the question.
        assert not [name for name, values in numbers.items() if all(map(isnan, values))]
        (answered,) = numbers["Requests per second A"]
        assert 10 < answered < 60
