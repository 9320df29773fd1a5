"""Admission: a worker turns away the requests that it cannot keep up with, and turns away none otherwise.

The clock is played. A simulated worker does what a turn of its loop does: everything that became ready in the turn
before is worked off, each piece at its cost, and then the timer that samples the lag runs, late or not.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import pytest

from gateway.proxy.limits.admission import INCREASE, INTERVAL_SECONDS, LEAST, SAMPLE_SECONDS, TARGET_SECONDS, Admission
from router.snapshot import Gateway

#: Processor seconds of a request that is answered: this worker can do 10,000 a second.
COST = 0.0001
CAPACITY = 1 / COST


@dataclass
class Worker:
    """One worker, its clients and its backends. Either ``rate`` requests a second come, or ``clients`` ask in turn.

    ``backend`` is how long a backend takes, ``shed_cost`` what it costs to turn one away. No more than ``connections``
    requests wait anywhere. ``pause`` seconds are lost at every ``every`` seconds, to another process.
    """

    admission: Admission
    rate: float = 0.0
    clients: int = 0
    backend: float = 0.001
    shed_cost: float = COST / 10
    connections: int = 10_000
    pause: float = 0.0
    every: float = 1.0
    now: float = 0.0
    answered: int = 0
    shed: int = 0
    worst_lag: float = 0.0
    limits: list[int] = field(default_factory=list)
    _asking: float = 0.0
    _due: float = SAMPLE_SECONDS
    _paused: float = 0.0
    _calls: deque[tuple[float, int]] = field(default_factory=deque)

    def run(self, seconds: float) -> Worker:
        """Run for this long; the counters count from here on."""
        self.answered = self.shed = 0
        self.worst_lag = 0.0
        self.limits = []
        end = self.now + seconds
        self._asking += self.clients - self._waiting() if self.clients else 0
        while self.now < end:
            self._turn()
        return self

    @property
    def best(self) -> float:
        """Return the answers per second if exactly as many requests are turned away as cannot be answered."""
        return (1 - self.rate * self.shed_cost) / (COST - self.shed_cost)

    def _waiting(self) -> float:
        return self._asking + sum(number for _, number in self._calls)

    def _turn(self) -> None:
        began = self.now
        done = 0
        while self._calls and self._calls[0][0] <= began:
            done += self._calls.popleft()[1]
        for _ in range(done):
            self.admission.leave()
        self.answered += done
        asking, self._asking = int(self._asking), self._asking - int(self._asking)
        admitted = sum(self.admission.admit() for _ in range(asking))
        self.shed += asking - admitted
        self.now += (done + admitted) * COST / 2 + (asking - admitted) * self.shed_cost
        if admitted:
            self._calls.append((self.now + self.backend, admitted))
        if self.clients:
            self._asking += done + asking - admitted
        if self.pause and self.now - self._paused >= self.every:
            self._paused = self.now
            self.now += self.pause
        if self.now == began:
            self.now = max(began + 0.0005, min(self._due, self._calls[0][0] if self._calls else self._due))
        self._asking += self.rate * (self.now - began)
        if self.rate:
            self._asking = min(self._asking, self.connections - sum(number for _, number in self._calls))
        if self.now >= self._due:
            lag = self.now - self._due
            self.worst_lag = max(self.worst_lag, lag)
            self.admission.sample(lag, self.now)
            self._due = self.now + SAMPLE_SECONDS
            self.limits.append(self.admission.limit)


def adaptive(most: int = 10_000) -> Admission:
    return Admission(Gateway(admission="adaptive", max_in_flight=most), 0.0)


@pytest.mark.parametrize("times", [1.5, 3.0])
def test_too_much_load_is_answered_within_a_short_lag_at_the_pace_that_turning_away_leaves(times: float) -> None:
    """Turning away 20,000 requests a second costs a fifth of the worker's time; the rest must go into answers."""
    worker = Worker(adaptive(), rate=times * CAPACITY)
    worker.run(10)
    worker.run(10)
    assert worker.worst_lag <= 3 * TARGET_SECONDS
    assert worker.answered / 10 >= 0.9 * worker.best
    assert max(worker.limits) <= 3 * min(worker.limits), "the limit settles"


def test_five_times_the_load_leaves_more_than_half_of_the_answers() -> None:
    worker = Worker(adaptive(), rate=5 * CAPACITY)
    worker.run(10)
    worker.run(10)
    assert worker.answered / 10 >= max(0.55 * CAPACITY, 0.9 * worker.best)
    assert worker.worst_lag <= 3 * TARGET_SECONDS
    assert max(worker.limits) <= 3 * min(worker.limits), "the limit settles"


def test_without_admission_the_same_load_waits_until_it_has_run_out_of_connections() -> None:
    worker = Worker(Admission(Gateway(admission="off"), 0.0), rate=5 * CAPACITY)
    worker.run(10)
    worker.run(10)
    assert worker.shed == 0
    assert worker.worst_lag > 4 * TARGET_SECONDS


