"""What the recorder writes in one transaction: a batch of lines with all that follows from it.

Rule: offsets, rows, tallies, statuses and the watermark are written together. Each function works inside its caller's
transaction; what it changes in memory holds only if that commits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from time import time_ns

from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.control.join.joiner import Joiner
from gateway.control.record.drain import Read
from gateway.control.record.lines import Batch
from gateway.control.record.state import StoreState
from gateway.proxy.exchange.ids import new_id
from gateway.sinks.cloudevents import events
from gateway.store.audit import Entry
from gateway.store.counts import plans, positions, tallies
from gateway.store.counts.definitions import Definition, newly_defined
from gateway.store.counts.deltas import Deltas
from gateway.store.fleet import shipped
from gateway.store.rows import bodies, calls, outbox
from gateway.store.rows.feedback_status import UNKNOWN
from gateway.store.rows.outbox import Made
from gateway.store.rows.recorded import Announced, Recorded
from router.exposure import exposure
from router.snapshot import Sink, Snapshot


async def write_batch(
    connection: AsyncConnection,
    state: StoreState,
    read: Read,
    dead: Collection[str],
    deltas: Deltas,
    present: Collection[str] | None,
    limit: int,
) -> bool:
    """Write a batch with all that follows from it; return whether the watermark allows more at once.

    ``dead`` are writers that will never write again, ``present`` the nodes that the watermark waits for (None: all).
    The watermark is applied to about ``limit`` predictions and events.
    """
    joiner, writers, batch = state.joiner, state.writers, read.batch
    for name in batch.writers:
        writers.add(name)
    await joiner.record(connection, batch.calls, deltas)
    await joiner.learn(connection, batch.events, deltas)
    if batch.bodies:
        await bodies.write(connection, batch.bodies)
    _mark_writers(state, batch)
    streaming = {call.row.open_by for call in batch.calls if call.row.open_by is not None}
    drained = state.segments.drained_writers(set(dead) & {*writers.living(), *streaming}, read.offsets)
    for name in (*drained, *batch.gone):
        await joiner.abandon(connection, name, deltas)
        writers.mark_gone(name)
    if batch.rejected:
        deltas.status(UNKNOWN, UNKNOWN, "rejected", batch.rejected)
    deltas.counts.update(corrupt_lines=batch.corrupt, torn_lines=batch.torn, lost_lines=batch.lost)
    more, advanced = False, writers.advance(present)
    if advanced or joiner.work_due:
        joiner.watermark_ms = writers.watermark_ms
        more = await joiner.apply_watermark(connection, deltas, limit)
    await tallies.apply(connection, deltas, state.tally_cache)
    await write_positions(connection, state, read)
    await positions.write_writers(connection, writers.take_changed(), writers.watermark_ms if advanced else None)
    await _forget_segments(connection, state)
    return more


async def write_positions(connection: AsyncConnection, state: StoreState, read: Read) -> None:
    """Write how far the journal, and what other nodes shipped, was read."""
    await positions.write_offsets(connection, read.offsets, state.prefix)
    await positions.write_numbers(connection, read.numbers, state.prefix)
    await shipped.mark_recorded(connection, read.taken)


async def queue_events(connection: AsyncConnection, recorded: Recorded, sinks: Mapping[str, Sink]) -> Mapping[str, int]:
    """Queue events for the sinks; return how many found no room, by each sink that there were any for."""
    now_ms = time_ns() // 1_000_000
    made = {
        name: Made(
            await asyncio.to_thread(list, events(sink, recorded, now_ms)),
            sink.max_pending_bytes,
            sink.kind == "webhook",
        )
        for name, sink in sinks.items()
    }
    return await outbox.add(connection, made, now_ms)


async def announce_entry(connection: AsyncConnection, entry: Entry, sinks: Mapping[str, Sink], now_ms: int) -> None:
    """Queue an ``act`` event of an entry of the audit log: before the entry is appended, which takes the last lock."""
    data = {
        "change": entry.act,
        "sentence": entry.changed,
        "who": entry.who,
        "via": entry.via,
        "reason": entry.why,
        "detail": entry.body,
    }
    announced = Announced("act", now_ms, new_id(now_ms), entry.route, data)
    await queue_events(connection, Recorded(announced=[announced]), sinks)


async def begin_definitions(connection: AsyncConnection, joiner: Joiner, snapshot: Snapshot, now_ms: int) -> set[str]:
    """Begin the definitions that are new with this snapshot; return the routes that have any."""
    begun = set()
    for route in snapshot.routes.values():
        metrics = [snapshot.metrics[name] for name in route.metrics]
        if route.require_exposure:
            metrics.append(exposure(metrics))
        fresh = newly_defined(joiner.definitions, route.name, metrics, route.key_rule)
        if not fresh:
            continue
        begun.add(route.name)
        youngest = await calls.latest_ms(connection, route.name)
        # A route without predictions has no past to preserve: what is known now holds for whatever will be read.
        since = 0 if youngest is None else max(now_ms, youngest + 1)
        for name, metric in fresh.items():
            definition = Definition(route.name, name, since, metric, closed_until=since, key_rule=route.key_rule)
            await plans.write_definition(connection, definition)
            joiner.definitions.append(definition)
            joiner.work_due = True
    return begun


def _mark_writers(state: StoreState, batch: Batch) -> None:
    """Take the heartbeats and clean ends of writers that stand in a batch."""
    for name, at_ms, bye in batch.marks:
        state.writers.add(name)
        state.writers.mark(name, at_ms, bye=bye)
        if bye and name in batch.writers:
            batch.gone.append(name)  # what was shipped is in order: nothing of it can come after its last line


async def _forget_segments(connection: AsyncConnection, state: StoreState) -> None:
    """Forget the positions in segments, and of writers, whose files are gone."""
    forgotten = state.segments.forgotten()
    await positions.forget_offsets(connection, forgotten, state.prefix)
    for name in forgotten:
        del state.segments.offsets[name]
    silent = state.segments.silent()
    await positions.forget_numbers(connection, silent, state.prefix)
    for name in silent:
        del state.segments.numbers[name]
