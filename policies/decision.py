"""The input and the output of a plan: an occasion, a decision.

Rule: values, never changed once made. Each request makes one of each, so they are plain classes with slots: named
tuples and dataclasses cost several times as much to make or to read, most of all where this module is compiled.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

_NO_FEATURES: Final[Mapping[str, object]] = MappingProxyType({})


class Occasion:
    """One request, reduced to what a policy may see.

    ``unit`` is who is randomised, or None when the request carries no unit: then the request itself is randomised.
    ``request_id`` is the prediction id, unique per request.
    """

    __slots__ = ("features", "request_id", "salt", "unit")

    def __init__(
        self, salt: str, unit: str | None, request_id: str, features: Mapping[str, object] = _NO_FEATURES
    ) -> None:
        self.salt: Final = salt
        self.unit: Final = unit
        self.request_id: Final = request_id
        self.features: Final = features

    def __repr__(self) -> str:
        return f"Occasion({self.salt!r}, {self.unit!r}, {self.request_id!r}, {dict(self.features)!r})"


class Decision:
    """What to do with one request.

    ``answering`` names the variants whose answer is used: one, or several to merge. ``mirrored`` names those that get
    a copy and whose answer is discarded. ``propensity`` in (0, 1] is the exact probability with which ``answering``
    was chosen. ``reason`` is a short word for the log, such as "unit", "request", "only", "draft" or "forced".
    """

    __slots__ = ("answering", "mirrored", "propensity", "reason")

    def __init__(
        self,
        answering: tuple[str, ...],
        mirrored: tuple[str, ...] = (),
        propensity: float = 1.0,
        reason: str = "only",
    ) -> None:
        self.answering: Final = answering
        self.mirrored: Final = mirrored
        self.propensity: Final = propensity
        self.reason: Final = reason

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Decision):
            return NotImplemented
        return (self.answering, self.mirrored, self.propensity, self.reason) == (
            other.answering,
            other.mirrored,
            other.propensity,
            other.reason,
        )

    def __hash__(self) -> int:
        return hash((self.answering, self.mirrored, self.propensity, self.reason))

    def __repr__(self) -> str:
        return f"Decision({self.answering!r}, {self.mirrored!r}, {self.propensity!r}, {self.reason!r})"
