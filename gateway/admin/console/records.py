"""Pages of what was done and of what was sent: the audit log; triggers, sinks, and how events were delivered.

Rule: rows as they are stored, the newest first, and never more than a page of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.admin.api.reports import StoreUnavailable, from_store
from gateway.admin.api.triggers_api import TriggersAPI
from gateway.admin.asked import number
from gateway.admin.console.pages import Pages
from gateway.admin.controller import Controller
from gateway.control.queries import Queries
from gateway.store.audit import MOST_LISTED, Audited, listed
from gateway.store.rows import deliveries
from gateway.triggers.firing import read_triggers

#: Entries on a page unless it is asked for more.
ENTRIES: Final = 100


@dataclass(frozen=True, slots=True)
class Records:
    """The handlers. ``routes`` is the table of paths."""

    controller: Controller
    pages: Pages

    def routes(self) -> list[Route]:
        return [Route("/audit", self.audit), Route("/triggers", self.triggers)]

    async def triggers(self, request: Request) -> Response:
        """Triggers as they stand, sinks, and how webhooks were delivered lately."""
        snapshot, shown = self.controller.in_force.snapshot, TriggersAPI(self.controller).shown
        webhooks = [sink.name for sink in snapshot.sinks.values() if sink.kind == "webhook"]

        async def asked(ask: Queries) -> dict[str, Any]:
            stored, tried, dead = await read_triggers(ask.store), list[dict[str, Any]](), list[dict[str, Any]]()
            async with ask.store.read() as connection:
                for sink in webhooks:
                    tried += [{"sink": sink, **one._asdict()} for one in await deliveries.tries(connection, sink)]
                    dead += [{"sink": sink, **one} for one in await deliveries.dead(connection, sink)]
            newest = sorted(tried, key=lambda one: int(one["at_ms"]), reverse=True)[:ENTRIES]
            return {"triggers": shown(stored), "sinks": await ask.sinks(), "tried": newest, "dead": dead[-ENTRIES:]}

        try:
            found = await from_store(self.controller.queries, asked)
        except (StoreUnavailable, TimeoutError) as error:
            trouble = str(error) or "the store is slow"
            return self.pages.page("trouble.html", 503, title="Deliveries have to wait", trouble=trouble)
        return self.pages.page("triggers.html", title="Triggers", **found)

    async def audit(self, request: Request) -> Response:
        """The audit log, and the entries before one."""
        limit, before = number(request, "limit", ENTRIES, least=1, most=MOST_LISTED), number(request, "before", 0)

        async def asked(ask: Queries) -> list[Audited]:
            async with ask.store.read() as connection:
                return await listed(connection, limit, before=before or None)

        try:
            found = await from_store(self.controller.queries, asked)
        except (StoreUnavailable, TimeoutError) as error:
            trouble = str(error) or "the store is slow"
            return self.pages.page("trouble.html", 503, title="The log has to wait", trouble=trouble)
        older = found[-1].number if len(found) == limit else None
        return self.pages.page("audit.html", title="Audit log", entries=found, older=older)