def test_where_turning_away_is_dear_answers_are_not_given_up_for_it() -> None:
    """At a fifth of an answer's cost, turning away four of five would take all of the worker's time, for no answer."""
    worker = Worker(adaptive(), rate=5 * CAPACITY, shed_cost=COST / 5)
    worker.run(10)
    worker.run(10)
    assert worker.answered / 10 >= 0.4 * CAPACITY


def test_overload_before_slow_backends_leaves_the_concurrency_that_they_need() -> None:
    """With a model of 200 ms, 10,000 requests a second are 2,000 under way; a limit for quick models starves it."""
    worker = Worker(adaptive(), rate=1.5 * CAPACITY, backend=0.2)
    worker.run(20)
    worker.run(10)
    assert worker.shed > 0
    assert worker.worst_lag <= 3 * TARGET_SECONDS
    assert worker.answered / 10 >= 0.85 * CAPACITY


@pytest.mark.parametrize(
    ("clients", "backend"),
    [(1_000, 0.2), (5_000, 1.0), (32, 0.0005), (256, 0.0005), (400, 0.0005)],
    ids=["slow", "slower", "saturated by 32", "saturated by 256", "saturated by 400"],
)
def test_many_who_wait_for_a_slow_model_or_few_who_keep_a_worker_busy_are_not_turned_away(
    clients: int, backend: float
) -> None:
    worker = Worker(adaptive(), clients=clients, backend=backend).run(20)
    assert worker.shed == 0
    assert worker.admission.limit == 10_000


@pytest.mark.parametrize(("pause", "every"), [(0.05, 0.1), (0.2, 0.5), (1.0, 5.0)])
def test_a_machine_that_takes_the_processor_away_now_and_then_turns_nobody_away(pause: float, every: float) -> None:
    worker = Worker(adaptive(), clients=1_000, backend=0.2, pause=pause, every=every).run(20)
    assert worker.shed == 0
    assert worker.admission.limit == 10_000


def test_one_late_sample_is_nothing_however_late() -> None:
    admission = adaptive()
    for number in range(1, 200):
        admission.sample(5.0 if number == 100 else 0.0, number * SAMPLE_SECONDS)
    assert admission.limit == 10_000


def test_the_limit_grows_back_when_the_load_is_gone() -> None:
    worker = Worker(adaptive(), rate=3 * CAPACITY).run(10)
    low = worker.admission.limit
    assert low < 4_000
    worker.rate = 0.2 * CAPACITY
    assert worker.run(2).admission.limit > low
    seconds = (10_000 - low) / INCREASE * INTERVAL_SECONDS
    worker.run(1.2 * seconds)
    assert worker.admission.limit == 10_000
    assert worker.shed == 0


def test_however_late_a_worker_is_a_few_are_always_let_in() -> None:
    admission = adaptive()
    for number in range(1, 1_000):
        admission.sample(1.0, float(number))
    assert admission.limit == LEAST
    few = adaptive(5)
    for number in range(1, 1_000):
        few.sample(1.0, float(number))
    assert few.limit == 5


def test_a_fixed_limit_is_to_the_request_and_knows_no_lag() -> None:
    admission = Admission(Gateway(admission="fixed", max_in_flight=3), 0.0)
    for number in range(1, 100):
        admission.sample(1.0, float(number))
    assert [admission.admit() for _ in range(5)] == [True, True, True, False, False]
    assert admission.reason == "max_in_flight"
    admission.leave()
    assert [admission.admit() for _ in range(2)] == [True, False]
    assert admission.in_flight == 3


def test_off_admits_whatever_comes() -> None:
    admission = Admission(Gateway(admission="off", max_in_flight=1), 0.0)
    assert all(admission.admit() for _ in range(1_000))


def test_the_reason_says_whose_limit_it_is() -> None:
    admission = adaptive(100)
    assert admission.reason == "max_in_flight"
    for number in range(1, 20):
        admission.sample(1.0, float(number))
    assert admission.reason == "overload"


def test_new_settings_are_in_force_at_once_and_what_was_learned_stays() -> None:
    admission = adaptive(1_000)
    admission.swap(Gateway(admission="adaptive", max_in_flight=500))
    assert admission.limit == 500
    admission.swap(Gateway(admission="adaptive", max_in_flight=2_000))
    assert admission.limit == 2_000
    for number in range(1, 30):
        admission.sample(1.0, float(number))
    learned = admission.limit
    admission.swap(Gateway(admission="adaptive", max_in_flight=3_000))
    assert admission.limit == learned
    admission.swap(Gateway(admission="fixed", max_in_flight=7))
    assert admission.limit == 7
    admission.swap(Gateway(admission="off"))
    assert admission.limit > 10**9
