"""Builders for the tests of the control plane: a journal written by hand, and a recorder with a store."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import astuple, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

from gateway.control.record.lines import Batch
from gateway.control.record.recorder import Recorder
from gateway.journal.seal import header, sealed
from gateway.journal.segments import FEEDBACK, PREDICTIONS
from gateway.store import Store
from gateway.store.counts.deltas import StatusDelta
from gateway.store.counts.ledger import Ledger, TallyKey
from gateway.store.rows.calls import StoredCall
from policies.plans import Weighted
from policies.types import Tally
from router.records import Feedback, Prediction, feedback_line, mark_line
from router.snapshot import Metric, Route, Snapshot
from tests.router.journal_lines import call_line

T0 = 1_700_000_000_000
RUN = f"{T0:012x}"
WRITER = f"{RUN}-00-{T0:012x}"
OTHER = f"{RUN}-01-{T0:012x}"

T = TypeVar("T")


def uuid(number: int) -> str:
    """A prediction id, as UUIDv7 text."""
    digits = f"{T0 + number:012x}7000800000000000{number & 0xFFFF:04x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def call(number: int, variant: str = "a", **more: Any) -> Prediction:
    """A finished call of request ``number``, made that many milliseconds after the beginning."""
    content: dict[str, Any] = {
        "id": uuid(number),
        "at_ms": T0 + number,
        "route": "r",
        "epoch": "e",
        "period": 1,
        "revision": 1,
        "variant": variant,
        "model": "m",
        "version": "1",
        "role": "primary",
        "reason": "unit",
        "propensity": 0.5,
        "status": 200,
    }
    if "prediction" in more:
        content["predicted"] = True
    return Prediction(**{**content, **more})


def row(prediction: Prediction, line: Literal["call", "open", "close"] = "call", writer: str = WRITER) -> StoredCall:
    """The call as it is read from its line, and stored."""
    batch = Batch()
    batch.read([sealed(call_line(prediction, line), 0)[:-1]], writer)
    [made] = batch.calls
    return made


def event(number: int, value: Any, at: int, **more: Any) -> Feedback:
    """An event about request ``number``, received ``at`` milliseconds after the beginning."""
    content: dict[str, Any] = {"metric": "k", "value": value, "received_ms": T0 + at, "prediction_id": uuid(number)}
    return Feedback(**{**content, **more})


def keyed(key: str, value: Any, at: int, **more: Any) -> Feedback:
    """An event about the predictions of route "r" that have this key."""
    content: dict[str, Any] = {"metric": "k", "value": value, "received_ms": T0 + at, "route": "r", "key": key}
    return Feedback(**{**content, **more})


def metric(kind: str = "label", name: str = "k", **more: Any) -> Metric:
    """A metric with a window of one second; its definition tells its fields apart."""
    content: dict[str, Any] = {
        "name": name,
        "kind": kind,
        "score": "match" if kind == "label" else None,
        "better": "higher",
        "window_ms": 1_000,
        "mature": "window",
        "missing": None,
        "fold": "any" if kind == "event" else "last",
        "range": None,
    }
    content |= more
    content.setdefault("definition", f"{name}:{sorted(map(str, content.items()))}")
    return Metric(**content)


def snapshot(*metrics: Metric, revision: int = 1, **route: Any) -> Snapshot:
    """One route, "r", with these metrics."""
    content: dict[str, Any] = {
        "name": "r",
        "path": "/r",
        "policy": "ab",
        "salt": "r",
        "epoch": "e",
        "period": 1,
        "revision": revision,
        "plan": Weighted((("a", 0.5), ("b", 0.5))),
        "variants": ("a", "b"),
        "baseline": "a",
        "by_unit": False,
        "metrics": tuple(metric.name for metric in metrics),
    }
    return Snapshot(
        revision=revision,
        config="c",
        metrics={metric.name: metric for metric in metrics},
        routes={"r": Route(**{**content, **route})},
    )


@dataclass
class Journal:
    """The folder that workers write, by hand."""

    path: Path
    segment: dict[tuple[str, str], int] = field(default_factory=dict)
    number: dict[tuple[str, str], int] = field(default_factory=dict)

    def write(self, folder: str, lines: Iterable[bytes], writer: str = WRITER) -> None:
        self.put(folder, self.sealed(folder, lines, writer), writer)

    def put(self, folder: str, content: bytes, writer: str = WRITER) -> None:
        """Write bytes as they are."""
        self.file(folder, writer).parent.mkdir(parents=True, exist_ok=True)
        with open(self.file(folder, writer), "ab") as file:
            file.write(content)

    def sealed(self, folder: str, lines: Iterable[bytes], writer: str = WRITER) -> bytes:
        """The next lines as they are written, sealed; the first ones of a segment after its header."""
        file, listed = self.file(folder, writer), list(lines)
        if listed and not (file.exists() and file.stat().st_size):
            listed.insert(0, header(writer))
        number = self.number.get((folder, writer), 0)
        self.number[folder, writer] = number + len(listed)
        return b"".join(sealed(line, number + place) for place, line in enumerate(listed))

    def file(self, folder: str = PREDICTIONS, writer: str = WRITER) -> Path:
        return self.path / folder / f"{writer}-{self.segment.get((folder, writer), 0):06d}.jsonl"

    def roll(self, folder: str = PREDICTIONS, writer: str = WRITER) -> None:
        """Begin the next segment."""
        self.segment[folder, writer] = self.segment.get((folder, writer), 0) + 1
        self.write(folder, [], writer)

    def calls(self, *calls: Prediction, writer: str = WRITER) -> None:
        self.write(PREDICTIONS, map(call_line, calls), writer)

    def opens(self, *calls: Prediction, writer: str = WRITER) -> None:
        self.write(PREDICTIONS, (call_line(one, "open") for one in calls), writer)

    def closes(self, *calls: Prediction, writer: str = WRITER) -> None:
        self.write(PREDICTIONS, (call_line(one, "close") for one in calls), writer)

    def events(self, *events: Feedback, writer: str = WRITER) -> None:
        self.write(FEEDBACK, map(feedback_line, events), writer)

    def beat(self, at: int, writer: str = WRITER) -> None:
        """Write a heartbeat: everything before ``at`` is in the journal."""
        self.write(PREDICTIONS, [mark_line("beat", T0 + at)], writer)

    def bye(self, at: int, writer: str = WRITER) -> None:
        self.write(PREDICTIONS, [mark_line("bye", T0 + at)], writer)


class Desk:
    """A journal, a store and a recorder between them. Use as ``async with``."""

    def __init__(self, path: Path, *metrics: Metric, store: str = "sqlite", lines: int = 2_000, **route: Any) -> None:
        self.path = path
        self._where = store
        self.journal = Journal(path / "journal")
        self.snapshot = snapshot(*metrics, **route)
        self.status_deltas: list[StatusDelta] = []
        self.met = Counter[str]()
        self._lines = lines

    async def __aenter__(self) -> Desk:
        self.path.mkdir(parents=True, exist_ok=True)
        self.store = await Store.open(self._where, self.path)
        self.restart()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.store.close()

    def restart(self, *, run: str = RUN) -> None:
        """Make a new recorder, which knows only what is in the store; ``run`` is its supervisor's."""
        self.recorder = Recorder(
            self.store,
            self.journal.path,
            run=run,
            on_statuses=self.status_deltas.extend,
            on_counts=lambda counts: self.met.update(+Counter(counts)),
            lines=self._lines,
        )
        self.adopt(self.snapshot)

    def adopt(self, snapshot: Snapshot, at: int = 0) -> None:
        self.snapshot = snapshot
        self.recorder.adopt(snapshot, T0 + at)

    async def record(self) -> Ledger:
        """Record the whole journal, and return what is counted."""
        assert await self.recorder.drain(20)
        return await self.ledger()

    async def read_only(self, on: bool) -> None:
        """Make the store fail, or work again."""
        async with self.store._engine.connect() as connection:
            driver: Any = (await connection.get_raw_connection()).driver_connection
            if self._where == "sqlite":
                await driver.execute_fetchall(f"PRAGMA query_only = {int(on)}")
            else:
                await driver.set_read_only(on)

    async def ledger(self) -> Ledger:
        return await self.store.ledger("r", "e")


