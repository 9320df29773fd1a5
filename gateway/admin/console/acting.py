"""Forms that act: a first page says what would happen and asks why, and the form on it does it.

Why is not asked on the route's page: that loads itself anew, and would take away what somebody is writing.

Rule: no script, and nothing that a link could do: both steps are a POST of this site's own form (``guard``). What is
done is what the API's request of the same words does, and it names the standing that the first page showed: an act on a
route that moved meanwhile is refused, with what moved.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final
from urllib.parse import parse_qs, quote

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from gateway.admin.api.acts_api import asking
from gateway.admin.api.reports import Reports, StoreUnavailable
from gateway.admin.console.pages import Pages
from gateway.admin.controller import Controller
from gateway.control.command.ask import FREEZE, STEERING, UNFREEZE, Done, NotDone, read_ask

#: What a button says, where it is not the word itself.
TITLES: Final = {"rollback": "Roll back"}

_MOST_FIELDS: Final = 12

_MOST_BYTES: Final = 2**16


@dataclass(frozen=True, slots=True)
class Acting:
    """The handlers. ``routes`` is the table of paths."""

    controller: Controller
    reports: Reports
    pages: Pages

    def routes(self) -> list[Route]:
        return [
            Route("/routes/{route}/acts", self.act, methods=["POST"]),
            Route("/acts", self.act, methods=["POST"]),
        ]

    async def act(self, request: Request) -> Response:
        """Say what an act would do; once that is confirmed, do it and go back to the route."""
        given = await asked(request)
        try:
            ask = read_ask({**given.order, "dry_run": not given.confirmed}, given.route)
            done = await self.controller.commands.perform(ask, asking(request, "console"))
        except NotDone as refused:
            moved = [str(one) for one in refused.more.get("moved", ())]
            return self._page(given, refused.status, refused=refused.why, moved=moved)
        if given.confirmed:
            return RedirectResponse(given.back, 303)
        return self._page(given.seeing(done), would=done.said, evidence=await self._evidence(given.route))

    async def _evidence(self, route: str | None) -> list[str]:
        """Return what is known of a route now, in sentences; nothing if that has to wait: an act does not."""
        if route is None:
            return []
        try:
            report = await self.reports.one(route)
        except (StoreUnavailable, KeyError):
            return []
        stands = report["rollout"] or {"waits_for": ()}
        broken = [one for one in report["guardrails"] if one["state"] != "clean"]
        return [
            report["verdict"]["sentence"],
            *(f"The guardrail on {one['metric']} of {one['variant']} is {one['state']}." for one in broken),
            *(f"It waits for: {one['sentence']}." for one in stands["waits_for"]),
        ]

    def _page(self, given: AskedAct, status: int = 200, **values: Any) -> Response:
        shown: dict[str, Any] = {"asked": given, "refused": None, "moved": [], "would": (), "evidence": []}
        return self.pages.page("act.html", status, title=given.title, **(shown | values))


@dataclass(frozen=True, slots=True)
class AskedAct:
    """What a form asks for. ``route`` is None where it is about every route."""

    route: str | None
    order: Mapping[str, Any]
    confirmed: bool

    @property
    def verb(self) -> str:
        return str(self.order["verb"])

    @property
    def title(self) -> str:
        """What the button says that does it."""
        said = TITLES.get(self.verb, self.verb.capitalize())
        if self.route is None:
            return f"{said} every route"
        return f"{said} {self.route}" + (f" to {self.order['to']}" if self.order.get("to") else "")

    @property
    def back(self) -> str:
        return "/" if self.route is None else f"/routes/{quote(self.route, safe='')}"

    @property
    def action(self) -> str:
        return "/acts" if self.route is None else f"{self.back}/acts"

    def seeing(self, done: Done) -> AskedAct:
        """Return the same, about the standing that a dry run showed: if that moves meanwhile, the act is refused."""
        if self.verb not in STEERING or "before" not in done.more:
            return self
        return replace(self, order={**self.order, "saw": done.more["before"].get("number", 0)})

    @property
    def fields(self) -> dict[str, str]:
        """The same as hidden fields of a form; why and ticket have fields that people write into."""
        return {name: str(value) for name, value in self.order.items() if name not in ("all", "why", "ticket")}


async def asked(request: Request) -> AskedAct:
    """Return what a form asks for. Raises HTTPException (400) that says what it must have."""
    try:
        given = parse_qs(await _body(request), max_num_fields=_MOST_FIELDS, keep_blank_values=True)
    except ValueError:
        raise HTTPException(400, "the form cannot be read") from None
    said = {name: values[-1].strip() for name, values in given.items()}
    route, verb = request.path_params.get("route"), said.get("verb", "")
    known = (FREEZE, UNFREEZE) if route is None else (*STEERING, FREEZE, UNFREEZE)
    if verb not in known:
        raise HTTPException(400, f"verb must be one of {', '.join(known)}, got {verb[:20]}")
    order: dict[str, Any] = {"verb": verb} | {name: said.get(name, "") for name in ("why", "ticket")}
    if route is None:
        order["all"] = True
    elif verb == FREEZE:
        order["to"] = said.get("to", "")
    if verb in STEERING and (saw := said.get("saw", "")):
        if not (saw.isascii() and saw.isdigit() and len(saw) < 10):
            raise HTTPException(400, f"saw must be the number of a standing, got {saw[:20]}")
        order["saw"] = int(saw)
    return AskedAct(route, order, confirmed=said.get("confirmed") == "yes")


async def _body(request: Request) -> str:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MOST_BYTES:
            raise HTTPException(413, f"the form is longer than {_MOST_BYTES:,} bytes")
    return body.decode()
