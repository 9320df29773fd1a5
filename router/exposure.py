"""Exposure: a route may require an event that says a prediction was shown before the prediction counts.

Rule: an exposure is feedback like any other, of one metric with a reserved name. Whether a prediction is exposed
follows from its events, so an exposure too can come late, be repeated, corrected and retracted.
"""

from __future__ import annotations

from collections.abc import Iterable

from router.records import EXPOSED, Feedback
from router.snapshot import Metric


def exposure(metrics: Iterable[Metric]) -> Metric:
    """Return the metric of exposures on a route with these metrics; its window is the longest of theirs.

    It matures on arrival: whether a prediction was shown does not depend on its outcome.
    """
    window_ms = max(metric.window_ms for metric in metrics)
    return Metric(
        name=EXPOSED,
        kind="event",
        score=None,
        better="higher",
        window_ms=window_ms,
        mature="arrival",
        missing=None,
        fold="any",
        range=None,
        definition=f"{EXPOSED}:{window_ms}",
    )


def exposed(events: Iterable[Feedback]) -> bool:
    """Return whether one of the events that count for a prediction says that it was shown."""
    return any(event.metric == EXPOSED and bool(event.value) for event in events)
