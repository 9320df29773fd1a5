"""Slow answers: server-sent events pass one by one, and each way to end has a row of its own kind."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest

from tests.stories.backends import Asked, Backend
from tests.stories.harness import Turnout, eventually

pytestmark = pytest.mark.story

CONFIG = """
[backends.writer]
url = "{url}"
version = "1"
[routes.chat]
path = "/chat"
[routes.chat.policy]
kind = "single"
variant = "writer"
"""


class Dictation:
    """A backend that sends the next event only once the previous one was confirmed."""

    def __init__(self, events: int) -> None:
        self.events = events
        self.heard = 0

    async def __call__(self, asked: Asked) -> Any:
        return self.speak()

    async def speak(self) -> AsyncIterator[bytes]:
        for number in range(self.events):
            deadline = time.monotonic() + 5
            while self.heard < number and time.monotonic() < deadline:
                await asyncio.sleep(0.0005)
            yield b"data: %d\n\n" % number


class Stage:
    """A program whose backend sends the events of the ``dictation``; one for all tests here."""

    def __init__(self, program: Turnout, backend: Backend) -> None:
        self.program = program
        self.backend = backend
        self.dictation = Dictation(1000)


@pytest.fixture(scope="module")
def chat(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    made: list[Stage] = []

    async def speak(asked: Asked) -> Any:
        return made[0].dictation.speak()

    with (
        Backend(speak) as backend,
        Turnout(tmp_path_factory.mktemp("streams"), CONFIG.format(url=backend.url)) as program,
    ):
        made.append(Stage(program, backend))
        yield made[0]


@pytest.fixture
def stage(chat: Stage) -> Stage:
    """The program, with a new dictation."""
    chat.dictation = Dictation(1000)
    chat.backend.left.clear()
    return chat


def events(answer: httpx.Response) -> Iterator[str]:
    return (line.removeprefix("data: ") for line in answer.iter_lines() if line)


def fault(program: Turnout, prediction_id: str) -> str | None:
    found = program.prediction(prediction_id)
    return str(found["calls"][0]["fault"]) if found else None


def test_a_thousand_events_arrive_one_by_one(stage: Stage) -> None:
    """The backend waits for each confirmation, so a gateway that held back even one event would stop the test."""
    program, dictation = stage.program, stage.dictation
    began = time.monotonic()
    with program.traffic.stream("POST", "/chat") as answer:
        assert answer.headers["content-type"] == "text/event-stream"
        for heard in events(answer):
            assert heard == str(dictation.heard)
            dictation.heard += 1
    assert dictation.heard == 1000
    assert time.monotonic() - began < 15
    prediction_id = answer.headers["turnout-prediction-id"]
    eventually(lambda: fault(program, prediction_id) == "None", "the row is complete")


def test_a_client_that_leaves_is_seen_by_the_backend(stage: Stage) -> None:
    """A model that goes on writing without a reader costs money."""
    program, dictation = stage.program, stage.dictation
    with program.traffic.stream("POST", "/chat") as answer:
        for _ in events(answer):
            dictation.heard += 1
            if dictation.heard == 3:
                break
    assert stage.backend.left.wait(3)
    prediction_id = answer.headers["turnout-prediction-id"]
    eventually(lambda: fault(program, prediction_id) == "client_gone", "the row says who left")


def test_a_worker_killed_in_mid_stream_leaves_an_incomplete_row(stage: Stage) -> None:
    """The line written before the head remains, and the controller knows that no closing line will come."""
    program, dictation = stage.program, stage.dictation
    given: list[str] = []

    def listen() -> None:
        with program.traffic.stream("POST", "/chat") as answer:
            given.append(answer.headers["turnout-prediction-id"])
            for _ in events(answer):
                dictation.heard += 1
                if dictation.heard == 3:
                    os.kill(program.workers[0], signal.SIGKILL)

    with pytest.raises(httpx.TransportError):
        listen()
    assert dictation.heard < 1000
    (prediction_id,) = given
    eventually(lambda: fault(program, prediction_id) == "incomplete", "the row is incomplete", seconds=15)
    eventually(lambda: program.report("chat")["variants"][0]["failures"] == 1, "and counts as a failure")
