"""The demo's users: they arrive at random, send a few requests each, and send feedback seconds after an answer.

Rule: users know the gateway's address and nothing else. Images are drawn independently and evenly from the held-out
half, so a model's accuracy in the traffic is its held-out accuracy but for chance. Users arrive at their rate whether
or not answers arrive, and what cannot be sent is counted.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final

import orjson

from gateway.demo.models import PIXELS, SHOWN, Digits, relevant
from gateway.demo.scenario import SCENES, Scene
from gateway.proxy.client.upstream import Upstream
from gateway.proxy.wire.faults import UpstreamFault

#: A user sends three to five requests, half a second apart on average.
REQUESTS: Final = (3, 4, 5)
THINKING_SECONDS: Final = 0.5
#: Seconds from an answer to its label or click, evenly between the two; repeats and corrections follow a second later.
DELAY_SECONDS: Final = (1.0, 4.0)
AGAIN_SECONDS: Final = 1.0
#: The share of events that are sent twice, and of labels that are wrong at first and then corrected.
REPEATED: Final = 0.03
CORRECTED: Final = 0.02
#: The probability that a user looks at the next item of a list, and of a click on an item that is relevant or not.
LOOKS_FURTHER: Final = 0.85
CLICKS: Final[Mapping[bool, float]] = {True: 0.5, False: 0.05}

MAX_USERS: Final = 500
MAX_WAITING_EVENTS: Final = 50_000
BATCH: Final = 100
FEEDBACK_SECONDS: Final = 0.25
MAX_ANSWER_BYTES: Final = 1_000_000

_HEADERS: Final = ((b"content-type", b"application/json"), (b"accept", b"application/json"))


@dataclass(slots=True)
class UserCounts:
    """What one route's users sent and received. Events are counted as sent once the gateway has acknowledged them.

    ``answers`` counts answers by the variant that gave them, ``met`` is the variant that first answered each user, and
    ``flickers`` counts the answers to a user by another one.
    """

    users: int = 0
    asked: int = 0
    failed: int = 0
    held_back: int = 0
    events: int = 0
    refused_events: int = 0
    repeated: int = 0
    corrected: int = 0
    flickers: int = 0
    prediction_ids: list[str] = field(default_factory=list)
    answers: Counter[str] = field(default_factory=Counter)
    met: dict[str, str] = field(default_factory=dict)
    latencies_ms: list[float] = field(default_factory=list)


@dataclass(order=True, slots=True)
class _Due:
    """An event that is to be sent at ``at``, by the clock of the event loop, in seconds."""

    at: float
    number: int
    route: str = field(compare=False)
    event: Mapping[str, Any] = field(compare=False)


class Traffic:
    """Everything the users do. ``accounts`` can be read at any time."""

    def __init__(self, digits: Digits, gateway: Upstream, host: str, *, rate: float, seed: int) -> None:
        self.accounts = {scene.route: UserCounts() for scene in SCENES}
        self._digits = digits
        self._gateway = gateway
        self._headers = (*_HEADERS, (b"host", host.encode()))
        self._rate = rate
        self._chance = Random(seed)
        self._user_prefix = f"{seed:x}"
        self._waiting: list[_Due] = []
        self._numbers = 0
        self._present = 0
        self._over = False
        self._bodies = [_inference(pixels.tolist()) for pixels in digits.held_pixels]

    async def run(self, seconds: float) -> None:
        """Let users arrive and send requests for this long, then send the remaining feedback as it falls due."""
        end = asyncio.get_running_loop().time() + seconds
        async with asyncio.TaskGroup() as group:
            group.create_task(self._send_feedback())
            async with asyncio.TaskGroup() as users:
                for scene in SCENES:
                    users.create_task(self._arrivals(scene, end, users))
            self._over = True

    async def _arrivals(self, scene: Scene, end: float, group: asyncio.TaskGroup) -> None:
        loop, account = asyncio.get_running_loop(), self.accounts[scene.route]
        users_per_second = self._rate * scene.traffic * len(REQUESTS) / sum(REQUESTS)
        at = loop.time()
        while (at := at + self._chance.expovariate(users_per_second)) < end:
            await asyncio.sleep(at - loop.time())
            if self._present >= MAX_USERS:
                account.held_back += 1
                continue
            account.users += 1
            group.create_task(self._user(scene, f"u-{self._user_prefix}-{scene.route}-{account.users}", end))

    async def _user(self, scene: Scene, user: str, end: float) -> None:
        self._present += 1
        try:
            for _ in range(self._chance.choice(REQUESTS)):
                await self._ask(scene, user)
                thinking = self._chance.expovariate(1 / THINKING_SECONDS)
                if asyncio.get_running_loop().time() + thinking >= end:
                    break
                await asyncio.sleep(thinking)
        finally:
            self._present -= 1

    async def _ask(self, scene: Scene, user: str) -> None:
        account, loop = self.accounts[scene.route], asyncio.get_running_loop()
        image = self._chance.randrange(len(self._bodies))
        account.asked += 1
        began = loop.time()
        try:
            status, headers, body = await self._post(scene.target, self._bodies[image], (b"x-user-id", user.encode()))
        except UpstreamFault:
            account.failed += 1
            return
        account.latencies_ms.append((loop.time() - began) * 1000)
        prediction_id = headers.get(b"turnout-prediction-id", b"").decode()
        if prediction_id:
            account.prediction_ids.append(prediction_id)
        if status != 200 or not prediction_id:
            account.failed += 1
            return
        variant = headers.get(b"turnout-variant", b"").decode()
        account.answers[variant] += 1
        account.flickers += account.met.setdefault(user, variant) != variant
        label = int(self._digits.held_labels[image])
        if scene.task == "digits":
            self._label(scene, prediction_id, label)
        else:
            self._click(scene, prediction_id, orjson.loads(body)["outputs"][0]["data"], label)

    def _label(self, scene: Scene, prediction_id: str, label: int) -> None:
        """Schedule the label of one image: once, sometimes twice, sometimes wrong at first."""
        truth = {"prediction_id": prediction_id, "metric": scene.metric, "value": label}
        delay = self._chance.uniform(*DELAY_SECONDS)
        for metric in scene.secondary:
            self._schedule(scene, delay, {**truth, "metric": metric})
        if self._chance.random() < CORRECTED:
            self._schedule(scene, delay, {**truth, "value": (label + self._chance.randint(1, 9)) % 10})
            self._schedule(scene, delay + AGAIN_SECONDS, {**truth, "revision": 1})
            self.accounts[scene.route].corrected += 1
        else:
            self._event(scene, delay, truth)

    def _click(self, scene: Scene, prediction_id: str, items: list[str], label: int) -> None:
        """Schedule the clicks on one list: users look from the top, stop at some item, and prefer what is relevant."""
        for item in items[:SHOWN]:
            if self._chance.random() < CLICKS[relevant(self._digits, item, label)]:
                event = {"prediction_id": prediction_id, "metric": scene.metric, "item": item, "value": 1}
                self._event(scene, self._chance.uniform(*DELAY_SECONDS), event)
            if self._chance.random() > LOOKS_FURTHER:
                return

    def _event(self, scene: Scene, delay: float, event: Mapping[str, Any]) -> None:
        self._schedule(scene, delay, event)
        if self._chance.random() < REPEATED:
            self._schedule(scene, delay + AGAIN_SECONDS, event)
            self.accounts[scene.route].repeated += 1

    def _schedule(self, scene: Scene, delay: float, event: Mapping[str, Any]) -> None:
        if len(self._waiting) >= MAX_WAITING_EVENTS:
            self.accounts[scene.route].refused_events += 1
            return
        self._numbers += 1
        at = asyncio.get_running_loop().time() + delay
        heapq.heappush(self._waiting, _Due(at, self._numbers, scene.route, event))

    async def _send_feedback(self) -> None:
        """Send what is due, a small batch at a time, until the users are gone and no event waits."""
        while self._waiting or not self._over:
            await asyncio.sleep(FEEDBACK_SECONDS)
            while due := self._due():
                await self._send(due)

    def _due(self) -> list[_Due]:
        now, found = asyncio.get_running_loop().time(), list[_Due]()
        while self._waiting and self._waiting[0].at <= now and len(found) < BATCH:
            found.append(heapq.heappop(self._waiting))
        return found

    async def _send(self, batch: list[_Due]) -> None:
        try:
            status, _, _ = await self._post("/-/feedback", orjson.dumps([due.event for due in batch]))
        except UpstreamFault:
            status = 0
        for due in batch:
            account = self.accounts[due.route]
            if status == 202:
                account.events += 1
            else:
                account.refused_events += 1

    async def _post(
        self, target: str, body: bytes, *headers: tuple[bytes, bytes]
    ) -> tuple[int, Mapping[bytes, bytes], bytes]:
        answer = await self._gateway.call("POST", target.encode(), (*self._headers, *headers), body)
        try:
            content = await answer.read(MAX_ANSWER_BYTES)
        finally:
            answer.close()
        return answer.status, {name.lower(): value for name, value in (*answer.headers, *answer.own)}, content


def _inference(pixels: list[float]) -> bytes:
    tensor = {"name": "image", "shape": [1, PIXELS], "datatype": "FP64", "data": pixels}
    return orjson.dumps({"inputs": [tensor]})
