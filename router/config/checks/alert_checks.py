"""Checks of alerts: what they are about is there, and what they do is possible."""

from __future__ import annotations

from collections.abc import Iterator

from router.config.draft import Draft
from router.config.findings import Finding, unknown, wrong
from router.config.tables import TableDraft


def alert_findings(draft: Draft) -> Iterator[Finding]:
    """Yield what is wrong with the file's alerts."""
    for alert in draft.alerts.values():
        yield from _alert(draft, alert)


def _alert(draft: Draft, alert: TableDraft) -> Iterator[Finding]:
    values = alert.values
    if values.get("labels") == ():
        yield wrong(alert.path, "labels", "must name a label: without one every alert would do this")
    to, routes = values.get("to"), values.get("routes") or ()
    if to is not None and "do" in values and values["do"] != "freeze":
        yield wrong(alert.path, "to", f'has no effect: only do = "freeze" freezes, and this is "{values["do"]}"')
    for index, name in enumerate(routes):
        route = draft.routes.get(name)
        if route is None:
            yield unknown((*alert.path, "routes", index), "route", name, draft.routes)
        elif to is not None and route.policy is not None and to not in route.policy.variants:
            yield unknown((*alert.path, "to"), f"variant of routes.{name}", to, route.policy.variants)
