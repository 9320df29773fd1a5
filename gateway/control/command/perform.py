"""Perform an act, whoever asks for it: a person by the API, the console or the command line, an alert, a trigger.

Rule: what an act means is the policy's to say; here it is checked against what the asker saw, performed once, and its
outcome told. An act that has begun goes on to its end though its caller stops waiting. Freezing needs no store.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any, Final

from gateway import nearest
from gateway.control.command.ask import FREEZE, Ask, Asker, Done, NotDone
from gateway.control.command.relay import Relay
from gateway.control.event_log import EventLog
from gateway.control.plan.edits import last_editor
from gateway.control.plan.freezes import shown
from gateway.control.plan.in_force import InForce
from gateway.control.steer.moves import MovedMeanwhile
from gateway.control.steer.steering import Known, NotHere
from gateway.files.overrides import Override
from gateway.store import reason
from gateway.store.fleet.lease import LeaseLost
from policies.rollouts.standing import Command, Moved, Refused, Standing, Verb, encode_standing
from router.config.config import Config
from router.snapshot import Snapshot

logger = logging.getLogger(__name__)

#: How long an act may take: it looks at what is known of a route, and waits for the store.
ACT_SECONDS: Final = 20.0
#: So many events are listed of what moved since the asker looked.
_MOST_MOVED: Final = 10


class Commands:
    """Performs acts at one node."""

    def __init__(self, in_force: InForce, event_log: EventLog) -> None:
        self._in_force = in_force
        self._event_log = event_log
        self._under_way: set[asyncio.Task[Done]] = set()
        self.relay = Relay(lambda: in_force.opened, self._perform)
        #: How many acts were asked for here, by verb, by how it was asked for and what came of it.
        self.counts: dict[tuple[str, str, str], int] = {}

    @property
    def snapshot(self) -> Snapshot:
        """What is in force."""
        return self._in_force.snapshot

    @property
    def config(self) -> Config | None:
        """The file that it was made of, None while that is not known."""
        return self._in_force.config

    @property
    def frozen(self) -> Mapping[str, str]:
        """The variant of each route that is frozen."""
        return self._in_force.freezes.frozen

    async def perform(self, ask: Ask, asker: Asker) -> Done:
        """Perform an act, at whichever node can, and return what was done. Raises NotDone."""
        task = asyncio.ensure_future(self._performed(ask, asker))
        self._under_way.add(task)
        task.add_done_callback(self._ended)
        return await asyncio.shield(task)

    def _ended(self, task: asyncio.Task[Done]) -> None:
        self._under_way.discard(task)
        if not task.cancelled():
            task.exception()  # its caller may be gone: it is logged already

    async def _performed(self, ask: Ask, asker: Asker) -> Done:
        result = "failed"
        try:
            async with asyncio.timeout(ACT_SECONDS):
                try:
                    done = await self._perform(ask, asker)
                except (NotHere, LeaseLost) as error:
                    done = await self.relay.ask(ask, asker, str(error))
            result = "dry_run" if ask.dry_run else "done"
            return done
        except NotDone as refused:
            result = "refused" if refused.status < 500 else "failed"
            raise
        except TimeoutError:
            why = f"it was given up after {ACT_SECONDS:.0f} s: look at where the route stands before you try again"
            raise NotDone(503, why) from None
        except Exception as error:
            logger.error("%s of %s failed: %s", ask.verb, ask.route or "every route", reason(error))
            logger.debug("an act failed", exc_info=error)
            raise NotDone(503, f"the store did not take it: {reason(error)}; freezing works without it") from error
        finally:
            key = ask.verb, asker.via, result
            self.counts[key] = self.counts.get(key, 0) + 1

    async def _perform(self, ask: Ask, asker: Asker) -> Done:
        """Perform an act at this node. Raises NotDone, NotHere, and what the store raises."""
        routes = self._in_force.snapshot.routes
        if ask.route is not None and not (ask.route in routes or ask.route in self._in_force.freezes.frozen):
            raise NotDone(404, nearest.unknown("route", ask.route, routes))
        if ask.verb in ("freeze", "unfreeze"):
            return await self._freeze(ask, asker)
        return await self._steer(ask, asker)

    async def _freeze(self, ask: Ask, asker: Asker) -> Done:
        variants = self._to_freeze(ask) if ask.verb == FREEZE else self._to_unfreeze(ask)
        if ask.route is not None and (route := self._in_force.snapshot.routes.get(ask.route)) is not None:
            _check_saw(self._event_log, ask, route.standing)
        recorded: bool | None = None
        if not ask.dry_run:
            why = f"{ask.why} ({ask.ticket})" if ask.ticket else ask.why
            try:
                recorded = await self._in_force.freeze(variants, who=asker.who, why=why, via=asker.via)
            except OSError as error:
                raise NotDone(503, f"{error.filename or 'the data directory'}: {error.strerror or error}") from None
        said = [shown(name, Override(to=to, at_ms=0)) for name, to in sorted(variants.items())]
        if recorded is False:
            said.append("it is in force at this node, and will be recorded and at the others once the store is back")
        return Done(ask.verb, ask.dry_run, tuple(said), {"frozen": variants, "recorded": recorded})

    def _to_freeze(self, ask: Ask) -> dict[str, str | None]:
        routes = self._in_force.snapshot.routes
        if ask.route is None:
            return {name: route.baseline for name, route in routes.items()}
        if ask.route not in routes:
            raise NotDone(404, nearest.unknown("route", ask.route, routes))
        if ask.to not in routes[ask.route].variants:
            known = routes[ask.route].variants
            raise NotDone(422, f"route {ask.route}: {nearest.unknown('variant', str(ask.to), known)}")
        return {ask.route: ask.to}

    def _to_unfreeze(self, ask: Ask) -> dict[str, str | None]:
        held = self._in_force.freezes.frozen
        if ask.route is not None and ask.route not in held:
            raise NotDone(409, f"{ask.route} is not frozen")
        return dict.fromkeys(held if ask.route is None else [ask.route])

    async def _steer(self, ask: Ask, asker: Asker) -> Done:
        assert ask.route is not None
        command = Command(
            verb=_verb(ask.verb),
            who=asker.who,
            why=ask.why,
            ticket=ask.ticket,
            author=await self._author(ask.route),
            known=asker.known,
        )
        seen: list[Standing] = []

        def doing(known: Known) -> Moved | Refused:
            seen.append(known.standing)
            _check_saw(self._event_log, ask, known.standing)
            return known.policy.act(known.standing, command, known.findings, known.now_ms)

        try:
            if ask.dry_run:
                moved = doing(await self._in_force.known(ask.route))
            else:
                moved = await self._in_force.act(ask.route, doing, asker.via)
        except KeyError:
            raise NotDone(404, nearest.unknown("route", ask.route, self._in_force.snapshot.routes)) from None
        except MovedMeanwhile as error:
            raise NotDone(409, f"{error}: look at where it stands, and try again") from None
        if isinstance(moved, Refused):
            raise NotDone(409, moved.why, standing=encode_standing(seen[-1]))
        return Done(
            ask.verb,
            ask.dry_run,
            tuple(event["why"] for event in moved.events),
            {
                "route": ask.route,
                "before": encode_standing(seen[-1]),
                "standing": encode_standing(moved.standing),
                "events": [dict(event) for event in moved.events],
                **self._frozen_too(ask.route),
            },
        )

    def _frozen_too(self, route: str) -> dict[str, Any]:
        to = self._in_force.freezes.frozen.get(route)
        return {} if to is None else {"frozen": {route: to}}

    async def _author(self, route: str) -> str | None:
        """Return who edited the route last: where four eyes are asked for, that one may not approve."""
        opened = self._in_force.opened
        if opened is None:
            return None
        async with opened.store.read() as connection:
            return await last_editor(connection, route)


def _verb(verb: str) -> Verb:
    return verb  # type: ignore[return-value]  # ``read_ask`` checked it


def _check_saw(event_log: EventLog, ask: Ask, standing: Standing) -> None:
    """Refuse an act on a standing that has moved since the asker looked, and say what moved."""
    if ask.saw is None or ask.saw == standing.number:
        return
    moved = [
        str(one["detail"])
        for one in event_log.newest
        if one["route"] == ask.route and isinstance(one.get("number"), int) and one["number"] > ask.saw
    ][-_MOST_MOVED:]
    said = f"{ask.route} has moved since number {ask.saw}: it is at number {standing.number} now"
    if ask.saw > standing.number:
        said = f"{ask.route} is at number {standing.number}, and never was at number {ask.saw}"
    detail = f"{said}: {'; '.join(moved)}" if moved else said
    raise NotDone(409, detail, moved=moved, standing=encode_standing(standing))
