"""Series of routes that move by themselves or by hand: where they stand, what is frozen, which acts were asked for.

Rule: of what this node has in force, so that they are right without a store.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import get_args

from gateway.admin.metrics.series import Series
from gateway.files.overrides import Overrides
from policies.rollouts.standing import State
from router.snapshot import Snapshot


class Moving:
    """Sets these series. What is counted elsewhere as a total is added as it grows."""

    def __init__(self, series: Series) -> None:
        self._series = series
        self._acts: Counter[tuple[str, str, str]] = Counter()

    def refresh_standings(self, snapshot: Snapshot) -> None:
        """Set where the routes stand that ever moved."""
        series = self._series
        whole = (series.rollout_step, series.rollout_state, series.rollout_changed_timestamp_seconds)
        for gauge in (*whole, series.rollout_held_up, series.held_variants):
            gauge.clear()
        for route in snapshot.routes.values():
            if not (now := route.standing).number:
                continue
            series.rollout_step.labels(route.name).set(now.step + 1)
            series.held_variants.labels(route.name).set(len(now.held))
            series.rollout_changed_timestamp_seconds.labels(route.name).set(now.changed_ms / 1000)
            for state in get_args(State):
                series.rollout_state.labels(route.name, state).set(int(state == now.state))
            if (said := now.detail.get("said")) is not None:
                series.rollout_held_up.labels(route.name, str(said)).set(1)

    def refresh_acts(
        self, snapshot: Snapshot, overrides: Overrides, counts: Mapping[tuple[str, str, str], int]
    ) -> None:
        """Set which routes are frozen, and how many acts were asked for, by verb, via and result."""
        frozen = self._series.frozen_timestamp_seconds
        frozen.clear()
        for route, one in overrides.items():
            if one.to is not None and route in snapshot.routes:
                frozen.labels(route, one.to).set(one.at_ms / 1000)
        for labels, n in counts.items():
            self._series.acts.labels(*labels).inc(n - self._acts[labels])
            self._acts[labels] = n
