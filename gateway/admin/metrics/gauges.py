"""Gauges by the thousand, and how they are written out: the library's own cost fifteen times as much a sample.

Rule: the text is the one that the library would write. These gauges are in the registry with all other collectors, so
that its families are complete; only their text is made here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import GaugeMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

#: How many beginnings of lines, with labels that are no longer in use, are kept beside those in use.
_SPARE_STARTS: Final = 1_000

_END: Final = b"# EOF\n"


class Gauges(Collector):
    """A gauge with labels."""

    def __init__(self, name: str, help_text: str, labels: tuple[str, ...]) -> None:
        self._name = name
        self._help_text = help_text
        self._labels = labels
        self._order = sorted(range(len(labels)), key=lambda place: labels[place])
        self._values: dict[tuple[str, ...], float] = {}
        self._line_starts: dict[tuple[str, ...], str] = {}

    def labels(self, *values: str) -> LabelledGauge:
        """Return the gauge of these label values, given in the order in which the labels are declared."""
        if len(values) != len(self._labels):
            raise ValueError(f"{self._name} has the labels {self._labels}, got {values}")
        return LabelledGauge(self._values, values)

    def clear(self) -> None:
        """Forget every value."""
        if len(self._line_starts) > 2 * len(self._values) + _SPARE_STARTS:
            self._line_starts.clear()
        self._values.clear()

    def collect(self) -> Iterator[GaugeMetricFamily]:
        family = GaugeMetricFamily(self._name, self._help_text, labels=self._labels)
        for values, value in self._values.items():
            family.add_metric(values, value)
        yield family

    def text(self, *, openmetrics: bool) -> str:
        """Return the family as it is exposed."""
        help_text = self._help_text.replace("\\", r"\\").replace("\n", r"\n")
        if openmetrics:
            help_text = help_text.replace('"', r"\"")
        lines = [f"# HELP {self._name} {help_text}\n# TYPE {self._name} gauge\n"]
        starts = self._line_starts
        for values, value in self._values.items():
            start = starts.get(values)
            if start is None:
                start = starts[values] = self._line_start(values)
            lines.append(f"{start}{floatToGoString(value)}\n")  # type: ignore[no-untyped-call]
        return "".join(lines)

    def _line_start(self, values: tuple[str, ...]) -> str:
        labels = ",".join(f'{self._labels[place]}="{_escaped(values[place])}"' for place in self._order)
        return f"{self._name}{{{labels}}} " if labels else f"{self._name} "


class LabelledGauge:
    """A gauge with its label values."""

    __slots__ = ("_labels", "_values")

    def __init__(self, values: dict[tuple[str, ...], float], labels: tuple[str, ...]) -> None:
        self._values = values
        self._labels = labels

    def set(self, value: float) -> None:
        """Set the value."""
        self._values[self._labels] = float(value)


def exposition(rest: CollectorRegistry, gauges: list[Gauges], accept: str) -> tuple[bytes, str]:
    """Return ``rest`` and then ``gauges`` as text, and its content type, in the best format that ``accept`` allows."""
    encoder, content_type = choose_encoder(accept)
    openmetrics = content_type.startswith("application/openmetrics-text")
    added = "".join(gauge.text(openmetrics=openmetrics) for gauge in gauges).encode()
    text = encoder(rest)
    return (text.removesuffix(_END) + added + _END if openmetrics else text + added), content_type


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