def at_desk(desk: Desk, story: Callable[[Desk], Awaitable[T]]) -> T:
    """Run a story in its own event loop."""

    async def run() -> T:
        async with desk:
            return await story(desk)

    return asyncio.run(run())


def sums(ledger: Ledger, phase: str = "mature", against: str = "") -> dict[str, tuple[float, float]]:
    """(ΣM, ΣD) of each variant's own values of metric "k" (or pairs), in all roles."""
    found: dict[str, tuple[float, float]] = {}
    for key, tally in ledger.tallies.items():
        if (key.metric, key.phase, key.against) == ("k", phase, against):
            m, d = found.get(key.variant, (0.0, 0.0))
            found[key.variant] = (m + tally.m, d + tally.d)
    return found


def statuses(ledger: Ledger) -> dict[str, int]:
    """How many events of the route have each status."""
    found: dict[str, int] = {}
    for (_, status), n in ledger.feedback.items():
        found[status] = found.get(status, 0) + n
    return found


def comparable(tallies: dict[TallyKey, Tally] | Any) -> dict[TallyKey, tuple[Any, ...]]:
    """Tallies without ``d_max``, which never decreases and so depends on the order of the events."""
    return {key: astuple(replace(tally, d_max=0.0)) for key, tally in tallies.items()}
