"""Latency buckets: a quantile is within 1 %, for any latencies."""

from __future__ import annotations

from collections import Counter
from math import inf, log, nan

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.statistics.bernoulli import rate_interval
from policies.statistics.latency import LONGEST_MS, RELATIVE_ERROR, SHORTEST_MS, bucket, quantile, quantile_interval

latencies = st.lists(st.floats(SHORTEST_MS, LONGEST_MS), min_size=1)


@given(latencies, st.floats(0, 1))
def test_a_quantile_is_that_of_the_sorted_list_within_one_percent(values: list[float], q: float) -> None:
    exact = sorted(values)[int(q * (len(values) - 1))]
    found = quantile(Counter(map(bucket, values)), q)
    assert found == pytest.approx(exact, rel=RELATIVE_ERROR * (1 + 1e-9))


@given(latencies, latencies)
def test_counts_of_two_workers_add_up(some: list[float], others: list[float]) -> None:
    apart = Counter(map(bucket, some)) + Counter(map(bucket, others))
    assert quantile(apart, 0.5) == quantile(Counter(map(bucket, some + others)), 0.5)


@given(st.floats(0, 1e12), st.floats(0, 1e12))
def test_a_longer_latency_is_never_in_an_earlier_bucket(one: float, other: float) -> None:
    assert bucket(min(one, other)) <= bucket(max(one, other))


@pytest.mark.parametrize(("value", "counts_as"), [(0.0, SHORTEST_MS), (-3.0, SHORTEST_MS), (inf, LONGEST_MS)])
def test_what_lies_beyond_counts_as_the_edge(value: float, counts_as: float) -> None:
    assert bucket(value) == bucket(counts_as)


def test_a_latency_that_is_no_number_is_refused() -> None:
    with pytest.raises(ValueError, match="got nan"):
        bucket(nan)


@pytest.mark.parametrize("buckets", [{}, {5: 0}, {5: -1}])
def test_of_nothing_there_is_no_quantile(buckets: dict[int, int]) -> None:
    assert quantile(buckets, 0.5) is None


@pytest.mark.parametrize("q", [-0.1, 1.1, nan])
def test_a_quantile_is_asked_for_by_a_share(q: float) -> None:
    with pytest.raises(ValueError, match="q must lie in"):
        quantile({1: 1}, q)


def test_the_interval_of_a_quantile_is_that_of_the_rate_below_it() -> None:
    """Batch twin: an end is where the share of calls below it has the quantile at the edge of its own interval."""
    values = [float(i) for i in range(1, 2001)]
    counts = Counter(map(bucket, values))
    low, high = quantile_interval(counts, 0.9) or (0.0, 0.0)
    for end, inside in ((low, 1.03), (high, 0.97)):
        below = sum(value <= end * inside for value in values)
        interval = rate_interval(below, len(values) - below)
        assert interval[0] <= 0.9 <= interval[1]
        below = sum(value <= end / inside for value in values)
        interval = rate_interval(below, len(values) - below)
        assert not interval[0] <= 0.9 <= interval[1]


def test_few_calls_have_no_upper_end_and_none_no_interval() -> None:
    low, high = quantile_interval({bucket(10.0): 5}, 0.95) or (0.0, 0.0)
    assert (high, low < 10) == (inf, True)
    assert quantile_interval({}, 0.5) is None
    assert quantile_interval({3: -5}, 0.5) is None


def test_the_quantile_is_missed_at_any_look_less_often_than_promised() -> None:
    rng, missed = np.random.default_rng(2), 0
    for _ in range(60):
        indexes = np.ceil(np.log(rng.lognormal(3, 1, 1000)) / log(1.01 / 0.99)).astype(int)
        truth = float(np.exp(3 + 1.6448536))
        for n in range(50, 1001, 50):
            low, high = quantile_interval(Counter(indexes[:n].tolist()), 0.95) or (0.0, inf)
            if not low <= truth <= high:
                missed += 1
                break
    assert missed <= 3
