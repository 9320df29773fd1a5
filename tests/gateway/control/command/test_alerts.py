"""Alerts of Alertmanager and Grafana do what the file says, and each is answered with what became of it."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.control.command.alerts import MOST_ALERTS, read_alerts
from gateway.control.command.ask import NotDone
from tests.gateway.control.command.rig import CONFIG, Rig, at_rig
from tests.router.builders import SMALL, messages_of

ALERTS = """
[alerts.errors]
labels = { alertname = "ModelErrors", severity = "page" }
do = "rollback"
routes = ["s"]
[alerts.drift]
labels = { alertname = "Drift" }
do = "freeze"
to = "b"
[alerts.slow]
labels = { alertname = "Slow" }
do = "pause"
"""


def message(*alerts: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A message as Alertmanager sends it."""
    return {
        "version": "4",
        "groupKey": '{}:{alertname="x"}',
        "truncatedAlerts": 0,
        "status": "firing",
        "receiver": "turnout",
        "groupLabels": {},
        "commonLabels": {},
        "commonAnnotations": {},
        "externalURL": "http://alertmanager:9093",
        "alerts": list(alerts),
        **more,
    }


def firing(name: str, **labels: str) -> dict[str, Any]:
    return {
        "status": "firing",
        "labels": {"alertname": name, **labels},
        "annotations": {"summary": "half of the answers are errors"},
        "startsAt": "2026-01-01T00:00:00Z",
        "endsAt": "0001-01-01T00:00:00Z",
        "generatorURL": "http://prometheus:9090/graph",
        "fingerprint": "c0ffee",
    }


async def sent(rig: Rig, body: Any) -> Any:
    answer = await rig.post(path="/api/v1/alerts", **body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_an_alert_rolls_back_freezes_or_pauses_what_it_matches_and_says_so(tmp_path: Path) -> None:
    async def story(rig: Rig) -> None:
        found = await sent(
            rig,
            message(
                firing("ModelErrors", severity="page"),
                firing("ModelErrors", severity="info"),
                firing("Drift", route="r"),
                firing("Drift", route="nowhere"),
                firing("Drift"),
                firing("Slow", route="s"),
            ),
        )
        assert found["applied"] == 2
        results = [[(one["route"], one["result"]) for one in alert["matches"]] for alert in found["alerts"]]
        skipped = (None, "skipped")
        assert results == [[("s", "applied")], [], [("r", "applied")], [skipped], [skipped], [("s", "skipped")]]
        assert found["alerts"][1]["skipped"] == "no table of [alerts] has these labels"
        assert 'no route is named "nowhere"' in found["alerts"][3]["matches"][0]["why"]
        assert "has no label route" in found["alerts"][4]["matches"][0]["why"]
        assert "do not move by themselves" in found["alerts"][5]["matches"][0]["why"]
        assert (rig.route("s").standing.state, rig.frozen) == ("rolled_back", {"r": "b"})
        entry = next(one for one in await rig.audit() if one.act == "rollback")
        assert (entry.via, entry.why) == ("alert", "alert ModelErrors (alerts.errors): half of the answers are errors")

    at_rig(tmp_path, story, CONFIG + ALERTS)


def test_what_is_sent_again_or_resolved_changes_nothing(tmp_path: Path) -> None:
    async def story(rig: Rig) -> None:
        body = message(firing("Drift", route="r"), firing("Drift", route="r", instance="2"))
        first = await sent(rig, body)
        assert [one["matches"][0]["result"] for one in first["alerts"]] == ["applied", "skipped"]
        again = await sent(rig, body)
        assert again["applied"] == 0
        assert "is frozen to b already" in again["alerts"][0]["matches"][0]["why"]
        resolved = message({**firing("Drift", route="r"), "status": "resolved"}, status="resolved")
        assert "stays until a person ends it" in (await sent(rig, resolved))["alerts"][0]["skipped"]
        assert rig.frozen == {"r": "b"}

    at_rig(tmp_path, story, CONFIG + ALERTS)


def test_grafanas_messages_are_understood_and_what_is_unknown_is_ignored(tmp_path: Path) -> None:
    async def story(rig: Rig) -> None:
        grafana = {**firing("Drift", route="r"), "values": {"A": 7}, "dashboardURL": "", "silenceURL": "x", "orgId": 1}
        body = message(grafana, version="1", orgId=1, title="[FIRING:1]", state="alerting", message="**Firing**")
        assert (await sent(rig, body))["applied"] == 1
        assert rig.frozen == {"r": "b"}

    at_rig(tmp_path, story, CONFIG + ALERTS)


@pytest.mark.parametrize("body", [{}, {"alerts": "x"}, {"version": "3", "alerts": []}, {"version": 4, "alerts": []}])
def test_what_is_no_such_message_is_a_named_problem(body: dict[str, Any]) -> None:
    with pytest.raises(NotDone, match="must be") as refused:
        read_alerts(body)
    assert refused.value.status == 422


def test_a_message_of_very_many_alerts_is_bounded_and_says_what_was_not_looked_at(tmp_path: Path) -> None:
    async def story(rig: Rig) -> None:
        found = await sent(rig, message(*(firing("Other") for _ in range(MOST_ALERTS + 7))))
        assert (found["applied"], found["not_looked_at"]) == (0, 7)

    at_rig(tmp_path, story, CONFIG + ALERTS)


json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=30)
@given(json | st.fixed_dictionaries({"alerts": json | st.lists(json)}, optional={"version": json, "status": json}))
def test_any_body_is_a_list_of_alerts_or_a_named_problem(body: Any) -> None:
    with contextlib.suppress(NotDone):
        assert all(isinstance(one, dict) for one in read_alerts(body))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('labels = {}\ndo = "pause"', "alerts.x.labels must name a label"),
        ('labels = { a = "b" }\ndo = "pase"', "alerts.x.do must be"),
        ('labels = { a = "b" }\ndo = "pause"\nto = "v1"', "alerts.x.to has no effect"),
        ('labels = { a = "b" }\ndo = "freeze"\nto = "v3"\nroutes = ["digits"]', "unknown variant of routes.digits"),
        ('labels = { a = "b" }\ndo = "freeze"\nroutes = ["digit"]', 'alerts.x.routes[0]: unknown route "digit"'),
        ('labels = { a = 1 }\ndo = "freeze"', "alerts.x.labels"),
        ('do = "freeze"', "alerts.x.labels is required"),
    ],
)
def test_a_mistake_in_an_alert_is_a_named_problem(text: str, said: str) -> None:
    [problem] = messages_of(f"{SMALL}\n[alerts.x]\n{text}\n")
    assert said in problem
