"""What Prometheus, dashboards and alerts of operators ask for: names, types and labels of every series."""

from __future__ import annotations

from pathlib import Path

from gateway.admin.metrics.series import Series


def test_a_series_keeps_its_name_type_and_labels() -> None:
    """They are public, so a change of ``series.txt`` that is not an addition breaks a dashboard."""
    exposed = []
    for collector in Series().registry._collector_to_names:
        held = vars(collector)
        labels = held.get("_labelnames") or held.get("_labels", ())
        exposed += [
            " ".join((family.name, family.type, *labels))
            for family in collector.collect()
            if family.name.startswith("turnout_")
        ]
    assert sorted(exposed) == (Path(__file__).parent / "series.txt").read_text().splitlines()
