"""What fires by itself: a table of the file's ``[triggers]``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any

from router.settings.keys import Duration, Share, Text, described, setting
from router.triggers.condition import Condition

Conditions = Annotated[tuple[Any, ...], "tables"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trigger:
    """Conditions of a route, and what follows when they are met. Only the controller uses it.

    ``any`` or ``all``, of which one is given, are the conditions. ``variant`` is the route's baseline if the file names
    none. It fires when the conditions come to be met and have been for ``hold``; and again when they were not met in
    between or, if ``cool_down`` is given, after that.
    """

    name: str
    route: Text = field(metadata=described("The route that it is about."))
    variant: Text = field(
        metadata=described("The variant that it is about; without it the route's baseline.", default=None)
    )
    any: Conditions = setting((), "Conditions of which one must be met: tables with a kind.")
    all: Conditions = setting((), "Conditions that must all be met.")
    hold: Duration = setting(0, "How long they must have been met before it fires.")
    cool_down: Duration | None = setting(
        None, "How long it does not fire again; after that it does, if the conditions are still met."
    )
    min_coverage: Share = setting(
        0.0, "Conditions on a metric count only while at least this share of the variant's predictions has a value."
    )
    once_per_version: bool = setting(False, "Whether it fires once for each version of the variant at most.")
    webhook: Text | None = setting(None, "A sink of the kind webhook that is sent the event.")
    freeze: Text | None = setting(None, "The variant that the route is frozen to.")
    pause: bool = setting(False, "Whether the route's rollout is paused.")

    @property
    def conditions(self) -> tuple[Condition, ...]:
        """All its conditions, in the order of the file."""
        return (*self.any, *self.all)
