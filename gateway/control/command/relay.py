"""Acts that are asked for at a node that may not perform them: passed through the store to the one that may.

Rule: an act is performed once or not at all. The holder of the lease claims an ask before it performs it; a node that
has waited long enough withdraws its ask, which succeeds only while it is not claimed.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Any, Final

from gateway.control.command.ask import Ask, Asker, Done, NotDone, decode, encode
from gateway.control.event_log import now_ms
from gateway.control.opened import Opened
from gateway.store.standings import (
    forget_standings,
    lock_standings,
    read_standing,
    read_standings,
    write_standings,
)

logger = logging.getLogger(__name__)

#: How long the holder of the lease may take until it claims an ask, and then until it has answered.
CLAIM_SECONDS: Final = 5.0
ANSWER_SECONDS: Final = 12.0
#: How often the holder looks for asks, and the asking node for the answer.
LOOK_SECONDS: Final = 0.25
#: An answer that nobody fetched is deleted after so long.
KEPT_MS: Final = 120_000

Perform = Callable[[Ask, Asker], Awaitable[Done]]


class Relay:
    """Asks for acts at the holder of the lease, and performs there what other nodes ask for."""

    def __init__(self, opened: Callable[[], Opened | None], perform: Perform) -> None:
        self._opened = opened
        self._perform = perform

    async def ask(self, ask: Ask, asker: Asker, why: str) -> Done:
        """Have the holder perform an act. ``why`` is why this node cannot. Raises NotDone."""
        opened = self._opened()
        if opened is None or opened.member is None:
            raise NotDone(503, f"{why}; freezing works without the store")
        name = secrets.token_hex(8)
        async with opened.store.begin() as connection:
            await write_standings(connection, "ask", {name: encode(ask, asker)}, now_ms())
        deadline = monotonic() + CLAIM_SECONDS
        claimed = False
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            async with opened.store.read() as connection:
                stood = await read_standing(connection, "ask", name)
            body: dict[str, Any] = {} if stood is None else stood.body
            if "answer" in body:
                async with opened.store.begin() as connection:
                    await forget_standings(connection, "ask", [name])
                return _answered(body["answer"])
            if "claimed" in body and not claimed:
                claimed, deadline = True, monotonic() + ANSWER_SECONDS
            if monotonic() > deadline:
                break
        if not claimed and await self._withdrawn(opened, name):
            holder = opened.member.view("").holder or "none"
            raise NotDone(503, f"{why}; the holder of the lease ({holder}) does not answer, so nothing was done")
        said = "the holder of the lease began it and did not say what came of it"
        raise NotDone(503, f"{said}: look at where the route stands before you try again")

    async def _withdrawn(self, opened: Opened, name: str) -> bool:
        async with opened.store.begin() as connection:
            await lock_standings(connection, "ask", [name])
            stood = await read_standing(connection, "ask", name)
            if stood is not None and "claimed" in stood.body:
                return False
            await forget_standings(connection, "ask", [name])
            return True

    async def step(self) -> None:
        """Perform what other nodes ask for, if this one holds the lease. Raises what the store raises."""
        opened = self._opened()
        if opened is None or opened.member is None or not opened.holds or opened.member.alone:
            return
        async with opened.store.read() as connection:
            waiting = await read_standings(connection, "ask")
        for name, stood in waiting.items():
            if now_ms() - stood.at_ms > KEPT_MS:
                async with opened.store.begin() as connection:
                    await forget_standings(connection, "ask", [name])
            elif "claimed" not in stood.body and await self._claimed(opened, name):
                answer = await self._answer(stood.body)
                async with opened.store.begin() as connection:
                    body = {**stood.body, "claimed": True, "answer": answer}
                    await write_standings(connection, "ask", {name: body}, now_ms())

    async def _claimed(self, opened: Opened, name: str) -> bool:
        async with opened.store.change() as connection:
            await lock_standings(connection, "ask", [name])
            stood = await read_standing(connection, "ask", name)
            if stood is None or "ask" not in stood.body or "claimed" in stood.body:
                await forget_standings(connection, "ask", [name] if stood is None or "ask" not in stood.body else [])
                return False
            await write_standings(connection, "ask", {name: {**stood.body, "claimed": True}}, stood.at_ms)
            return True

    async def _answer(self, body: dict[str, Any]) -> dict[str, Any]:
        try:
            done = await self._perform(*decode(body))
            return {"verb": done.verb, "dry_run": done.dry_run, "said": list(done.said), "more": dict(done.more)}
        except NotDone as refused:
            return {"status": refused.status, "why": refused.why, "more": refused.more}
        except Exception as error:
            logger.error("an act that another node asked for failed: %r", error)
            return {"status": 503, "why": f"{type(error).__name__}: {error}", "more": {}}

    async def keep(self) -> None:
        """Step for ever."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                await self.step()
            except Exception as error:
                logger.debug("asks of other nodes cannot be looked at", exc_info=error)


def _answered(answer: dict[str, Any]) -> Done:
    if "status" in answer:
        raise NotDone(answer["status"], answer["why"], **answer["more"])
    return Done(answer["verb"], answer["dry_run"], tuple(answer["said"]), answer["more"])
