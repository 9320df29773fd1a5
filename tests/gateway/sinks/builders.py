"""Sinks, and a receiver of their events that can be made to fail."""

from __future__ import annotations

from collections import Counter
from typing import Any

import orjson

from router.snapshot import Sink
from tests.stories.backends import Asked, Reply


def sink(name: str = "lake", **more: Any) -> Sink:
    """A sink of every kind of event, for a receiver that must be named."""
    content: dict[str, Any] = {
        "name": name,
        "kind": "cloudevents",
        "events": ("request", "decision", "response", "feedback", "outcome", "verdict", "body"),
    }
    return Sink(**{**content, **more})


class Receiver:
    """The server at a sink's url. It answers ``status``, and refuses events whose id is in ``poisoned``."""

    def __init__(self) -> None:
        self.status = 204
        self.poisoned: set[str] = set()
        self.retry_after = ""
        self.asked: list[Asked] = []
        self.events: list[dict[str, Any]] = []

    async def answer(self, asked: Asked) -> Reply:
        self.asked.append(asked)
        events = events_in(asked)
        headers = {"set-cookie": "secret=1", **({"retry-after": self.retry_after} if self.retry_after else {})}
        if self.status >= 300:
            return Reply(None, self.status, headers)
        if any(event["id"] in self.poisoned for event in events):
            return Reply({"detail": "not this one"}, 400, headers)
        self.events += events
        return Reply(None, 200, headers)

    @property
    def ids(self) -> Counter[str]:
        return Counter(event["id"] for event in self.events)


def events_in(asked: Asked) -> list[dict[str, Any]]:
    """The events of one request, in any of the three modes."""
    kind = asked.headers["content-type"]
    if kind.startswith("application/cloudevents-batch+json"):
        return list(asked.json)
    if kind.startswith("application/cloudevents+json"):
        return [asked.json]
    attributes = {name[3:]: value for name, value in asked.headers.items() if name.startswith("ce-")}
    return [{**attributes, "datacontenttype": kind, "data": orjson.loads(asked.body)}]
