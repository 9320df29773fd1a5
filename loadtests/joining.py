"""``python -m loadtests.joining``: feedback in random order is joined fast, and the tallies come out exactly right.

Rule: a journal as workers write it, the recorder and the join as the controller runs them, and a store of its own. The
final counts are compared, number by number, with a fold in memory that knows every event from the beginning: every
tally of every variant, and the status of every event. Nothing here opens a socket to listen or send.

If other programs use the machine too, the CPU per event (of all threads) says more than the events per second.

Of the events one in ten comes twice, one in twenty before its prediction is recorded, and one in twenty is about a
prediction that never existed.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import random
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Final

from gateway.control.__main__ import GC_THRESHOLD
from gateway.control.record.recorder import Recorder
from gateway.journal.appender import Appender
from gateway.journal.segments import FEEDBACK, PREDICTIONS
from gateway.store import Store
from gateway.store.counts import tallies
from gateway.store.counts.ledger import Ledger, TallyKey
from gateway.store.rows.feedback_status import UNKNOWN
from loadtests import postgresql
from policies.types import Evidence, Tally
from router.compile import compile_snapshot
from router.config.config import parse
from router.records import Feedback, Prediction, feedback_line, mark_line
from router.snapshot import Snapshot
from tests.router.journal_lines import call_line

CONFIG: Final = """
schema_version = 1

[backends]
one = { url = "http://127.0.0.1:1", version = "1" }
two = { url = "http://127.0.0.1:1", version = "2" }

[metrics]
correct = { kind = "label", window = "30d" }

[routes.infer]
path = "/infer"
unit = "header:x-user-id"
prediction = "/answer"
metrics = ["correct"]
baseline = "one"
policy = { kind = "ab", shares = { one = 0.5, two = 0.5 } }
"""

BEGAN_MS: Final = 1_700_000_000_000
WINDOW_MS: Final = 30 * 86_400_000
RUN: Final = f"{BEGAN_MS:012x}"
WRITER: Final = f"{RUN}-00-{BEGAN_MS:012x}"

TWICE, EARLY, ORPHANED = 10, 20, 20  # one in so many
UNITS: Final = 10_000
#: Lines per write, and bytes per segment of the journal.
PART: Final = 1_000
SEGMENT_BYTES: Final = 8 * 2**20
PATIENCE_SECONDS: Final = 3_600.0

Expected = tuple[dict[TallyKey, Tally], Counter[tuple[str, str, str]]]


@dataclass(frozen=True, slots=True)
class Result:
    """How long it took to record the predictions, to join the feedback and to close the windows, and what differs."""

    events: int
    predictions: int
    recording_seconds: float
    joining_seconds: float
    closing_seconds: float
    joining_cpu_seconds: float
    differences: tuple[str, ...]


def prediction_id(number: int) -> str:
    """The id of a request, as UUIDv7 text; its time is in it."""
    digits = f"{BEGAN_MS + number:012x}7{number % 4096:03x}8{number:015x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def is_orphan(number: int) -> bool:
    return number % ORPHANED == 1


def is_early(number: int) -> bool:
    return number % EARLY == 2


def prediction(snapshot: Snapshot, number: int) -> Prediction:
    """The row of a request: its variant and its answer depend on its number alone."""
    route, unit = snapshot.routes["infer"], number * 7919 % UNITS
    variant = "one" if unit % 2 else "two"
    return Prediction(
        id=prediction_id(number),
        at_ms=BEGAN_MS + number,
        route=route.name,
        epoch=route.epoch,
        period=route.period,
        revision=route.revision,
        variant=variant,
        model=variant,
        version="1" if variant == "one" else "2",
        role="primary",
        reason="unit",
        propensity=0.5,
        unit=f"user-{unit}",
        by_unit=True,
        status=200,
        latency_ms=2.0,
        predicted=True,
        prediction=number % 5,
    )


def feedback(number: int, received_ms: int) -> Feedback:
    """The label of a request: the prediction is right in three of four."""
    label = number % 5 if number % 4 else number % 5 + 1
    return Feedback(metric="correct", value=label, received_ms=received_ms, prediction_id=prediction_id(number))


def order(events: int, seed: int) -> list[int]:
    """Which request each event is about: one in ten of them twice, in random order."""
    unique = events * TWICE // (TWICE + 1)
    numbers = [*range(unique), *range(0, unique, TWICE)][:events]
    random.Random(seed).shuffle(numbers)
    return numbers


def fold(snapshot: Snapshot, numbers: Sequence[int]) -> Expected:
    """Compute the final counts from all events at once."""
    route, definition = snapshot.routes["infer"], snapshot.metrics["correct"].definition
    units: dict[str, dict[str, tuple[float, float]]] = {"one": defaultdict(lambda: (0.0, 0.0))}
    units["two"] = defaultdict(lambda: (0.0, 0.0))
    statuses: Counter[tuple[str, str, str]] = Counter()
    for number, times in Counter(numbers).items():
        known = UNKNOWN if is_orphan(number) else route.name
        statuses[known, "correct", "repeated"] += times - 1
        statuses[known, "correct", "orphaned" if is_orphan(number) else "joined"] += 1
        if not is_orphan(number):
            unit = number * 7919 % UNITS
            of_variant = units["one" if unit % 2 else "two"]
            m, d = of_variant[f"user-{unit}"]
            of_variant[f"user-{unit}"] = (m + float(number % 4 > 0), d + 1.0)
    found = {}
    for variant, version in (("one", "1"), ("two", "2")):
        for phase in ("live", "mature"):
            key = TallyKey(route.period, variant, version, "primary", "", "correct", definition, phase)
            whole = Tally.of_units(units[variant].values())
            found[key] = whole if phase == "mature" else replace(whole, m3=0.0, m2d=0.0, md2=0.0, d3=0.0)
    return found, +statuses


async def measure(events: int, *, seed: int = 1, url: str = "sqlite") -> Result:
    """Join so many events in the store at ``url`` and compare what is counted with the fold."""
    snapshot = compile_snapshot(
        parse(CONFIG, "joining.toml"), previous=None, evidence=lambda *_: Evidence(), now_ms=BEGAN_MS, revision=1
    )
    numbers = order(events, seed)
    real = [number for number in range(max(numbers) + 1) if not is_orphan(number)]
    with tempfile.TemporaryDirectory(prefix="turnout-joining-") as name:
        journal, store = Path(name) / "journal", await Store.open(url, Path(name))
        recorder = Recorder(store, journal, run=RUN)
        recorder.adopt(snapshot, BEGAN_MS)
        write = _Writer(journal)
        try:
            write(PREDICTIONS, (call_line(prediction(snapshot, n)) for n in real if not is_early(n)))
            recording, _ = await _drained(recorder)
            sent_ms = BEGAN_MS + len(real)
            write(FEEDBACK, (feedback_line(feedback(n, sent_ms + i)) for i, n in enumerate(numbers)))
            joining, cpu = await _drained(recorder)
            write(PREDICTIONS, (call_line(prediction(snapshot, n)) for n in real if is_early(n)))
            late = await _drained(recorder)
            write(PREDICTIONS, [mark_line("beat", sent_ms + events + WINDOW_MS + 10_000)])
            closing, _ = await _drained(recorder)
            ledger = await store.ledger("infer", snapshot.routes["infer"].epoch)
            async with store.begin() as connection:
                counted = dict(await tallies.feedback_total(connection))
        finally:
            write.close()
            await store.close()
    differences = tuple(_differences(fold(snapshot, numbers), ledger, counted, len(real)))
    return Result(events, len(real), recording, joining + late[0], closing, cpu + late[1], differences)


class _Writer:
    """Writes segments as workers do, many lines at a time."""

    def __init__(self, journal: Path) -> None:
        self._appenders = {}
        for folder in (PREDICTIONS, FEEDBACK):
            (journal / folder).mkdir(parents=True)
            self._appenders[folder] = Appender(journal / folder, WRITER, roll_bytes=SEGMENT_BYTES)

    def __call__(self, folder: str, lines: Iterator[bytes] | Sequence[bytes]) -> None:
        left = iter(lines)
        while part := list(islice(left, PART)):
            self._appenders[folder].append(b"".join(part))

    def close(self) -> None:
        for appender in self._appenders.values():
            appender.close()


async def _drained(recorder: Recorder) -> tuple[float, float]:
    """Record to the journal's end; return how many seconds that took, and how many of CPU."""
    began, cpu = time.perf_counter(), time.process_time()
    if not await recorder.drain(PATIENCE_SECONDS):
        raise SystemExit("the journal could not be recorded to its end")
    return time.perf_counter() - began, time.process_time() - cpu


