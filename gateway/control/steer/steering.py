"""Moves routes: hands what is known of each to its policy about once a second, and stores what that decides.

Rule: two lanes. Counts of calls alone are looked at several times a second, for all routes in one statement: a variant
that fails fast is out at once. Everything else is judged with the verdicts, as counts move and as time allows. A policy
is asked each second with what was known last; only when it would move is that looked up anew, and the policy asked
again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from time import monotonic
from typing import Final, NamedTuple

from gateway.control.event_log import now_ms
from gateway.control.opened import Opened
from gateway.control.steer.burns import Burns, watches
from gateway.control.steer.route_findings import findings_of
from gateway.report.account import Account, account_of
from gateway.report.verdict import Verdict, sample_ratio_of, verdict
from policies import Policy
from policies.rollouts.standing import START, Findings, Moved, Refused, Standing
from router.config.config import Config
from router.snapshot import Snapshot

logger = logging.getLogger(__name__)

#: About how long a pass looks up what is known of routes that would move; those that are left have the next pass.
BUDGET_SECONDS: Final = 0.03

#: With recording farther behind, what is counted is not what happens.
BEHIND_SECONDS: Final = 10.0

#: What is known of a route is looked up again at most so often while its counts move, after so many times as long as it
#: took; and all together take at most so long in a pass. Verdicts are made anyway: what they know is taken over.
EVERY_SECONDS: Final = 1.0
REST: Final = 50
LEARNING_SECONDS: Final = 0.005

#: Stores moves, and puts in force what follows from them.
Settle = Callable[[Mapping[str, Moved]], Awaitable[None]]


class _Learned(NamedTuple):
    """What was learned of a route: of which step and settings, at which count of moves, when, and how long it took."""

    of: tuple[object, ...]
    moved: int
    at: float
    took: float
    findings: Findings


class Known(NamedTuple):
    """A route's policy, where it stands, and what is known of it at ``now_ms``: what an act is judged by."""

    policy: Policy
    standing: Standing
    findings: Findings
    now_ms: int


#: What an act does to a route, given what is known of it.
Doing = Callable[[Known], Moved | Refused]


class NotHere(Exception):
    """Nothing can be changed at this node now; the message says why, and what would do."""


