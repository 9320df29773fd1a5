"""The admin app: API, console and metrics behind one guard.

Rule: the app is put together here and nowhere else. ``create`` starts nothing: the app owns no task, so its server has
nothing to stop.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response

from gateway import nearest
from gateway.admin.api.access_api import AccessAPI
from gateway.admin.api.acts_api import ActsAPI
from gateway.admin.api.api import API
from gateway.admin.api.export import ExportAPI
from gateway.admin.api.privacy import PrivacyAPI
from gateway.admin.api.readings import readings
from gateway.admin.api.registry_api import RegistryAPI
from gateway.admin.api.reports import Reports
from gateway.admin.api.sinks_api import SinksAPI
from gateway.admin.api.triggers_api import TriggersAPI
from gateway.admin.console.acting import Acting
from gateway.admin.console.console import Console
from gateway.admin.console.pages import Pages
from gateway.admin.console.records import Records
from gateway.admin.controller import Controller
from gateway.admin.guard import Guard
from gateway.admin.identity import Identities
from gateway.admin.json_errors import problem
from gateway.admin.metrics.metrics import Metrics
from router.snapshot import Snapshot


def create(control: Controller, metrics: Metrics | None = None) -> Starlette:
    """Return the app over a controller. ``metrics`` are those that the controller feeds, else new ones.

    ``app.state.metrics`` are the metrics that it shows.
    """
    metrics = metrics or new_metrics(lambda: control.in_force.snapshot)
    identities = Identities(metrics.series.admin_ignored_users.inc, control.tokens.note_used)
    reports = Reports(control.in_force, control.queries, clock=time.monotonic, events=lambda: control.event_log.newest)
    pages = Pages(control)
    app = Starlette(
        routes=[
            *API(control, reports, metrics, readings(control.queries, reports, metrics, clock=time.monotonic)).routes(),
            *SinksAPI(control).routes(),
            *ActsAPI(control.commands).routes(),
            *TriggersAPI(control).routes(),
            *PrivacyAPI(control.erasures).routes(),
            *RegistryAPI(control.in_force, control.queries, control.slots).routes(),
            *AccessAPI(control.queries, control.tokens).routes(),
            ExportAPI(control.in_force, control.queries).route(),
            *Console(control, reports, metrics, pages).routes(),
            *Records(control, pages).routes(),
            *Acting(control, reports, pages).routes(),
        ],
        middleware=[Middleware(Guard, snapshot=lambda: control.in_force.snapshot, identities=identities)],
        exception_handlers={HTTPException: _refused},
    )
    app.router.redirect_slashes = False
    app.state.metrics = metrics
    return app


def new_metrics(snapshot: Callable[[], Snapshot]) -> Metrics:
    """Return metrics that count from now on, labelled by what the snapshots name."""
    return Metrics(snapshot, started_ms=time.time_ns() // 1_000_000, clock=time.monotonic)


async def _refused(request: Request, error: Exception) -> Response:
    """Answer a path or a method that does not exist with what does."""
    assert isinstance(error, HTTPException)  # Starlette calls this handler for no other
    if error.status_code == 404:
        paths = [route.path for route in request.app.routes if "{" not in route.path]
        return problem(404, nearest.unknown("path", request.url.path, paths))
    if error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "")
        detail = f"{request.method} is not possible here, but {allowed} is"
        return problem(405, detail, headers={"allow": allowed})
    return problem(error.status_code, str(error.detail), headers=error.headers)


__all__ = ["Metrics", "create", "new_metrics"]
