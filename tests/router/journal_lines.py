"""Records written as journal lines and read back, as tests and load tests need them.

Rule: a plain second description of the journal's lines. Workers write calls from parts (``records.stamp``), and the
controller reads lines straight into rows (``gateway.control.record.lines``): neither makes a Prediction.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from router.records import CallLine, Feedback, Prediction, stamp, stamped

# Fields without a default have MISSING there, which equals no value: they are always written.
_PREDICTION = tuple((f.name, f.default) for f in fields(Prediction))


def call_line(prediction: Prediction, line: CallLine = "call") -> bytes:
    """Return the prediction as one journal line, newline included; fields at their default are left out."""
    content = {name: getattr(prediction, name) for name, _ in _PREDICTION}
    return stamped(stamp(line), {name: content[name] for name, default in _PREDICTION if content[name] != default})


def prediction_of(value: Mapping[str, Any]) -> Prediction:
    """Return the prediction of a decoded ``call``, ``open`` or ``close`` line. Raises ValueError if it is none."""
    content = {k: v for k, v in value.items() if k != "line"}
    for name in ("items", "wrong"):
        if content.get(name) is not None:
            content[name] = tuple(content[name])
    try:
        return Prediction(**content)
    except TypeError as error:
        raise ValueError(f"not a prediction: {error}") from error


def feedback_of(value: Mapping[str, Any]) -> Feedback:
    """Return the event of a decoded ``feedback`` line. Raises ValueError if it is none."""
    try:
        return Feedback(**{k: v for k, v in value.items() if k != "line"})
    except TypeError as error:
        raise ValueError(f"not a feedback event: {error}") from error
