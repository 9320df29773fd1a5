"""Setting aside the one line, event or prediction that cannot be recorded, so that all others are.

Rule: what fails is set aside by its identity, counted and listed; nothing beside it is. The error must be of a row
(``row_errors``): trouble of the store is raised, and nothing is set aside.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from time import time_ns

from gateway.control.record.committer import Committer
from gateway.control.record.drain import Read
from gateway.control.record.row_errors import is_of_a_row
from gateway.control.record.state import StoreState
from gateway.control.record.transaction import queue_events, write_positions
from gateway.store import reason
from gateway.store.counts import tallies
from gateway.store.counts.definitions import Definition
from gateway.store.counts.deltas import Deltas
from gateway.store.counts.tallies import TallyCache
from gateway.store.rows import feedback_events, set_aside_items
from gateway.store.rows.feedback_status import UNKNOWN
from gateway.store.rows.recorded import Recorded
from gateway.store.rows.set_aside_items import SetAside
from router.extract import identifier

logger = logging.getLogger(__name__)


class Isolation:
    """Finds and sets aside what cannot be recorded, in transactions of its own."""

    def __init__(self, committer: Committer) -> None:
        self._committer = committer

    async def set_unreadable_aside(self, read: Read, error: Exception) -> bool:
        """Set aside the stored events about these lines' predictions that cannot be read; return whether any was."""
        async with self._committer.store.change() as connection:
            unreadable = await feedback_events.unreadable(connection, _predictions(read))
        if unreadable:
            await self._set_aside(unreadable, error)
        return bool(unreadable)

    async def set_line_aside(self, state: StoreState, read: Read, error: Exception) -> None:
        """Set aside the one line that was read, and go on behind it."""
        deltas = Deltas()
        deltas.counts["unrecordable_lines"] += 1
        places = [f"byte {end} of {name}" for name, end in read.offsets.items()] or ["a shipped line"]
        for _ in read.batch.events:
            deltas.status(UNKNOWN, UNKNOWN, "set_aside")
        items = [
            SetAside(_now_ms(), "line", place, None if one is None else identifier(one), reason(error))
            for place in places
            for one in _predictions(read) or (None,)
        ]
        async with self._committer.store.change() as connection:
            await write_positions(connection, state, read)
            await set_aside_items.note(connection, items)
            await tallies.apply(connection, deltas, state.tally_cache)
        state.segments.recorded(read.offsets, read.numbers)
        self._committer.committed(deltas, {})
        for place in places:
            logger.error("the line that ends at %s cannot be recorded: %s", place, reason(error))

    async def set_due_work_aside(self) -> None:
        """Apply the watermark to the first of everything that is due, one at a time; set aside the one that fails."""
        state = await self._committer.current_state()
        for piece in state.joiner.due_pieces():
            tried: list[int | str] = []
            error = await self._try_first(piece, tried)
            if error is None:
                continue
            if len(tried) > 1:  # predictions of one millisecond, of which not all need be at fault
                tried = [one for one in tried if await self._try_first(piece, [], only=one) is not None] or tried
            return await self._set_aside(tried, error)
        return None

    async def _try_first(
        self, piece: Definition | None, tried: list[int | str], only: int | str | None = None
    ) -> Exception | None:
        """Apply the watermark to the first event or predictions of a piece; return the error of a row, if there is one.

        Their numbers or ids are added to ``tried``. With ``only``, that prediction alone is tried, and the transaction
        undone. Raises what is the store's trouble.
        """
        committer = self._committer
        state = await committer.take_state()
        deltas = committer.new_deltas(state, Recorded())
        dropped: Mapping[str, int] = {}
        try:
            async with committer.store.change() as connection:
                if only is not None and piece is not None:
                    first = await state.joiner.first_closing(connection, piece)
                    state.joiner.windows.set_aside |= {str(one) for one in first} - {str(only)}
                await state.joiner.apply_watermark_to_first(connection, deltas, piece, tried)
                if deltas.recorded is not None:
                    dropped = await queue_events(connection, deltas.recorded, committer.sinks)
                await tallies.apply(connection, deltas, state.tally_cache)
                if only is not None:
                    raise _Undo
        except _Undo:
            return None
        except Exception as error:
            state.discard()
            if not is_of_a_row(error) or not (tried or only):
                raise
            return error
        committer.state = state
        committer.committed(deltas, dropped)
        return None

    async def _set_aside(self, found: Sequence[int | str], error: Exception) -> None:
        """Set stored events (by number) and predictions (by id) aside."""
        self._committer.state, deltas = None, Deltas()
        items = list[SetAside]()
        async with self._committer.store.change() as connection:
            for one in found:
                if isinstance(one, int):
                    target, route, metric, status = await set_aside_items.event(connection, one)
                    deltas.status(route, metric, status, -1)
                    deltas.status(route, metric, "set_aside")
                    items.append(SetAside(_now_ms(), "event", str(one), target, reason(error)))
                    deltas.counts["unsettled_events"] += 1
                else:
                    items.append(SetAside(_now_ms(), "prediction", one, one, reason(error)))
                    deltas.counts["unsettled_predictions"] += 1
            await set_aside_items.note(connection, items)
            await tallies.apply(connection, deltas, TallyCache())
        self._committer.committed(deltas, {})
        for item in items:
            logger.error("%s %s cannot be settled and is set aside: %s", item.kind, item.identity, reason(error))


class _Undo(Exception):
    """Undoes a transaction that was only tried."""


def _predictions(read: Read) -> Collection[str]:
    """Return the predictions that the lines are about."""
    about = {call.id for call in read.batch.calls}
    return about | {event.prediction_id for event in read.batch.events if event.prediction_id is not None}


def _now_ms() -> int:
    return time_ns() // 1_000_000
