"""Asks the replicas of one backend, at intervals, whether they are well.

Rule: a probe is no traffic. It makes a new connection each time (half of what it finds out is whether one can be made),
takes no place among the calls, leaves no row and moves no metric but the state of its replica. It asks for
``health_path`` on the replica's host as it stands, with the backend's ``request_headers``; a 2xx in time means well.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable, Sequence
from typing import Final
from urllib.parse import urlsplit

from gateway.proxy.client.upstream import Upstream
from gateway.proxy.wire.faults import UpstreamFault
from gateway.proxy.wire.headers import Header
from router.snapshot import Backend

logger = logging.getLogger(__name__)

_NAME: Final[Header] = (b"user-agent", b"turnout-health")


#: Takes a replica's index and whether it is well; returns whether the replica became unhealthy or fit by it.
Probed = Callable[[int, bool], bool]


class Probes:
    """Begins to ask at once, and reports to each of ``reports``, until it is closed. Needs a running loop."""

    def __init__(
        self, backend: Backend, names: Sequence[str], reports: Sequence[Probed], tls: ssl.SSLContext | None
    ) -> None:
        """``backend`` must have a ``health_path``; ``names`` are those of its replicas."""
        self._backend = backend
        self._names = names
        self._reports = reports
        self._asked = tuple(Upstream(_as_asked(backend, url), tls=tls) for url in backend.urls)
        for upstream in self._asked:
            upstream.pool_nothing()
        #: The backend's ``request_headers``, as they are now.
        self.headers: Sequence[Header] = ()
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def close(self) -> None:
        """Stop asking."""
        self._task.cancel()
        (error,) = await asyncio.gather(self._task, return_exceptions=True)
        if not isinstance(error, asyncio.CancelledError):
            logger.error("probes of backend %s had ended", self._backend.name, exc_info=error)
        await asyncio.gather(*(upstream.close() for upstream in self._asked))

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            await asyncio.gather(*(self._ask(index) for index in range(len(self._asked))))
            await asyncio.sleep(max(0.0, began + self._backend.health_interval_ms / 1000 - loop.time()))

    async def _ask(self, index: int) -> None:
        upstream = self._asked[index]
        try:
            answer = await upstream.call("GET", b"/", [_NAME, *self.headers], b"")
        except UpstreamFault as fault:
            self._report(index, str(fault), well=False)
        else:
            answer.close()
            self._report(index, f"status {answer.status}", well=200 <= answer.status < 300)

    def _report(self, index: int, why: str, *, well: bool) -> None:
        changed = [report(index, well) for report in self._reports]
        if any(changed):
            level, words = (logging.INFO, "well again") if well else (logging.WARNING, "unhealthy")
            logger.log(level, "backend %s: replica %s is %s: %s", self._backend.name, self._names[index], words, why)


def _as_asked(backend: Backend, url: str) -> Backend:
    """Return one replica as a backend of its own, asked for nothing but its health."""
    parts = urlsplit(url)
    socket = parts.path.partition(":")[0]
    return Backend(
        name=backend.name,
        urls=(f"unix:{socket}" if parts.scheme == "unix" else f"{parts.scheme}://{parts.netloc}",),
        version=backend.version,
        model=backend.model,
        path=backend.health_path,
        timeout_ms=backend.health_timeout_ms,
        connect_timeout_ms=backend.health_timeout_ms,
        total_timeout_ms=backend.health_timeout_ms,
        max_concurrency=1,
        retries=0,
        eject_after=0,
    )
