"""Which replicas of a backend are fit to be asked, by how their calls and probes went.

Rules:

1. Two kinds of failures in a row are counted, apart from each other: of the connection (none, silence, a break, no
   HTTP) and of the answer (5xx). A whole answer ends the first row, and if it is no 5xx the second.
2. ``eject_after`` failures in one row eject the replica: for ``eject_ms`` the first time, then twice, three times as
   long, at most ``LONGEST_SECONDS``. One that then worked for as long as it had been
   ejected begins at ``eject_ms`` again.
3. No more than ``max_ejected_share`` of the replicas are ejected at a time, and never the only one there is. One that
   would exceed the share stays, and its failures in a row go on counting.
4. When the time is over, one call goes there on trial. If its answer is whole and no 5xx, the replica is back; if it
   fails, the replica is ejected again. If neither happens (the client left), the next call goes there after
   ``eject_ms``.
5. ``unhealthy_after`` failed probes in a row make a replica unhealthy, ``healthy_after`` good ones make it fit again.
   No share bounds that: probes cost no client anything. Ejections and probes do not undo each other.
6. When no replica is fit, all are asked: better a bad replica than none.

Nothing here reads a clock: ``now`` is an argument, in seconds, and only grows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from gateway.proxy.wire.deadlines import NEVER
from router.snapshot import Backend

#: What failed: the connection, or what came over it.
Origin = Literal["connection", "answer"]
State = Literal["fit", "ejected", "unhealthy"]
STATES: Final[tuple[State, ...]] = ("fit", "ejected", "unhealthy")

#: However often it was ejected, a replica gets its trial after five minutes: operators wait that long, not longer.
LONGEST_SECONDS: Final = 300.0


@dataclass(slots=True)
class _Replica:
    connection_failures: int = 0
    answer_failures: int = 0
    #: In a row, and how long the last one was.
    ejections: int = 0
    seconds: float = 0.0
    #: When the next trial is due; NEVER while it is not ejected.
    trial_at: float = NEVER
    tried: bool = False
    returned_at: float = 0.0
    bad_probes: int = 0
    good_probes: int = 0
    unhealthy: bool = False

    @property
    def ejected(self) -> bool:
        return self.trial_at != NEVER


class Health:
    """The replicas of one backend, by their index. ``fit`` are those to be asked, never none."""

    __slots__ = ("_backend", "_longest", "_most", "_replicas", "fit", "suspects", "trial_at")

    def __init__(self, backend: Backend) -> None:
        count = len(backend.urls)
        self._backend = backend
        # A share is exact in decimals and not in binary: a third of three is one.
        self._most = int(backend.max_ejected_share * count + 1e-9) if count > 1 else 0
        self._longest = max(LONGEST_SECONDS, backend.eject_ms / 1000)
        self._replicas = tuple(_Replica() for _ in backend.urls)
        self.fit: tuple[int, ...] = tuple(range(count))
        #: The replicas of which a good answer would change anything.
        self.suspects: set[int] = set()
        #: When the next trial of any replica is due.
        self.trial_at = NEVER

    def state(self, index: int) -> State:
        replica = self._replicas[index]
        return "unhealthy" if replica.unhealthy else "ejected" if replica.ejected else "fit"

    def failed(self, index: int, origin: Origin, now: float) -> float | None:
        """Count a failed call; return for how many seconds the replica is ejected by it, None if it is not."""
        replica = self._replicas[index]
        limit = self._backend.eject_after
        if not limit:
            return None
        if replica.ejected:
            return self._eject(replica, now) if replica.tried else None
        if origin == "connection":
            replica.connection_failures += 1
        else:
            replica.connection_failures = 0
            replica.answer_failures += 1
        self.suspects.add(index)
        if max(replica.connection_failures, replica.answer_failures) < limit:
            return None
        if sum(other.ejected for other in self._replicas) >= self._most:
            return None
        return self._eject(replica, now)

    def succeeded(self, index: int, now: float) -> bool:
        """Count a whole answer that is no 5xx; return whether it brought the replica back."""
        replica = self._replicas[index]
        if replica.ejected and not replica.tried:
            return False  # it began before the ejection, or when all were asked
        back = replica.ejected
        replica.connection_failures = replica.answer_failures = 0
        self.suspects.discard(index)
        if back:
            replica.trial_at = NEVER
            replica.tried = False
            replica.returned_at = now
            self._choose_fit()
        return back

    def probed(self, index: int, *, well: bool) -> bool:
        """Count a probe; return whether the replica became unhealthy or fit by it."""
        replica = self._replicas[index]
        replica.good_probes = replica.good_probes + 1 if well else 0
        replica.bad_probes = 0 if well else replica.bad_probes + 1
        if replica.unhealthy:
            changed = replica.good_probes >= self._backend.healthy_after
        else:
            changed = replica.bad_probes >= self._backend.unhealthy_after
        if changed:
            replica.unhealthy = not replica.unhealthy
            self._choose_fit()
        return changed

    def trial(self, now: float) -> int | None:
        """Return the replica to which the next call goes on trial, if one is due. The caller must send it there."""
        for index, replica in enumerate(self._replicas):
            if replica.trial_at <= now and not replica.unhealthy:
                replica.tried = True
                replica.trial_at = now + self._backend.eject_ms / 1000
                self._choose_fit()
                return index
        return None

    def _eject(self, replica: _Replica, now: float) -> float:
        if not replica.ejected and now - replica.returned_at >= replica.seconds:
            replica.ejections = 0
        replica.ejections += 1
        replica.seconds = min(replica.ejections * self._backend.eject_ms / 1000, self._longest)
        replica.trial_at = now + replica.seconds
        replica.tried = False
        replica.connection_failures = replica.answer_failures = 0
        self._choose_fit()
        return replica.seconds

    def _choose_fit(self) -> None:
        fit = tuple(i for i, replica in enumerate(self._replicas) if not replica.ejected and not replica.unhealthy)
        self.fit = fit or tuple(range(len(self._replicas)))
        self.trial_at = min((r.trial_at for r in self._replicas if not r.unhealthy), default=NEVER)