class Steering:
    """Advances every route of the file. ``standings`` are those that are stored; ``clock`` is monotonic, in seconds."""

    def __init__(
        self,
        snapshot: Callable[[], Snapshot],
        standings: Callable[[], Mapping[str, Standing]],
        settle: Settle,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._snapshot = snapshot
        self._standings = standings
        self._settle = settle
        self._clock = clock
        self._burns = Burns()
        self._learned: dict[str, _Learned] = {}
        self._moved: Mapping[str, int] = {}
        self._failed: set[str] = set()

    async def __call__(self, opened: Opened, config: Config, matured: object) -> None:
        """Advance every route: those in which a variant burns first, then those that would move by what is known."""
        await self.glance(opened, config)
        snapshot, behind, moves = self._snapshot(), _behind(opened), dict[str, Moved]()
        self._learned = {name: one for name, one in self._learned.items() if name in snapshot.routes}
        would, waiting = self._in_turn(config, snapshot, behind)
        for names, seconds in ((would, BUDGET_SECONDS), (waiting, LEARNING_SECONDS)):
            begun = self._clock()
            for name in names:
                known = await self.known(opened, config, name)
                moved = self._advanced(name, known.policy, known.standing, known.findings)
                if moved is not None:
                    moves[name] = moved
                if self._clock() - begun > seconds:
                    break
        if moves:
            await self._settle(moves)

    async def glance(self, opened: Opened, config: Config) -> None:
        """Look at counts of calls alone, and take out at once what fails fast. Raises what the store raises."""
        snapshot, standings = self._snapshot(), self._standings()
        watched = {
            name: standings.get(name, START)
            for name, route in config.routes.items()
            if name in snapshot.routes and watches(route)
        }
        now, burning = await self._burns.look(opened.store, snapshot, watched)
        self._moved = now.moved
        moves = dict[str, Moved]()
        for name in burning:
            findings = self._latest(snapshot, name)
            moved = self._advanced(name, config.routes[name].policy, watched[name], findings)
            if moved is not None and not self._is_learned(snapshot, name):
                # It might pass a step: that takes more than counts of calls.
                known = await self.known(opened, config, name)
                moved = self._advanced(name, known.policy, known.standing, known.findings)
            if moved is not None:
                moves[name] = moved
        if moves:
            await self._settle(moves)

    async def known(self, opened: Opened, config: Config, name: str) -> Known:
        """Look up what is known of a route now. Raises KeyError without such a route, and what the store raises."""
        snapshot, policy, began = self._snapshot(), config.routes[name].policy, self._clock()
        ledger = await opened.store.ledger(name, snapshot.routes[name].epoch)
        account = account_of(snapshot, ledger, policy if config.hash == snapshot.config else None)
        wrong = [_behind(opened)]
        try:
            await asyncio.to_thread(self._learn, account, None, began)
        except Exception as error:
            logger.error("what is known of route %s cannot be computed: %r", name, error)
            logger.debug("what is known of route %s cannot be computed", name, exc_info=error)
            wrong.append(f"what is known cannot be computed: {type(error).__name__}: {error}")
        findings = self._latest(snapshot, name)
        findings = replace(findings, errors=(*findings.errors, *filter(None, wrong)))
        return Known(policy, self._standings().get(name, START), findings, now_ms())

    def learn(self, account: Account, judged: Verdict) -> None:
        """Called when a route was judged, whoever asked for it, with its account; it may be in a thread."""
        self._learn(account, judged, self._clock())

    def _learn(self, account: Account, judged: Verdict | None, began: float) -> None:
        name = account.route.name
        standing, moved = self._standings().get(name, START), self._moved.get(name, 0)
        judged = verdict(account, sample_ratio_of(account)) if judged is None else judged
        findings = findings_of(account, judged, standing, self._burns.watch(name))
        now = self._clock()
        self._learned[name] = _Learned(self._of(account.snapshot, name, standing), moved, now, now - began, findings)

    def _of(self, snapshot: Snapshot, name: str, standing: Standing) -> tuple[object, ...]:
        """What findings are of: of another step, or with other settings, they are not what is asked for."""
        route = snapshot.routes[name]
        return snapshot.config, route.epoch, standing.since_ms, standing.detail.get("began_ms")

    def _latest(self, snapshot: Snapshot, name: str) -> Findings:
        """Return what was learned last of a route, and what fails fast."""
        if self._is_learned(snapshot, name):
            findings = self._learned[name].findings
        else:
            route = snapshot.routes[name]
            known = {one: snapshot.backends[one].version for one in route.variants}
            findings = Findings(baseline=route.baseline, versions=known)
        return replace(
            findings,
            burning=self._burns.said(name),
            alone=self._burns.alone(name),
            faltering=self._burns.faltering(name),
        )

    def _is_learned(self, snapshot: Snapshot, name: str) -> bool:
        """Return whether something was learned of a route where it stands now."""
        learned = self._learned.get(name)
        return learned is not None and learned.of == self._of(snapshot, name, self._standings().get(name, START))

    def _with_errors(self, findings: Findings, behind: str | None) -> Findings:
        return findings if behind is None else replace(findings, errors=(*findings.errors, behind))

    def _in_turn(self, config: Config, snapshot: Snapshot, behind: str | None) -> tuple[list[str], list[str]]:
        """Return the routes that would move by what was known last; and those of which more may be known, oldest first.

        Where nothing acts on counts as they move, what the verdicts know is enough.
        """
        standings, now, would, waiting = self._standings(), self._clock(), list[str](), list[tuple[float, str]]()
        for name, route in config.routes.items():
            if name not in snapshot.routes or len(route.policy.variants) < 2:
                continue
            standing, learned = standings.get(name, START), self._learned.get(name)
            if learned is None or not self._is_learned(snapshot, name):
                waiting.append((0.0 if learned is None else learned.at, name))
                continue
            findings = self._with_errors(self._latest(snapshot, name), behind)
            if self._advanced(name, route.policy, standing, findings) is not None:
                would.append(name)
            elif watches(route) and learned.moved != self._moved.get(name, 0):
                due = learned.at + max(EVERY_SECONDS, REST * learned.took)
                if now >= due:
                    waiting.append((learned.at, name))
        return would, [name for _, name in sorted(waiting)]

    def _advanced(self, name: str, policy: Policy, standing: Standing, findings: Findings) -> Moved | None:
        """Ask a policy; one that fails leaves its route where it stands, and is logged once."""
        try:
            moved = policy.advance(standing, findings, now_ms())
        except Exception as error:
            if name not in self._failed:
                logger.error("route %s cannot be advanced, it stays where it stands: %r", name, error)
                logger.debug("route %s cannot be advanced", name, exc_info=error)
            self._failed.add(name)
            return None
        self._failed.discard(name)
        return moved


def _behind(opened: Opened) -> str | None:
    """Say that recording is behind, so that nothing can be measured now; None if it is not."""
    progress = opened.recorder.progress()
    if progress.stalled:
        return f"recording stands still: {progress.trouble}"
    if progress.oldest_seconds > BEHIND_SECONDS:
        return f"recording is {progress.oldest_seconds:.0f} s behind"
    return None
