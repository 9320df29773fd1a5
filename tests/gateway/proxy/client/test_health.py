"""Which replicas are fit, as transcripts: what happened when, and which replicas are asked after it."""

from __future__ import annotations

import pytest

from gateway.proxy.client.health import LONGEST_SECONDS, Health
from gateway.proxy.wire.deadlines import NEVER
from tests.gateway.proxy.builders import backend


def health(replicas: int = 2, **settings: object) -> Health:
    urls = [f"http://replica-{index}" for index in range(replicas)]
    return Health(backend("b", *urls, **{"eject_after": 2, "eject_ms": 10_000, **settings}))


def states(found: Health) -> str:
    """The states of two replicas, after a check that those that are fit are asked, or both if none is."""
    found_states = [found.state(index) for index in range(2)]
    assert found.fit == (tuple(index for index in range(2) if found_states[index] == "fit") or (0, 1))
    return ", ".join(found_states)


def failing(found: Health, index: int, now: float) -> float | None:
    """Two connections in a row fail; return for how long the replica is ejected by it."""
    found.failed(index, "connection", now)
    return found.failed(index, "connection", now)


def test_every_replica_is_fit_at_first() -> None:
    found = health(3)
    assert found.fit == (0, 1, 2)
    assert [found.state(index) for index in found.fit] == ["fit"] * 3
    assert found.trial(1e9) is None


def test_failures_in_a_row_eject_and_one_good_answer_begins_a_new_row() -> None:
    found = health(eject_after=3)
    assert [found.failed(0, "connection", 0.0) for _ in range(2)] == [None, None]
    assert 0 in found.suspects
    found.succeeded(0, 1.0)
    assert 0 not in found.suspects
    assert [found.failed(0, "connection", 2.0) for _ in range(3)] == [None, None, 10.0]
    assert found.fit == (1,)
    assert found.state(0) == "ejected"


def test_broken_connections_and_bad_answers_are_two_rows() -> None:
    """Each is a fault of its own kind, and neither makes the other's row longer."""
    found = health(eject_after=3)
    for now in range(2):
        found.failed(0, "answer", now)
        found.failed(0, "connection", now)
    assert found.fit == (0, 1)
    assert found.failed(0, "answer", 3.0) == 10.0


def test_a_bad_answer_ends_the_row_of_broken_connections() -> None:
    found = health()
    found.failed(0, "connection", 0.0)
    found.failed(0, "answer", 0.0)
    assert found.failed(0, "connection", 0.0) is None


def test_zero_never_ejects() -> None:
    found = health(eject_after=0)
    assert [found.failed(0, "connection", 0.0) for _ in range(100)] == [None] * 100
    assert 0 not in found.suspects


@pytest.mark.parametrize(
    ("replicas", "share", "out"),
    [(1, 1.0, 0), (2, 0.5, 1), (2, 0.4, 0), (3, 0.5, 1), (3, 1 / 3, 1), (4, 0.5, 2), (10, 0.7, 7), (3, 1.0, 3)],
)
def test_no_more_than_the_share_is_ejected_and_never_the_only_one(replicas: int, share: float, out: int) -> None:
    found = health(replicas, max_ejected_share=share)
    for index in range(replicas):
        failing(found, index, 0.0)
    assert sum(found.state(index) == "ejected" for index in range(replicas)) == out


def test_what_is_over_the_share_goes_out_as_soon_as_another_is_back() -> None:
    found = health(2, max_ejected_share=0.5)
    failing(found, 0, 0.0)
    assert failing(found, 1, 1.0) is None
    assert found.trial(10.0) == 0
    assert found.succeeded(0, 10.5)
    assert found.failed(1, "connection", 11.0) == 10.0
    assert found.fit == (0,)


def test_when_no_replica_is_fit_all_are_asked() -> None:
    found = health(2, max_ejected_share=1.0)
    failing(found, 0, 0.0)
    failing(found, 1, 0.0)
    assert found.fit == (0, 1)
    assert found.state(0) == found.state(1) == "ejected"
    assert not found.succeeded(0, 1.0)  # or everything would fall upon the first that comes through
    assert found.fit == (0, 1)


def test_after_its_time_a_replica_gets_one_call_and_is_back_if_that_is_answered() -> None:
    found = health()
    failing(found, 0, 0.0)
    assert found.trial_at == 10.0
    assert found.trial(9.99) is None
    assert found.trial(10.0) == 0
    assert found.trial(10.1) is None  # one
    assert found.fit == (1,)
    assert found.succeeded(0, 10.2)
    assert states(found) == "fit, fit"
    assert found.trial_at == NEVER


def test_an_answer_to_a_call_from_before_the_ejection_does_not_bring_it_back() -> None:
    found = health()
    failing(found, 0, 0.0)
    assert not found.succeeded(0, 1.0)
    assert found.failed(0, "connection", 2.0) is None
    assert (found.fit, found.trial_at) == ((1,), 10.0)


def test_a_trial_of_which_nothing_is_heard_is_made_again() -> None:
    """The client may leave before the answer."""
    found = health()
    failing(found, 0, 0.0)
    assert found.trial(12.0) == 0
    assert found.trial(21.9) is None
    assert found.trial(22.0) == 0


def test_each_failed_trial_makes_the_next_wait_longer_up_to_the_longest() -> None:
    found, now = health(), 0.0
    lengths: list[float] = []
    seconds = failing(found, 0, now)
    while seconds is not None and len(lengths) < 40:
        lengths.append(seconds)
        now += seconds
        assert found.trial(now) == 0
        seconds = found.failed(0, "answer", now)
    assert lengths[:4] == [10.0, 20.0, 30.0, 40.0]
    assert lengths[-1] == max(lengths) == LONGEST_SECONDS


def test_a_replica_that_flaps_is_out_longer_each_time_and_one_that_was_well_long_enough_begins_anew() -> None:
    found = health()
    assert failing(found, 0, 0.0) == 10.0
    found.trial(10.0)
    found.succeeded(0, 10.0)
    assert failing(found, 0, 19.9) == 20.0  # it was well for less than the ten seconds it was out
    found.trial(39.9)
    found.succeeded(0, 40.0)
    assert failing(found, 0, 60.0) == 10.0


def test_probes_take_a_replica_out_and_bring_it_back_each_after_so_many_in_a_row() -> None:
    found = health(unhealthy_after=3, healthy_after=2)
    assert [found.probed(0, well=well) for well in (False, False, True, False, False, False)] == [False] * 5 + [True]
    assert (found.state(0), found.fit) == ("unhealthy", (1,))
    assert [found.probed(0, well=well) for well in (True, False, True, True)] == [False, False, False, True]
    assert (found.state(0), found.fit) == ("fit", (0, 1))


def test_probes_know_no_share_and_an_unhealthy_replica_gets_no_trial() -> None:
    found = health(2, unhealthy_after=1, healthy_after=1)
    failing(found, 0, 0.0)
    found.probed(0, well=False)
    found.probed(1, well=False)
    assert found.fit == (0, 1)  # none is fit
    assert found.trial(100.0) is None
    found.probed(1, well=True)
    assert states(found) == "unhealthy, fit"
    found.probed(0, well=True)
    assert states(found) == "ejected, fit"  # that its probe is answered does not say that calls are
    assert found.trial(100.0) == 0
