"""Alerts from outside, as Alertmanager (version 4) and Grafana send them, and what they do to routes.

Rule: each alert of a message is answered by itself: for every ``[alerts]`` table that it matches, and every route of
that, whether it was applied, and if not why. Only firing alerts do anything. What is not known here is ignored: both
programs add fields as they like.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from gateway.control.command.ask import FREEZE, Ask, Asker, NotDone
from gateway.control.command.perform import Commands
from router.config.config import Config
from router.settings.alert import Alert
from router.snapshot import Snapshot

#: Alerts of one message beyond so many are not looked at; the answer says so.
MOST_ALERTS: Final = 200
#: The label that names a route where an ``[alerts]`` table names none.
ROUTE: Final = "route"
_MOST_LABELS: Final = 100
_MOST_CHARACTERS: Final = 300


def read_alerts(body: Any) -> list[Mapping[str, Any]]:
    """Return the alerts of a message. Raises NotDone (422) if it is none."""
    alerts = body.get("alerts") if isinstance(body, Mapping) else None
    if not isinstance(alerts, list):
        said = 'the body must be a message of Alertmanager (version "4") or Grafana, with a list "alerts"'
        raise NotDone(422, said)
    version = body.get("version", "4")
    if version not in ("4", "1"):  # Grafana's contact points send "1"
        raise NotDone(
            422, f'version must be "4", as Alertmanager sends it, or Grafana\'s "1", got {str(version)[:50]!r}'
        )
    return [one for one in alerts if isinstance(one, Mapping)]


async def apply(commands: Commands, config: Config, snapshot: Snapshot, body: Any, asker: Asker) -> dict[str, Any]:
    """Do what the file says about each alert of a message, and return what became of each. Raises NotDone."""
    alerts = read_alerts(body)
    answers = []
    done = dict[tuple[str, str, str | None], dict[str, Any]]()
    for alert in alerts[:MOST_ALERTS]:
        labels = _texts(alert.get("labels"))
        firing = alert.get("status", body.get("status")) == "firing"
        matched = [
            one for one in config.alerts.values() if all(labels.get(name) == value for name, value in one.labels)
        ]
        answer: dict[str, Any] = {"labels": labels, "status": "firing" if firing else "resolved", "matches": []}
        if not matched:
            answer["skipped"] = "no table of [alerts] has these labels"
        elif not firing:
            answer["skipped"] = "it is not firing: what was done stays until a person ends it"
        for one in matched if firing else ():
            for place in _places(one, labels, snapshot):
                answer["matches"].append(await _once(commands, one, place, alert, labels, asker, done))
        answers.append(answer)
    left = len(alerts) - len(answers)
    applied = sum(match["result"] == "applied" for answer in answers for match in answer["matches"])
    return {"applied": applied, "alerts": answers, **({"not_looked_at": left} if left else {})}


def _places(one: Alert, labels: Mapping[str, str], snapshot: Snapshot) -> Iterator[tuple[str | None, str]]:
    """Yield each route that an alert is about; None with why where it names none."""
    named = one.routes or ((labels[ROUTE],) if ROUTE in labels else ())
    if not named:
        yield None, f"alerts.{one.name} names no routes, and the alert has no label {ROUTE}"
    for name in named:
        yield (name, "") if name in snapshot.routes else (None, f'no route is named "{name[:100]}"')


async def _once(
    commands: Commands,
    one: Alert,
    place: tuple[str | None, str],
    alert: Mapping[str, Any],
    labels: Mapping[str, str],
    asker: Asker,
    done: dict[tuple[str, str, str | None], dict[str, Any]],
) -> dict[str, Any]:
    """Do it, unless an alert of this message did the same already."""
    route, why = place
    shown: dict[str, Any] = {"alert": one.name, "route": route, "do": one.do}
    if route is None:
        return {**shown, "result": "skipped", "why": why}
    key = route, one.do, one.to
    if key in done:
        return {**shown, "result": "skipped", "why": "an alert of this message did it already"}
    done[key] = await _do(commands, one, route, _why(one, alert, labels), asker)
    return {**shown, **done[key]}


async def _do(commands: Commands, one: Alert, route: str, why: str, asker: Asker) -> dict[str, Any]:
    to = None
    if one.do == FREEZE:
        to = one.to or commands.snapshot.routes[route].baseline
        if commands.frozen.get(route) == to:
            return {"result": "skipped", "why": f"{route} is frozen to {to} already"}
    try:
        performed = await commands.perform(Ask(verb=one.do, route=route, why=why, to=to), asker)
    except NotDone as refused:
        return {"result": "skipped", "why": refused.why}
    return {"result": "applied", "said": list(performed.said)}


def _why(one: Alert, alert: Mapping[str, Any], labels: Mapping[str, str]) -> str:
    """Say what alert it was, in a sentence: its name, and its summary if it has one."""
    notes = _texts(alert.get("annotations"))
    summary = notes.get("summary") or notes.get("description") or ""
    said = f"alert {labels.get('alertname', one.name)} (alerts.{one.name})"
    return f"{said}: {summary}" if summary else said


def _texts(value: Any) -> dict[str, str]:
    """Return the texts of a mapping, bounded in number and length."""
    if not isinstance(value, Mapping):
        return {}
    texts = ((str(key), text) for key, text in value.items() if isinstance(text, str))
    return {key[:_MOST_CHARACTERS]: text[:_MOST_CHARACTERS] for key, text in list(texts)[:_MOST_LABELS]}
