"""The admin API: what is known as JSON, and the reload.

Rule: an answer is one value of plain JSON; an error is problem+json with a hint where a name is wrong. Reading never
changes anything. An endpoint is an entry of ``routes`` and its handler, which asks the parts of the controller.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from functools import wraps
from typing import Any, Final

import orjson
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from gateway.admin.api.fleet_view import as_shown, sentences
from gateway.admin.api.readings import Readings
from gateway.admin.api.reports import Reports, StoreUnavailable, from_store
from gateway.admin.asked import act_of, number, positive_numbers
from gateway.admin.controller import Controller
from gateway.admin.json_errors import problem, unknown
from gateway.admin.metrics.metrics import Metrics
from gateway.control.progress import Progress
from gateway.process.effective import effective
from gateway.store.counts.hours import KEPT_MS
from gateway.store.counts.ledger import CALLS
from gateway.store.counts.plans import ACTS
from gateway.store.rows.feedback_status import STATUSES, UNKNOWN
from policies.rollouts.standing import encode_standing
from router.config.diagnostics import as_json

#: A reload reads a file and makes plans. If it takes longer than this, something hangs.
RELOAD_SECONDS: Final = 30.0

#: A scrape waits no longer for a slow store: its series keep their last values.
SCRAPE_SECONDS: Final = 2.0

MOST_EVENTS: Final = 200
MOST_ORPHANS: Final = 1_000

Handler = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class API:
    """The handlers. ``routes`` is the table of paths."""

    controller: Controller
    reports: Reports
    metrics: Metrics
    readings: Readings

    def routes(self) -> list[Route]:
        return [
            Route("/api/v1/routes", answering(self.list_routes)),
            Route("/api/v1/routes/{route}", answering(self.one_route)),
            Route("/api/v1/routes/{route}/epochs", answering(self.epochs)),
            Route("/api/v1/routes/{route}/standing", answering(self.standing)),
            Route("/api/v1/routes/{route}/power", answering(self.power)),
            Route("/api/v1/routes/{route}/series", answering(self.series)),
            Route("/api/v1/predictions/{prediction}", answering(self.one_prediction)),
            Route("/api/v1/feedback", answering(self.account)),
            Route("/api/v1/feedback/orphans", answering(self.orphans)),
            Route("/api/v1/feedback/set-aside", answering(self.set_aside)),
            Route("/api/v1/backends", answering(self.list_backends)),
            Route("/api/v1/config", answering(self.config)),
            Route("/api/v1/fleet", answering(self.fleet)),
            Route("/api/v1/events", answering(self.events)),
            Route("/-/reload", answering(self.reload), methods=["POST"]),
            Route("/metrics", answering(self.scrape)),
            Route("/livez", answering(self.livez)),
            Route("/readyz", answering(self.readyz)),
        ]

    async def list_routes(self, request: Request) -> Response:
        """Every route's report, in the order of the file, and what is wrong with feedback that belongs to no route."""
        return _json(
            {
                "revision": self.controller.in_force.snapshot.revision,
                "routes": await self.reports.all(),
                "feedback_of_no_route": await self.reports.of_no_route(),
            }
        )

    async def one_route(self, request: Request) -> Response:
        """One route's report: of its present epoch, or of another with ``?epoch=``."""
        name, epoch = request.path_params["route"], request.query_params.get("epoch")
        try:
            return _json(await (self.reports.one(name) if epoch is None else self.reports.past(name, epoch)))
        except KeyError:
            if epoch is None or name not in self.controller.in_force.snapshot.routes:
                return unknown("route", name, self.controller.in_force.snapshot.routes)
            return unknown("epoch", epoch, [one["epoch"] for one in await self.reports.epochs(name)])

    async def epochs(self, request: Request) -> Response:
        """The epochs that a route had, the one that began last first."""
        name = request.path_params["route"]
        try:
            return _json({"route": name, "epochs": await self.reports.epochs(name)})
        except KeyError:
            return unknown("route", name, self.controller.in_force.snapshot.routes)

    async def standing(self, request: Request) -> Response:
        """Where a route stands: as it is stored, and as its report shows it. Without the store what is in force."""
        name = request.path_params["route"]
        known = self.controller.in_force.snapshot.routes
        if name not in known:
            return unknown("route", name, known)
        shown: dict[str, Any] = {"route": name, "standing": encode_standing(known[name].standing)}
        try:
            return _json(shown | {"rollout": (await self.reports.one(name))["rollout"], "unknown": None})
        except StoreUnavailable as error:
            held = f"{error}: a rollout holds, and what is in force stays in force"
            return _json(shown | {"rollout": self.reports.unread(name), "unknown": held})

    async def power(self, request: Request) -> Response:
        """What a route's traffic can decide, and when, for ``?effects=`` and ``?days=``, each a list of numbers."""
        name = request.path_params["route"]
        effects, days = positive_numbers(request, "effects"), positive_numbers(request, "days")
        try:
            return _json(await self.reports.power(name, effects, days))
        except KeyError:
            return unknown("route", name, self.controller.in_force.snapshot.routes)

    async def series(self, request: Request) -> Response:
        """A route's calls by hour, after a week by day; with ``?metric=`` its mature values. ``?since=`` is in ms."""
        name, metric = request.path_params["route"], request.query_params.get("metric", CALLS)
        known, now_ms = self.controller.in_force.snapshot.routes, time.time_ns() // 1_000_000
        if name not in known:
            return unknown("route", name, known)
        if metric not in (measured := (*known[name].metrics, CALLS)):
            return unknown("metric", metric, measured)
        since_ms = number(request, "since", now_ms - KEPT_MS)
        found = await from_store(self.controller.queries, lambda ask: ask.store.series(name, metric, since_ms, now_ms))
        return _json({"route": name, "metric": metric, "series": found})

    async def list_backends(self, request: Request) -> Response:
        """Every backend's replicas, and how many workers see each as fit, ejected or unhealthy."""
        return _json({"revision": self.controller.in_force.snapshot.revision, "backends": self.metrics.backends()})

    async def one_prediction(self, request: Request) -> Response:
        """One prediction's calls, the feedback that names it, its values and its state under each metric."""
        name = request.path_params["prediction"]
        found = await from_store(self.controller.queries, lambda ask: ask.store.prediction(name))
        if found is None:
            detail = (
                f'no prediction "{name[:100]}" is recorded; it may be recorded in a moment, or be past its retention'
            )
            return problem(404, detail)
        return _json(found)

    async def account(self, request: Request) -> Response:
        """The status of every feedback event, counted by route and metric: the numbers add up to what was ever sent."""
        found = await from_store(self.controller.queries, lambda ask: ask.store.feedback_total())
        by_place: dict[tuple[str, str], dict[str, int]] = {}
        for (route, metric, status), n in sorted(found.items()):
            by_place.setdefault((route, metric), dict.fromkeys(map(str, STATUSES), 0))[status] = n
        places = [
            {"route": route, "metric": metric, "sent": sum(statuses.values()), **statuses}
            for (route, metric), statuses in by_place.items()
        ]
        return _json({"sent": sum(found.values()), "account": places})

    async def orphans(self, request: Request) -> Response:
        """Feedback whose prediction never came, the newest first; of one route with ``?route=``."""
        route, limit = (
            request.query_params.get("route"),
            number(request, "limit", MOST_ORPHANS, least=1, most=MOST_ORPHANS),
        )
        if route is not None and route != UNKNOWN and route not in self.controller.in_force.snapshot.routes:
            return unknown("route", route, (*self.controller.in_force.snapshot.routes, UNKNOWN))
        found = await from_store(self.controller.queries, lambda ask: ask.store.orphans(route, limit))
        return _json({"orphans": found})

    async def set_aside(self, request: Request) -> Response:
        """What could not be recorded or joined, the newest first, each with the reason."""
        limit = number(request, "limit", MOST_ORPHANS, least=1, most=MOST_ORPHANS)
        found = await from_store(self.controller.queries, lambda ask: ask.store.set_aside(limit))
        return _json({"set_aside": found})

    async def config(self, request: Request) -> Response:
        """The configuration in force, without secrets, and the last act that froze each route or ended that."""
        in_force = self.controller.in_force
        acts = {name: asdict(one) for name, one in in_force.freezes.acts.items()}
        return _json({**effective(in_force.snapshot), "overrides": acts})

    async def fleet(self, request: Request) -> Response:
        """The nodes that share the store, and which of them holds the lease; none where the store is not shared."""
        return _json(as_shown(self.controller.readiness.fleet, self.controller.in_force.snapshot.revision))

    async def events(self, request: Request) -> Response:
        """What happened lately, the newest first: up to ``MOST_EVENTS`` of what people did, and of the rest."""
        left = dict.fromkeys((True, False), MOST_EVENTS)
        shown = []
        for one in reversed(self.controller.event_log.newest):
            mine = one["kind"] in ACTS
            left[mine] -= 1
            if left[mine] >= 0:
                shown.append(one)
        return _json({"events": shown})

    async def reload(self, request: Request) -> Response:
        """Read the file again: in force as a whole, or refused as a whole with every problem."""
        async with asyncio.timeout(RELOAD_SECONDS):
            result = await self.controller.in_force.reload(act_of(request))
        if result.ok:
            return _json({"revision": result.revision})
        count = sum(one.severity == "error" for one in result.problems)
        detail = f"{count} problem{'s' * (count != 1)}; revision {result.revision} stays in force"
        listed = as_json(result.problems)
        return problem(422, detail, title="The file is not valid", revision=result.revision, diagnostics=listed)

    async def scrape(self, request: Request) -> Response:
        """All series. Those that need the store are as fresh as it answers within ``SCRAPE_SECONDS``."""
        self.metrics.refresh_plans()
        in_force = self.controller.in_force
        acts = self.controller.commands.counts
        self.metrics.moving.refresh_acts(in_force.snapshot, in_force.freezes.acts, acts)
        self.metrics.refresh_fleet(self.controller.readiness.fleet)
        ready = self.controller.readiness
        self.metrics.refresh_health(lag=ready.lag(), progress=ready.progress(), refused_segments=ready.refused_segments)
        self.metrics.refresh_ages(await self.readings.refresh(SCRAPE_SECONDS))
        text, content_type = self.metrics.exposition(request.headers.get("accept", ""))
        return Response(text, headers={"content-type": content_type})

    async def livez(self, request: Request) -> Response:
        """This process runs: nothing else is asked, or it would be killed because of a slow store."""
        return PlainTextResponse("ok\n")

    async def readyz(self, request: Request) -> Response:
        """Whether recording makes progress. The data port has a readiness of its own, which does not depend on it."""
        fleet, revision = self.controller.readiness.fleet, self.controller.in_force.snapshot.revision
        reached = self.controller.queries.ready and (fleet is None or fleet.cut_off_seconds is None)
        progress = self.controller.readiness.progress()
        checks = {
            "snapshot": bool(self.controller.in_force.snapshot.routes),
            "store": reached,
            "recording": not (reached and progress.stalled),
        }
        ready = all(checks.values())
        failed = {name: name for name, ok in checks.items() if not ok}
        if "recording" in failed:
            failed["recording"] = f"{progress.trouble}, for {progress.stalled_seconds:.0f} s"
        text = "ok\n" if ready else f"not ready: {'; '.join(failed.values())}\n"
        if "verbose" in request.query_params:
            text = (
                "".join(f"[{'+' if ok else '-'}]{name} {'ok' if ok else 'failed'}\n" for name, ok in checks.items())
                + f"recording: {_sentence(progress)}\n"
                + "".join(f"{line}\n" for line in sentences(fleet, revision))
                + text
            )
        return PlainTextResponse(text, 200 if ready else 503)


def answering(handler: Handler) -> Handler:
    """Answer 503, which says that traffic goes on, where the store does not answer in time or at all."""

    @wraps(handler)
    async def answer(request: Request) -> Response:
        try:
            return await handler(request)
        except StoreUnavailable as error:
            detail = f"{error}; traffic goes on, and is recorded once the store is back"
            return problem(503, detail, headers={"retry-after": "5"})
        except TimeoutError:
            return problem(503, "this took too long and was given up", headers={"retry-after": "5"})

    return answer


def _sentence(progress: Progress) -> str:
    """Say how far recording is."""
    committed, age = progress.committed_seconds, progress.watermark_age_seconds
    return ", ".join(
        (
            "nothing committed yet" if committed is None else f"last commit {committed:.1f} s ago",
            f"something to record for {progress.oldest_seconds:.1f} s",
            "no watermark yet" if age is None else f"watermark {age:.1f} s old",
        )
    )


def _json(value: Any) -> Response:
    return Response(orjson.dumps(value, default=str), media_type="application/json")
