"""Load for stories: users who send requests at a steady rate from a thread, and remember what they received.

Rule: a broken request is only counted; the prediction id of every answer is kept.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import Counter
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self

import httpx

#: What happens to each answer: gets the client, the path asked and the answer.
Then = Callable[[httpx.AsyncClient, str, httpx.Response], Awaitable[None]]


class Users:
    """Ask ``paths`` in turn, ``rate`` requests a second, while entered; leaving waits for requests in flight."""

    def __init__(self, base_url: httpx.URL, paths: tuple[str, ...], *, rate: float, then: Then | None = None) -> None:
        self._base_url, self._paths, self._rate, self._then = base_url, paths, rate, then
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="users", daemon=True)
        self._over = threading.Event()
        self.received: dict[str, str] = {}
        self.statuses: Counter[int] = Counter()
        self.broken = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.leave()

    def leave(self) -> None:
        """Send no more, and wait for the answers that are still to come."""
        self._over.set()
        self._thread.join(30)
        assert not self._thread.is_alive()

    async def _run(self) -> None:
        limits = httpx.Limits(max_connections=64)
        async with (
            httpx.AsyncClient(base_url=self._base_url, timeout=10, limits=limits) as client,
            asyncio.TaskGroup() as asking,
        ):
            at, number = asyncio.get_running_loop().time(), 0
            while not self._over.is_set():
                asking.create_task(self._ask(client, self._paths[number % len(self._paths)], number))
                number += 1
                await asyncio.sleep(at + number / self._rate - asyncio.get_running_loop().time())

    async def _ask(self, client: httpx.AsyncClient, path: str, number: int) -> None:
        try:
            answer = await client.post(path, json={"n": number}, headers={"x-user-id": f"u{number % 200}"})
        except httpx.TransportError:
            self.broken += 1
            return
        self.statuses[answer.status_code] += 1
        if prediction_id := answer.headers.get("turnout-prediction-id"):
            self.received[prediction_id] = path
        if self._then is not None and answer.status_code == 200:
            with contextlib.suppress(httpx.TransportError):
                await self._then(client, path, answer)
