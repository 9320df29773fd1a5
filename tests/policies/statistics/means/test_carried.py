"""How much of a pooled difference the time of the calls may explain."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import linprog

from policies.statistics.means.carried import carried_over


def test_where_the_traffic_of_both_moved_alike_a_share_is_what_it_is() -> None:
    assert carried_over([(90, 10), (180, 20), (9, 1)], 0.3) == pytest.approx((0.3, 0.3))


def test_without_calls_of_either_side_nothing_is_known() -> None:
    assert carried_over([], 0.3) == (0.0, 1.0)
    assert carried_over([(0, 5)], 0.0) == (0.0, 1.0)


def test_both_ends_are_those_of_the_linear_programme() -> None:
    rng = np.random.default_rng(1)
    for _ in range(20):
        traffic, share = rng.integers(0, 50, (4, 2)).astype(float), rng.uniform()
        traffic[0] += 1
        b, a = (traffic / traffic.sum(0)).T
        found = [sign * linprog(sign * a, A_eq=[b], b_eq=[share], bounds=(0, 1)).fun for sign in (1, -1)]
        assert carried_over([(one, other) for one, other in traffic], share) == pytest.approx(found, abs=1e-9)


def test_what_is_not_refused_is_answered() -> None:
    """Shares of answers have the ends of shares of refusals, in the opposite order."""
    traffic = [(99.0, 1.0), (90.0, 10.0), (50.0, 50.0)]
    least, most = carried_over(traffic, 0.2)
    assert carried_over(traffic, 0.8) == pytest.approx((1 - most, 1 - least))
