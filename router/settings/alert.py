"""What alerts from outside do: a table of the file's ``[alerts]``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from router.settings.keys import Some, Text, described, setting

Labels = Annotated[tuple[tuple[str, str], ...], "labels"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """What follows when Alertmanager or Grafana sends an alert with these labels. Only the controller uses it."""

    name: str
    labels: Labels = field(metadata=described("Labels that an alert must have, each with its value."))
    do: Literal["pause", "rollback", "freeze"] = field(
        metadata=described("What is done to the routes: pause or rollback, as these commands do, or freeze.")
    )
    routes: Some[Text] = setting(
        (), "The routes that it is done to. Without it, the route that the alert's label route names."
    )
    to: Text | None = setting(None, "The variant that freeze freezes to; without it each route's baseline.")
