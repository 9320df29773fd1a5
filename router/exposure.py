"""Exposure: a route may ask that somebody met a prediction before it counts at all.

Rule: an exposure is feedback like any other, of one metric whose name is kept for it; whether a prediction is exposed
is asked of its events, so it too can come late, be repeated, corrected and taken back.
"""

from __future__ import annotations

from collections.abc import Iterable

from router.records import EXPOSED, Feedback
from router.snapshot import Metric


def exposure(metrics: Iterable[Metric]) -> Metric:
    """Return what an exposure means on a route with these metrics: it may come as long as the longest of their windows.

    On arrival: whether a prediction was met does not depend on what came of it.
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
    """Return whether one of the events that count for a prediction says that it was exposed."""
    return any(event.metric == EXPOSED and bool(event.value) for event in events)
