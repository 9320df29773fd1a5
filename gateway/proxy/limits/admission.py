"""How many requests a worker may have under way at once.

Rule: a request is turned away before anything is done for it, with an answer that says so. There is no clock and no
loop in here: the worker passes in how late it is, and a request costs one comparison of integers.

Theory of operation. A worker is overloaded when *it* cannot keep up, not when a backend is slow: a thousand requests
that wait for a model of 200 ms cost nothing while they wait. So the signal is the worker's own queueing delay, the
*lag* of its event loop: how much later than asked a timer runs. Whatever arrives meanwhile waits as long in the kernel.

1. Lag is sampled every SAMPLE_SECONDS. A single late sample says nothing: a burst, a garbage collection, or another
   process on the processor may cause it. The signal is the *least* lag of an interval: if the loop never caught up
   within it, there is a standing queue. This is CoDel (Nichols & Jacobson 2012, "Controlling queue delay", ACM
   Queue 10(5)), with the loop for the link; as in CoDel the interval is long enough for ordinary bursts to drain. An
   interval lasts at least INTERVAL_SECONDS *and* SAMPLES samples, so that one long pause is never an interval.
2. With a standing queue above TARGET_SECONDS the limit shrinks by as much as the lag is above the target (at most to
   a half, at least by a tenth), counted from the requests that were really under way; else it grows by INCREASE per
   interval, up to ``max_in_flight``. Additive increase, multiplicative decrease (Chiu & Jain 1989, Computer Networks
   17(1)).
3. Two floors. The limit never falls below LEAST, the concurrency at which a worker is merely busy. And it does not
   fall while four of five requests are turned away already: turning away costs too, up to a fifth of what an answer
   costs, so that beyond it a smaller limit would only trade answers for refusals. With such a flood the lag is longer
   than the target; what bounds it is the number of connections.

TARGET_SECONDS. The loop's turn takes as long as everything that became ready in the turn before; 32 busy connections
make turns of 2 to 5 ms, 256 of some 30 ms, at full throughput and without any harm, and on a machine that gives the
worker half a processor twice as long: that must not be shed. From a tenth of a second on users notice the delay. Too
high a target makes users wait, too low a target refuses requests; 503 from a worker that is merely busy is worse.
"""

from __future__ import annotations

from typing import Final

from router.snapshot import Gateway

#: Seconds between samples of the lag.
SAMPLE_SECONDS: Final = 0.01
#: The least lag of an interval from which on there is a standing queue.
TARGET_SECONDS: Final = 0.1
#: The least length of an interval, in seconds and in samples.
INTERVAL_SECONDS: Final = 0.25
SAMPLES: Final = 3
#: By how much the limit grows in an interval without a standing queue.
INCREASE: Final = 32
#: The limit never falls below this, nor below max_in_flight.
LEAST: Final = 32
#: The limit does not fall while a larger share of the requests is turned away.
MOST_SHED: Final = 0.8


class Admission:
    """The limit of one worker and the requests that count against it."""

    __slots__ = (
        "_adaptive",
        "_admitted",
        "_began",
        "_least",
        "_peak",
        "_samples",
        "ceiling",
        "in_flight",
        "limit",
        "shed",
    )

    def __init__(self, gateway: Gateway, now: float) -> None:
        """``now`` is the time in seconds on the same clock as that of ``sample``."""
        #: Requests under way, and how many may be.
        self.in_flight = 0
        self.limit = 0
        self.ceiling = 0
        self._adaptive = False
        #: Requests turned away, and admitted, in this interval.
        self.shed = 0
        self._admitted = 0
        # The interval.
        self._began = now
        self._samples = 0
        self._least = float("inf")
        self._peak = 0
        self.swap(gateway)

    def __repr__(self) -> str:
        return f"<Admission {self.in_flight} of {self.limit} of {self.ceiling}>"

    def swap(self, gateway: Gateway) -> None:
        """Apply these settings from now on. The limit that was learned stays, as far as they allow it."""
        before, learned = self.ceiling, self._adaptive
        self._adaptive = gateway.admission == "adaptive"
        # "off" is a limit that is never reached, so that no request pays for a check of the setting.
        self.ceiling = 2**62 if gateway.admission == "off" else gateway.max_in_flight
        if not (learned and self._adaptive) or self.limit == before:
            self.limit = self.ceiling
        self.limit = min(self.limit, self.ceiling)

    def admit(self) -> bool:
        """Count a request in and return True, or turn it away: then ``leave`` must not be called."""
        if self.in_flight >= self.limit:
            self.shed += 1
            return False
        self.in_flight += 1
        self._admitted += 1
        return True

    def leave(self) -> None:
        """Count out a request that was admitted and is over."""
        self.in_flight -= 1

    @property
    def reason(self) -> str:
        """Why requests are turned away now: the operator's limit, or the worker's lag."""
        return "max_in_flight" if self.limit >= self.ceiling else "overload"

    def sample(self, lag: float, now: float) -> None:
        """Add a sample: how many seconds late the loop is. Called every SAMPLE_SECONDS, as far as the loop keeps up."""
        self._samples += 1
        self._least = min(self._least, lag)
        self._peak = max(self._peak, self.in_flight)
        if self._samples >= SAMPLES and now - self._began >= INTERVAL_SECONDS:
            if self._adaptive:
                self._adapt()
            self._began = now
            self._samples = self._peak = 0
            self._least = float("inf")
            self.shed = self._admitted = 0

    def _adapt(self) -> None:
        lag = self._least
        if lag <= TARGET_SECONDS:
            self.limit = min(self.ceiling, self.limit + INCREASE)
        elif self.shed <= MOST_SHED * (self.shed + self._admitted):
            factor = min(0.9, max(0.5, TARGET_SECONDS / lag))
            used = min(self.limit, max(self._peak, LEAST))
            self.limit = min(self.limit, max(min(LEAST, self.ceiling), int(used * factor)))
