"""Reports on demand, each route's at most once a second however many ask.

Rule: made in a thread, because intervals take milliseconds of arithmetic; waited for with a deadline, because a store
can hang; and one at a time per route, so that a crowd of readers costs no more than one.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar

from gateway.admin.controller import Controller
from gateway.report import report
from policies import Policy

logger = logging.getLogger(__name__)

FRESH_SECONDS: Final = 1.0
DEADLINE_SECONDS: Final = 10.0

Report = dict[str, Any]
T = TypeVar("T")


class StoreUnavailable(RuntimeError):
    """The store is not open, did not answer in time or failed: numbers have to wait, traffic does not."""


def unreadable(error: Exception) -> StoreUnavailable:
    """Return what a reader is told of a store that failed; the log has the rest."""
    logger.error("the store could not be read: %s: %s", type(error).__name__, error)
    return StoreUnavailable(f"the store could not be read: {type(error).__name__}")


async def from_store(controller: Controller, question: Coroutine[Any, Any, T]) -> T:
    """Return the store's answer to a question. Raises StoreUnavailable, or TimeoutError after ``DEADLINE_SECONDS``."""
    if not controller.store_ready:
        question.close()
        raise StoreUnavailable("the store is not open yet")
    try:
        async with asyncio.timeout(DEADLINE_SECONDS):
            return await question
    except TimeoutError:
        raise
    except Exception as error:  # whatever a database driver raises
        raise unreadable(error) from error


class Reports:
    """The newest report of each route. ``clock`` is monotonic, in seconds."""

    def __init__(self, controller: Controller, *, clock: Callable[[], float]) -> None:
        self._controller = controller
        self._clock = clock
        self._made: dict[str, tuple[float, Report]] = {}
        self._making: dict[str, asyncio.Lock] = {}

    async def all(self) -> list[Report]:
        """Return the report of every route, in the order of the file. Raises StoreUnavailable."""
        names = list(self._controller.snapshot.routes)
        self._forget(names)
        return [await self.one(name) for name in names]

    async def one(self, route: str) -> Report:
        """Return the report of one route. Raises KeyError if there is none, StoreUnavailable if it cannot be made."""
        if route not in self._controller.snapshot.routes:
            raise KeyError(route)
        try:
            async with asyncio.timeout(DEADLINE_SECONDS), self._making.setdefault(route, asyncio.Lock()):
                made = self._made.get(route)
                if made is None or not self._is_fresh(*made):
                    made = self._made[route] = (self._clock(), await self._make(route))
                return made[1]
        except TimeoutError as error:
            raise StoreUnavailable(f"the store did not answer within {DEADLINE_SECONDS:.0f} seconds") from error

    async def _make(self, route: str) -> Report:
        if not self._controller.store_ready:
            raise StoreUnavailable("the store is not open yet")
        try:
            ledger = await self._controller.ledger(route)
        except (KeyError, TimeoutError):
            raise
        except Exception as error:  # whatever a database driver raises: the reader is told, and can ask again
            raise unreadable(error) from error
        return await asyncio.to_thread(report, self._controller.snapshot, ledger, self._policy(route))

    def _policy(self, route: str) -> Policy | None:
        """The route's policy as the file sets it, if the snapshot in force is of that file."""
        config = self._controller.config
        if config is None or config.hash != self._controller.snapshot.config:
            return None
        return config.routes[route].policy

    def _is_fresh(self, made_at: float, made: Report) -> bool:
        """A report is of one plan: a new revision or epoch makes it stale at once."""
        route = self._controller.snapshot.routes.get(made["route"])
        same = route is not None and (route.revision, route.epoch) == (made["revision"], made["epoch"])
        return same and self._clock() - made_at < FRESH_SECONDS

    def _forget(self, names: list[str]) -> None:
        for gone in self._made.keys() - set(names):
            del self._made[gone]
        for gone in self._making.keys() - set(names):
            if not self._making[gone].locked():
                del self._making[gone]
