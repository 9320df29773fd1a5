"""Looks at triggers: about once a second at those whose route moved, whose time has come, or that somebody asked for.

Rule: a decider. A trigger whose route did not move costs a comparison; all together take about ``BUDGET_SECONDS`` of a
pass, and those that are left come first in the next. What a firing does besides its event (freeze, pause) is owed in
its standing until it is done, so that a crash in between leaves nothing out; done twice it changes nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, Set
from dataclasses import replace
from time import monotonic
from typing import Final, NamedTuple, Protocol

from gateway.control.event_log import EventLog, now_ms
from gateway.control.opened import Opened
from gateway.control.steer.steering import Known
from gateway.store import reason
from gateway.triggers.firing import TriggersStored, read_triggers, store_advance
from gateway.triggers.trigger_reading import TriggerReader
from policies.rollouts.standing import Command, Moved
from router.config.config import Config
from router.settings.trigger import Trigger
from router.snapshot import Snapshot
from router.triggers.advance import AskedToFire, TriggerAdvanced, TriggerStanding, advance, next_look_ms
from router.triggers.condition import ConditionJudged

logger = logging.getLogger(__name__)

#: While its route moves a trigger is looked at at most so often, after so many times as long as it took.
EVERY_SECONDS: Final = 5.0
REST: Final = 50
BUDGET_SECONDS: Final = 0.03
#: It is looked at this often though nothing moved: windows of time go on.
LONGEST_MS: Final = 5 * 60_000


class Freezing(Protocol):
    """Freezes each route to its variant."""

    def __call__(self, variants: Mapping[str, str | None], **of: str) -> Awaitable[bool]: ...


class _Looked(NamedTuple):
    """The last look at a trigger: of which counts and settings, when the next one is due, and what it saw."""

    of: tuple[object, ...]
    rests_until: float
    due_ms: int
    judged: tuple[ConditionJudged, ...] = ()


class TriggerWatch:
    """Watches the triggers of the file. ``known`` and ``settle`` are how a route is moved; ``clock`` is in seconds."""

    def __init__(
        self,
        event_log: EventLog,
        snapshot: Callable[[], Snapshot],
        freeze: Freezing,
        known: Callable[[str], Awaitable[Known]],
        settle: Callable[[Mapping[str, Moved]], Awaitable[None]],
        clock: Callable[[], float] = monotonic,
        wall: Callable[[], int] = now_ms,
    ) -> None:
        self._event_log = event_log
        self._snapshot = snapshot
        self._freeze = freeze
        self._known = known
        self._settle = settle
        self._clock = clock
        self._wall = wall
        self._looked: dict[str, _Looked] = {}
        self._failed: set[str] = set()

    def judged(self, name: str) -> tuple[ConditionJudged, ...]:
        """Return what a trigger's conditions were when it was looked at last, at this node."""
        looked = self._looked.get(name)
        return () if looked is None else looked.judged

    async def __call__(self, opened: Opened, config: Config, matured: Set[str]) -> None:
        """Look at the triggers whose turn it is, those that somebody asked for first."""
        triggers = config.triggers
        self._looked = {name: one for name, one in self._looked.items() if name in triggers}
        if not triggers:
            return
        stored, versions = await read_triggers(opened.store), await opened.store.ledger_versions()
        snapshot = self._snapshot()
        reader, begun = TriggerReader(opened.store, snapshot, config), self._clock()
        for name in self._in_turn(config, snapshot, versions.moved, stored):
            of = self._of(snapshot, triggers[name], versions.moved)
            await self._look(opened, triggers[name], of, reader, stored)
            if self._clock() - begun > BUDGET_SECONDS:
                return

    def _in_turn(
        self, config: Config, snapshot: Snapshot, moved: Mapping[str, int], stored: TriggersStored
    ) -> list[str]:
        """Return the triggers to look at, in their order."""
        now, at_ms, waiting = self._clock(), self._wall(), list[tuple[int, float, str]]()
        for name, trigger in config.triggers.items():
            if trigger.route not in snapshot.routes:
                continue
            standing, looked = stored.standings.get(name), self._looked.get(name)
            if name in stored.asked or (standing is not None and standing.owed):
                waiting.append((0, 0.0, name))
            elif looked is None or at_ms >= looked.due_ms:
                waiting.append((1, 0.0 if looked is None else looked.rests_until, name))
            elif looked.of != self._of(snapshot, trigger, moved) and now >= looked.rests_until:
                waiting.append((1, looked.rests_until, name))
        return [name for *_, name in sorted(waiting)]

    def _of(self, snapshot: Snapshot, trigger: Trigger, moved: Mapping[str, int]) -> tuple[object, ...]:
        return moved.get(trigger.route, 0), snapshot.config, snapshot.routes[trigger.route].epoch

    async def _look(
        self, opened: Opened, trigger: Trigger, of: tuple[object, ...], reader: TriggerReader, stored: TriggersStored
    ) -> None:
        name, began, at_ms = trigger.name, self._clock(), self._wall()
        # If it fails it is tried again, in its turn.
        self._looked[name] = _Looked((), began + EVERY_SECONDS, at_ms + LONGEST_MS, self.judged(name))
        try:
            before = stored.standings.get(name)
            advanced = await self._advanced(opened, trigger, before, reader, stored.asked.get(name))
            took = self._clock() - began
            due = next_look_ms(trigger, advanced.standing)
            # What is past is waited for by something else, such as a cool-down or data.
            due = at_ms + LONGEST_MS if due is None or due <= at_ms else min(due, at_ms + LONGEST_MS)
            self._looked[name] = _Looked(of, began + max(EVERY_SECONDS, REST * took), due, advanced.judged)
            if advanced.standing.owed:
                await self._do(opened, trigger, advanced.standing)
            self._failed.discard(name)
        except Exception as error:
            if name not in self._failed:
                logger.error("trigger %s cannot be looked at: %s", name, reason(error))
                logger.debug("trigger %s cannot be looked at", name, exc_info=error)
            self._failed.add(name)

    async def _advanced(
        self,
        opened: Opened,
        trigger: Trigger,
        before: TriggerStanding | None,
        reader: TriggerReader,
        asked: AskedToFire | None,
    ) -> TriggerAdvanced:
        seen = await reader.read(trigger, self._wall())
        advanced = advance(trigger, before, seen, asked)
        if advanced.standing != before:
            sinks = self._snapshot().sinks
            self._event_log.show(await store_advance(opened.store, trigger, before, advanced, sinks, asked))
        return advanced

    async def _do(self, opened: Opened, trigger: Trigger, standing: TriggerStanding) -> None:
        """Do what a firing owes, one after the other, and note what is done."""
        for owed in standing.owed:
            verb, _, to = owed.partition(":")
            why = f"trigger {trigger.name} fired"
            if verb == "freeze":
                await self._freeze({trigger.route: to}, who=f"trigger {trigger.name}", why=why, via="trigger")
            else:
                await self._pause(trigger, why)
            done = replace(standing, owed=standing.owed[1:])
            await store_advance(opened.store, trigger, standing, TriggerAdvanced(done, (), None), {}, None)
            standing = done

    async def _pause(self, trigger: Trigger, why: str) -> None:
        known = await self._known(trigger.route)
        command = Command(verb="pause", who=f"trigger {trigger.name}", why=why)
        moved = known.policy.act(known.standing, command, known.findings, known.now_ms)
        if isinstance(moved, Moved):
            await self._settle({trigger.route: moved})
        else:
            said = f"trigger {trigger.name} would pause the route: {moved.why}"
            self._event_log.note("trigger_refused", trigger.route, said)
