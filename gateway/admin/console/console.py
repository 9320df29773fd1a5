"""The console: an overview of the routes, a page per route with its intervals, and one for any prediction.

Rule: pages are rendered here, without a script or anything from another host, and show what the API answers. Every
chart has its numbers as text, and no meaning depends on a colour alone. A page is an entry of ``routes``, its handler
and its template.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from gateway import nearest
from gateway.admin.api.reports import Reports, StoreUnavailable, from_store
from gateway.admin.console import rollouts
from gateway.admin.console.figures import bounded, charts, compared, differences, held
from gateway.admin.console.pages import STYLE, Pages
from gateway.admin.controller import Controller
from gateway.admin.metrics.metrics import Metrics
from gateway.admin.metrics.replicas import out_of_use
from gateway.store.counts.plans import ACTS

#: Events on a page, of what people did and of the rest.
MOST_SHOWN: Final = 100


@dataclass(frozen=True, slots=True)
class Console:
    """The pages. ``routes`` is the table of paths."""

    controller: Controller
    reports: Reports
    metrics: Metrics
    pages: Pages

    def routes(self) -> list[Route]:
        return [
            Route("/", self.overview),
            Route("/routes/{route}", self.one_route),
            Route("/events", self.events),
            Route("/predictions", self.find),
            Route("/predictions/{prediction}", self.one_prediction),
            Route("/static/console.css", self.style),
        ]

    async def overview(self, request: Request) -> Response:
        try:
            reports, lost, trouble = await self.reports.all(), await self.reports.of_no_route(), None
        except (StoreUnavailable, KeyError) as error:
            reports, lost, trouble = [], None, str(error)
        hands = rollouts.hands(reports, {name: one.to or "" for name, one in self.pages.held().items()})
        return self.pages.page(
            "overview.html", title="Routes", reports=reports, hands=hands, lost=lost, trouble=trouble
        )

    async def one_route(self, request: Request) -> Response:
        name, epoch = request.path_params["route"], request.query_params.get("epoch")
        known: list[dict[str, Any]] = []
        try:
            if name in self.controller.in_force.snapshot.routes and self.controller.queries.ready:
                known = await self.reports.epochs(name)
            report = await (self.reports.one(name) if epoch is None else self.reports.past(name, epoch))
        except KeyError:
            detail = nearest.unknown("route", name, self.controller.in_force.snapshot.routes)
            if epoch is not None and name in self.controller.in_force.snapshot.routes:
                detail = nearest.unknown("epoch", epoch, [one["epoch"] for one in known])
            return self.pages.page("trouble.html", 404, title="Not found", trouble=detail)
        except StoreUnavailable as error:
            return self.pages.page("trouble.html", 503, title="Numbers have to wait", trouble=str(error))
        out = out_of_use(self.metrics.backends(), {variant["name"] for variant in report["variants"]})
        shown: dict[str, Any] = {
            "charts": charts(report),
            "difference": differences(report),
            "comparisons": compared(report),
            "guardrails": bounded(report),
            "held": held(report),
            "rollout": rollouts.card(report),
            "history": rollouts.history(self.controller.event_log.newest, name),
            "out": out,
            "epochs": known,
        }
        return self.pages.page("route.html", title=name, report=report, **shown)

    async def events(self, request: Request) -> Response:
        """What happened lately, what people did first."""
        newest = self.controller.event_log.newest[::-1]
        acts = [one for one in newest if one["kind"] in ACTS][:MOST_SHOWN]
        others = [one for one in newest if one["kind"] not in ACTS][:MOST_SHOWN]
        return self.pages.page("events.html", title="Events", acts=acts, others=others)

    async def find(self, request: Request) -> Response:
        """Redirect from the overview's form to the prediction that it names."""
        return RedirectResponse(f"/predictions/{quote(request.query_params.get('id', '').strip(), safe='')}", 303)

    async def one_prediction(self, request: Request) -> Response:
        name = request.path_params["prediction"]
        try:
            found = await from_store(self.controller.queries, lambda ask: ask.store.prediction(name))
        except (StoreUnavailable, TimeoutError) as error:
            trouble = str(error) or "the store is slow"
            return self.pages.page("trouble.html", 503, title="Numbers have to wait", trouble=trouble)
        if found is None:
            detail = f'no prediction "{name[:100]}" is recorded; it may be in a moment, or be past its retention'
            return self.pages.page("trouble.html", 404, title="Not found", trouble=detail)
        return self.pages.page("prediction.html", title=name, found=found)

    async def style(self, request: Request) -> Response:
        headers = {"cache-control": "public, max-age=31536000, immutable"}  # its address changes with its content
        return Response(STYLE, media_type="text/css", headers=headers)
