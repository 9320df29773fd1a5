"""What the admin app asks of the controller.

Rule: the smallest set of questions that the API, the console and the metrics need; ``gateway.control`` answers them,
and so does a fake in tests.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import Any, Protocol

from gateway.control.fleet import View
from gateway.ledger import Ledger
from router.config import Config
from router.diagnostics import Diagnostic
from router.snapshot import Snapshot


class Reloaded(Protocol):
    """What came of reading the file again: ``revision`` is the one in force either way."""

    @property
    def ok(self) -> bool: ...
    @property
    def revision(self) -> int: ...
    @property
    def problems(self) -> Sequence[Diagnostic]: ...


class Controller(Protocol):
    """``events`` are {at_ms, kind, route, detail}, oldest first. ``ledger`` raises KeyError for an unknown route.

    ``config`` is the file that the snapshot was made from, None while only the snapshot is known. ``fleet`` is None
    where the store is this node's alone.
    """

    @property
    def snapshot(self) -> Snapshot: ...
    @property
    def config(self) -> Config | None: ...
    @property
    def store_ready(self) -> bool: ...
    @property
    def fleet(self) -> View | None: ...
    @property
    def refused_segments(self) -> int: ...
    @property
    def events(self) -> Iterable[Mapping[str, Any]]: ...

    async def ledger(self, route: str) -> Ledger: ...
    async def prediction(self, prediction_id: str) -> Mapping[str, Any] | None: ...
    async def erase(self, units: Sequence[str]) -> Mapping[str, int]: ...
    def known(self, unit: str) -> AsyncIterator[Mapping[str, Any]]: ...
    def exported(self, route: str, since_ms: int, until_ms: int) -> AsyncIterator[Sequence[Mapping[str, Any]]]: ...
    async def reload(self) -> Reloaded: ...
    def lag(self) -> tuple[float, int]: ...
