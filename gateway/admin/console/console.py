"""The console: an overview of the routes, a page per route with its intervals, and one for any prediction.

Rule: pages are rendered here, without a script or anything from another host, and show what the API answers. Every
chart has its numbers as text, and no meaning depends on a colour alone. A page is an entry of ``routes``, its handler
and its template.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from importlib.resources import files
from typing import Any, Final
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from gateway import amounts, nearest
from gateway.admin.api.reports import Report, Reports, StoreUnavailable, from_store
from gateway.admin.console.forest import ForestRow, forest
from gateway.admin.console.labels import labelled
from gateway.admin.controller import Controller
from gateway.admin.metrics.metrics import Metrics
from gateway.admin.metrics.replicas import out_of_use
from gateway.moments import age, to_the_second
from gateway.report.verdict_status import STATUSES
from gateway.store.counts.plans import ACTS

STATUS_WORDS: Final = {status: status.replace("_", " ") for status in STATUSES}

#: Events on a page, of what people did and of the rest.
MOST_SHOWN: Final = 100

_STYLE: Final = files("gateway.admin").joinpath("static", "console.css").read_bytes()
_STYLE_TAG: Final = blake2b(_STYLE, digest_size=6).hexdigest()

_pages = Environment(
    loader=PackageLoader("gateway.admin"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_pages.globals["style_tag"] = _STYLE_TAG
_pages.globals["words"] = STATUS_WORDS
_pages.globals["amounts"] = amounts
_pages.filters["percent"] = lambda value: "–" if value is None else f"{100 * value:.1f} %"
_pages.filters["count"] = lambda value: f"{value:,}".replace(",", "\N{NARROW NO-BREAK SPACE}")
_pages.filters["at"] = to_the_second
_pages.filters["age"] = age
_pages.filters["milliseconds"] = lambda value: "–" if value is None else f"{value:.3g} ms"


@dataclass(frozen=True, slots=True)
class Console:
    """The pages. ``routes`` is the table of paths."""

    controller: Controller
    reports: Reports
    metrics: Metrics

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
        return self._page("overview.html", title="Routes", reports=reports, lost=lost, trouble=trouble)

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
            return self._page("trouble.html", 404, title="Not found", trouble=detail)
        except StoreUnavailable as error:
            return self._page("trouble.html", 503, title="Numbers have to wait", trouble=str(error))
        out = out_of_use(self.metrics.backends(), {variant["name"] for variant in report["variants"]})
        shown: dict[str, Any] = {
            "charts": charts(report),
            "difference": differences(report),
            "comparisons": compared(report),
            "guardrails": bounded(report),
            "held": held(report),
            "out": out,
            "epochs": known,
        }
        return self._page("route.html", title=name, report=report, **shown)

    async def events(self, request: Request) -> Response:
        """What happened lately, what people did first."""
        newest = self.controller.event_log.newest[::-1]
        acts = [one for one in newest if one["kind"] in ACTS][:MOST_SHOWN]
        others = [one for one in newest if one["kind"] not in ACTS][:MOST_SHOWN]
        return self._page("events.html", title="Events", acts=acts, others=others)

    async def find(self, request: Request) -> Response:
        """Redirect from the overview's form to the prediction that it names."""
        return RedirectResponse(f"/predictions/{quote(request.query_params.get('id', '').strip(), safe='')}", 303)

    async def one_prediction(self, request: Request) -> Response:
        name = request.path_params["prediction"]
        try:
            found = await from_store(self.controller.queries, lambda ask: ask.store.prediction(name))
        except (StoreUnavailable, TimeoutError) as error:
            trouble = str(error) or "the store is slow"
            return self._page("trouble.html", 503, title="Numbers have to wait", trouble=trouble)
        if found is None:
            detail = f'no prediction "{name[:100]}" is recorded; it may be in a moment, or be past its retention'
            return self._page("trouble.html", 404, title="Not found", trouble=detail)
        return self._page("prediction.html", title=name, found=found)

    async def style(self, request: Request) -> Response:
        headers = {"cache-control": "public, max-age=31536000, immutable"}  # its address changes with its content
        return Response(_STYLE, media_type="text/css", headers=headers)

    def _page(self, template: str, status: int = 200, **values: Any) -> Response:
        values |= {"snapshot": self.controller.in_force.snapshot, "progress": self.controller.readiness.progress()}
        return HTMLResponse(labelled(_pages.get_template(template).render(**values)), status)


def charts(report: Report) -> list[dict[str, Any]]:
    """Return one chart per metric: each variant's mature mean with its interval, and the same as rows of text."""
    found = []
    for metric, definition in report["definitions"].items():
        rows, lines = [], []
        for shade, variant in enumerate(report["variants"]):
            values = variant["metrics"][metric]
            mature = values["mature"]
            if mature["mean"] is not None and mature["low"] is not None:
                rows.append(ForestRow(variant["name"], mature["low"], mature["mean"], mature["high"], shade))
            lines.append({"name": variant["name"], "shade": shade, "values": values})
        found.append(
            {
                "metric": metric,
                "definition": definition,
                "forest": forest(rows, percent=definition["binary"]),
                "lines": lines,
            }
        )
    return found


def differences(report: Report) -> dict[str, Any] | None:
    """Return the chart of the verdict: each variant minus the baseline; None where nothing is compared."""
    verdict = report["verdict"]
    if not verdict["comparisons"]:
        return None
    percent = report["definitions"][verdict["metric"]]["binary"]
    shades = {variant["name"]: index for index, variant in enumerate(report["variants"])}
    known = [one for one in verdict["comparisons"] if one["low"] is not None and one["high"] is not None]
    rows = [
        ForestRow(one["variant"], one["low"], one["difference"], one["high"], shades[one["variant"]]) for one in known
    ]
    lines = [one | {"text": difference_text(report, one)} for one in verdict["comparisons"]]
    return {"forest": forest(rows, percent=percent, zero=True), "lines": lines}


def compared(report: Report) -> list[dict[str, Any]]:
    """Return each variant on each metric, with its numbers as text."""
    found = []
    for one in report["comparisons"]:
        texts = {"text": difference_text(report, one), "named": amounts.named(report, one["metric"])}
        found.append(one | texts | {"needs_text": amounts.needs(report, one)})
    return found


#: How the state of a guardrail looks: as a status of that meaning.
GUARDRAIL_STYLES: Final = {"broken": "failing", "clean": "better", "undecided": "collecting"}


def bounded(report: Report) -> list[dict[str, Any]]:
    """Return each guardrail of each variant, with its numbers as text."""
    return [
        one | {"style": GUARDRAIL_STYLES[one["state"]], "text": amounts.guardrail(report, one)}
        for one in report["guardrails"]
    ]


def held(report: Report) -> list[dict[str, Any]]:
    """Return the holdout beside the treated units, by metric, as text; empty without a holdout."""
    found = []
    for metric, one in (report["holdout"] or {"metrics": {}})["metrics"].items():
        show = amounts.value_of(report, metric)
        sides = [{"units": one[side]["units"], "mean": show(one[side]["mean"])} for side in ("holdout", "treated")]
        text = difference_text(report, {"metric": metric, **one})
        found.append({"metric": amounts.named(report, metric), "sides": sides, "text": text, "why": one["withheld"]})
    return found


def difference_text(report: Report, one: Mapping[str, Any]) -> str:
    """Return a difference with its interval."""
    apart = amounts.difference(report, one)
    return apart if one["low"] is None or one["high"] is None else f"{apart} ({amounts.band(report, one)})"