def _differences(
    expected: Expected, ledger: Ledger, counted: dict[tuple[str, str, str], int], predictions: int
) -> Iterator[str]:
    """List every count that differs from the fold."""
    tallied, statuses = expected
    found = {key: tally for key, tally in ledger.tallies.items() if (key.metric, key.against) == ("correct", "")}
    for key, tally in tallied.items():
        if (mine := found.get(key)) != tally:
            yield f"{key.variant}, {key.phase}: {mine}, expected {tally}"
    closed = sum(tally.d for key, tally in found.items() if key.phase == "closed")
    if closed != predictions:
        yield f"{closed:g} windows closed, expected {predictions}"
    for place in sorted({*statuses, *counted}):
        if statuses[place] != counted.get(place, 0):
            yield f"{' '.join(place)}: {counted.get(place, 0)} events, expected {statuses[place]}"


def report(result: Result, where: str) -> str:
    """Return what was measured as one line, and every difference as another."""
    rate = result.events / max(result.joining_seconds, 1e-9)
    line = (
        f"{where}: {result.events:,} events about {result.predictions:,} predictions joined in "
        f"{result.joining_seconds:.1f} s, {rate:,.0f} events/s, "
        f"{1e6 * result.joining_cpu_seconds / result.events:.0f} µs of CPU each; before that the predictions in "
        f"{result.recording_seconds:.1f} s, after that the windows in {result.closing_seconds:.1f} s; "
        + ("equal to the fold in memory" if not result.differences else f"{len(result.differences)} DIFFERENCES")
    )
    return "\n".join([line, *result.differences])


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m loadtests.joining", description="Feedback joined per second.")
    parser.add_argument("--events", type=int, default=1_000_000, help="feedback events (1000000)")
    parser.add_argument("--seed", type=int, default=1, help="of the order in which they arrive (1)")
    parser.add_argument("--store", choices=["sqlite", "postgresql"], default="sqlite", help="where they are joined")
    options = parser.parse_args()
    if options.events < 100:
        parser.error("events must be 100 or more")
    gc.set_threshold(*GC_THRESHOLD)
    running = postgresql.running() if options.store == "postgresql" else nullcontext()
    with running as server:
        url = "sqlite" if server is None else server.url(server.new_schema())
        result = asyncio.run(measure(options.events, seed=options.seed, url=url))
    print(report(result, options.store))
    if result.differences:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
