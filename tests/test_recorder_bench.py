"""The benchmark of the recorder: its rows are a worker's, and every one of them is accounted for."""

from __future__ import annotations

from loadtests.recorder import Round, measure, report


def test_a_round_costs_something_and_loses_nothing(store: str) -> None:
    """A row that is not counted in the store ends the run with an error."""
    taken = measure(500, 0, store)
    assert taken.rows >= 500
    assert taken.requests < taken.rows
    assert "µs a row" in report([taken], "500 rows")


def test_the_price_of_a_row_is_the_median_of_the_rounds() -> None:
    rounds = [Round(10, 11, cpu_seconds=cpu, lag_seconds=0.5, peak_mb=100) for cpu in (11e-6, 22e-6, 330e-6)]
    assert "   2.0 µs a row (1.0 to 30.0)" in report(rounds, "few")
