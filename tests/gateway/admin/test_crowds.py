"""Many clients of the admin port do not delay the recorder: few handlers run at once, none for a client that left."""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.types import Receive, Scope, Send

from gateway.admin.guard import AT_A_TIME, MOST_REQUESTS, Guard
from gateway.admin.identity import Identities
from loadtests.hangups import hang_up
from tests.gateway.admin.fake import ask, control
from tests.gateway.cli.running import admin_port

SCOPE = {"type": "http", "method": "GET", "path": "/metrics", "headers": [(b"host", b"localhost")]}


class Crowd:
    """An app that counts how many requests it had at once and in all."""

    def __init__(self) -> None:
        self.now = self.most = self.answered = 0
        self.guard = Guard(self.app, lambda: control().snapshot, Identities())

    async def app(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.now += 1
        self.most = max(self.most, self.now)
        await asyncio.sleep(0.01)
        self.now -= 1
        self.answered += 1
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def one(self, *, gone: bool, **more: Any) -> None:
        messages = iter([{"type": "http.request", "body": b""}])

        async def receive() -> Any:
            if (message := next(messages, None)) is None and not gone:
                await asyncio.Event().wait()
            return message or {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            pass

        await self.guard({**SCOPE, **more}, receive, send)


def test_few_handlers_run_at_once_and_none_for_a_client_that_left() -> None:
    async def story() -> None:
        crowd = Crowd()
        await asyncio.gather(*(crowd.one(gone=number % 2 == 0) for number in range(MOST_REQUESTS)))
        assert (crowd.answered, crowd.most) == (MOST_REQUESTS // 2, AT_A_TIME)

    asyncio.run(story())


def test_an_answer_that_goes_on_delays_no_other() -> None:
    """An export may take an hour: its turn ends where its answer begins."""

    async def story() -> None:
        crowd = Crowd()

        async def endless(scope: Scope, receive: Receive, send: Send) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await asyncio.Event().wait()

        crowd.guard._app = endless
        slow = [asyncio.create_task(crowd.one(gone=False)) for _ in range(2 * AT_A_TIME)]
        await asyncio.sleep(0.05)
        crowd.guard._app = crowd.app
        async with asyncio.timeout(5):
            await crowd.one(gone=False)
        assert crowd.answered == 1
        for task in slow:
            task.cancel()

    asyncio.run(story())


def test_a_crowd_that_hangs_up_leaves_a_port_that_answers() -> None:
    fake = control()
    with admin_port(fake) as address:
        assert asyncio.run(hang_up(int(address.rpartition(":")[2]), 30, 1.0, 1)) > 30
        assert asyncio.run(hang_up(int(address.rpartition(":")[2]), 1, 0.1, 2)) >= 1
    assert ask(fake, "/metrics").status_code == 200
