"""The parts of a controller, filled by a test, and a client of the app over them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import httpx
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.admin.app import create
from gateway.admin.controller import Controller
from gateway.control.access.named_tokens import Tokens
from gateway.control.acts import Act
from gateway.control.command.perform import Commands
from gateway.control.event_log import EventLog
from gateway.control.membership import FleetView
from gateway.control.plan.freezes import Freezes
from gateway.control.plan.in_force import InForce, ReloadResult
from gateway.control.progress import Progress
from gateway.control.queries import Queries
from gateway.control.readiness import Readiness
from gateway.control.registry.version_slots import VersionSlots
from gateway.control.upkeep.erasure import Erasures
from gateway.files.overrides import Override
from gateway.store import Store
from gateway.store.audit import Audited
from gateway.store.counts.ledger import Epoch, Ledger
from gateway.store.counts.read_ledgers import LedgerVersions
from gateway.store.export_batches import ExportBatch
from gateway.store.tokens import StoredToken
from router.config.config import Config
from router.snapshot import Gateway, Snapshot
from tests.gateway.ledgers import Book, draft_route, route, shadow_route, snapshot


@dataclass
class Control:
    """``fails`` is raised by every question to the store, ``slow`` seconds pass before it answers."""

    snapshot: Snapshot
    books: dict[str, Ledger] = field(default_factory=dict)
    moved: dict[str, int] = field(default_factory=dict)
    epochs_known: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    over: dict[tuple[str, str], tuple[Epoch, Ledger]] = field(default_factory=dict)
    predictions: dict[str, dict[str, Any]] = field(default_factory=dict)
    counted: dict[tuple[str, str, str], int] = field(default_factory=dict)
    orphaned: list[dict[str, Any]] = field(default_factory=list)
    aside: list[dict[str, Any]] = field(default_factory=list)
    sinks: list[dict[str, Any]] = field(default_factory=list)
    frozen: dict[str, Override] = field(default_factory=dict)
    store_ready: bool = True
    stalled: Progress = field(default_factory=Progress)
    fleet: FleetView | None = None
    refused_segments: int = 0
    events: list[dict[str, Any]] = field(default_factory=list)
    config: Config | None = None
    result: ReloadResult = field(default_factory=lambda: ReloadResult(True, 8))
    fails: Exception | None = None
    slow: float = 0.0
    asked: int = 0
    stored: dict[str, list[list[dict[str, Any]]]] = field(default_factory=dict)
    acts: list[Act | None] = field(default_factory=list)
    erased: list[str] = field(default_factory=list)
    used: list[str] = field(default_factory=list)

    @property
    def parts(self) -> Controller:
        """What the admin port is given."""
        in_force, event_log = _InForce(self), _EventLog(self)
        commands = Commands(in_force, event_log)
        return Controller(
            in_force,
            _Queries(self),
            _Readiness(self),
            _Erasures(self),
            event_log,
            commands,
            _Tokens(self),
            VersionSlots(in_force, event_log),
        )

    def fail(self) -> None:
        if self.fails is not None:
            raise self.fails

    async def exported(self, route: str, since_ms: int, until_ms: int, *, texts: bool) -> AsyncIterator[ExportBatch]:
        self.fail()
        if route not in self.snapshot.routes:
            raise KeyError(route)
        for rows in self.stored.get(route, ()):
            inside = [as_text(row) if texts else row for row in rows if since_ms <= row["at_ms"] < until_ms]
            end_ms = max((row["at_ms"] + 1 for row in rows), default=until_ms)
            yield ExportBatch(b"".join(map(json_line, inside)), end_ms)


class _InForce(InForce):
    def __init__(self, fake: Control) -> None:
        self._fake = fake
        self.config = fake.config
        self.freezes = _Freezes(fake)

    @property
    def snapshot(self) -> Snapshot:
        return self._fake.snapshot

    async def reload(self, act: Act | None = None) -> ReloadResult:
        self._fake.fail()
        self._fake.acts.append(act)
        return self._fake.result


class _Freezes(Freezes):
    def __init__(self, fake: Control) -> None:
        self.acts = fake.frozen


class _Readiness(Readiness):
    def __init__(self, fake: Control) -> None:
        self._fake = fake

    @property
    def fleet(self) -> FleetView | None:
        return self._fake.fleet

    @property
    def refused_segments(self) -> int:
        return self._fake.refused_segments

    def progress(self) -> Progress:
        return self._fake.stalled if self._fake.store_ready else Progress(5.0, "the store is not open")

    def lag(self) -> tuple[float, int]:
        return 1.5, 2048


class _EventLog(EventLog):
    def __init__(self, fake: Control) -> None:
        self._fake = fake

    @property
    def newest(self) -> list[dict[str, Any]]:
        return self._fake.events


class _Tokens(Tokens):
    def __init__(self, fake: Control) -> None:
        self._fake = fake
        self.opened = None

    async def listed(self) -> list[StoredToken]:
        self._fake.fail()
        return []

    def note_used(self, name: str, at_ms: int) -> None:
        self._fake.used.append(name)


class _Erasures(Erasures):
    def __init__(self, fake: Control) -> None:
        self._fake = fake

    async def erase(self, units: Sequence[str], act: Act) -> Mapping[str, int]:
        self._fake.fail()
        self._fake.erased += units
        return {"calls": len(units)}

    async def known(self, unit: str) -> AsyncIterator[Mapping[str, Any]]:
        self._fake.fail()
        yield {"kind": "unit", "unit": unit}


class _Queries(Queries):
    """The real queries over a store that the test fills."""

    def __init__(self, fake: Control) -> None:
        super().__init__(lambda: fake.snapshot)
        self._fake = fake

    @property
    def ready(self) -> bool:
        return self._fake.store_ready

    @property
    def store(self) -> Store:
        return _Store(self._fake)

    async def audited(
        self, limit: int, *, before: int | None = None, route: str | None = None, act: str | None = None
    ) -> list[Audited]:
        self._fake.fail()
        return []

    async def sinks(self) -> Sequence[Mapping[str, Any]]:
        self._fake.fail()
        return self._fake.sinks

    def exported(self, route: str, since_ms: int, until_ms: int, *, texts: bool) -> AsyncIterator[ExportBatch]:
        return self._fake.exported(route, since_ms, until_ms, texts=texts)


class _Store(Store):
    def __init__(self, fake: Control) -> None:
        self._fake = fake

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """A connection to empty tables."""
        self._fake.fail()
        yield _Empty()

    async def ledger_versions(self) -> LedgerVersions:
        await asyncio.sleep(self._fake.slow)
        self._fake.fail()
        return LedgerVersions(dict(self._fake.moved), None)

    async def ledgers(self, places: Collection[tuple[str, str]]) -> Mapping[tuple[str, str], Ledger]:
        self._fake.asked += len(places)
        await asyncio.sleep(self._fake.slow)
        self._fake.fail()
        return {place: self._fake.books.get(place[0]) or Ledger(*place) for place in places}

    async def epochs(self, route: str, limit: int = 100) -> list[dict[str, Any]]:
        self._fake.fail()
        return self._fake.epochs_known.get(route, [])

    async def epoch(self, route: str, epoch: str) -> Epoch | None:
        self._fake.fail()
        found = self._fake.over.get((route, epoch))
        return None if found is None else found[0]

    async def ledger(self, route: str, epoch: str) -> Ledger:
        return self._fake.over[route, epoch][1]

    async def prediction(self, prediction_id: str) -> dict[str, Any] | None:
        self._fake.fail()
        return self._fake.predictions.get(prediction_id)

    async def feedback_total(self) -> Mapping[tuple[str, str, str], int]:
        self._fake.fail()
        return self._fake.counted

    async def series(self, route: str, metric: str, since_ms: int, now_ms: int) -> list[dict[str, Any]]:
        self._fake.fail()
        return [{"asked": [route, metric, since_ms]}]

    async def orphans(self, route: str | None, limit: int) -> list[dict[str, Any]]:
        self._fake.fail()
        return [one for one in self._fake.orphaned if route in (None, one["route"])][:limit]

    async def set_aside(self, limit: int) -> list[dict[str, Any]]:
        self._fake.fail()
        return self._fake.aside[:limit]


class _Empty(AsyncConnection):
    def __init__(self) -> None:
        """A connection to no database."""

    async def execute(self, *_: object) -> Any:  # type: ignore[override]
        return []


def json_line(row: Mapping[str, Any]) -> bytes:
    return json.dumps(row, separators=(",", ":")).encode() + b"\n"


def as_text(row: Mapping[str, Any]) -> dict[str, Any]:
    """The row as tables need it."""
    held = {name: None if row[name] is None else json.dumps(row[name]) for name in ("prediction", "features")}
    return {**row, **held}


def control(**gateway: Any) -> Control:
    """Three routes with numbers: an A/B test, a shadow, an interleaving."""
    shadow = replace(shadow_route(), name="shadowed")
    given = snapshot(route(), shadow, draft_route(), gateway=Gateway(**gateway))
    ab = Book().rate("old", "correct", 700, 1000).rate("new", "correct", 850, 1000)
    ab.latencies("old", [10, 12, 30]).latencies("new", [8, 9, 11]).stretch(
        {"old": 1000, "new": 1000}, {"old": 0.5, "new": 0.5}
    )
    ab.feedback = {("correct", "joined"): 2000, ("correct", "waiting"): 3}
    copies = Book(route="shadowed").rate("old", "correct", 80, 100).rate("new", "correct", 90, 100, role="shadow")
    copies.pairs("new", "correct", [1.0] * 12 + [-1.0] * 2 + [0.0] * 86)
    drafts = (
        Book(route="search")
        .calls("old", 9, role="draft")
        .calls("new", 9, role="draft")
        .votes("new", "click", 40, 20, 3)
    )
    books = (ab, copies, drafts)
    return Control(given, {book.route: book.ledger() for book in books})


def ask(
    fake: Control,
    path: str,
    *,
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
    host: str = "127.0.0.1:9090",
) -> httpx.Response:
    """Send one request to the app over the controller."""
    return asyncio.run(asking(fake, path, method=method, headers=headers, host=host))


async def asking(
    fake: Control,
    path: str,
    *,
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
    host: str = "127.0.0.1:9090",
) -> httpx.Response:
    transport = httpx.ASGITransport(create(fake.parts), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url=f"http://{host}") as client:
        sent = [(name.encode(), value.encode("latin-1")) for name, value in (headers or {}).items()]
        return await client.request(method, path, headers=sent)
