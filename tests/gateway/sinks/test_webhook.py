"""A webhook's events arrive at least once and signed, whatever its receiver does; and nothing waits for it."""

from __future__ import annotations

import asyncio
import base64
import hmac
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.control.record.transaction import queue_events
from gateway.sinks.courier import GIVE_UP_MS, Courier
from gateway.sinks.outlet import Trouble
from gateway.sinks.signature import signed, signing_keys
from gateway.sinks.sink_client import SinkClient
from gateway.sinks.targets import is_public, public_addresses
from gateway.sinks.webhook import Webhook
from gateway.store.rows import deliveries, outbox
from gateway.store.rows.recorded import Announced, Recorded
from router.snapshot import Sink
from tests.gateway.control.builders import Desk, at_desk, metric
from tests.gateway.sinks.builders import sink
from tests.stories.backends import Asked, Backend, Reply

SECRETS = ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_" + base64.b64encode(bytes(range(32))).decode())


class Clock:
    """Unix milliseconds that a test sets."""

    def __init__(self) -> None:
        self.now_ms = 1_700_000_000_000

    def __call__(self) -> int:
        return self.now_ms


class Taker:
    """A receiver that verifies signatures. It answers ``status``, or to the ids in ``failing`` what stands there."""

    def __init__(self) -> None:
        self.status = 200
        self.headers: dict[str, str] = {}
        self.failing: dict[str, int] = {}
        self.asked: list[Asked] = []

    async def answer(self, asked: Asked) -> Reply:
        self.asked.append(asked)
        return Reply(None, self.failing.get(asked.headers["webhook-id"], self.status), self.headers)

    @property
    def ids(self) -> list[str]:
        return [asked.headers["webhook-id"] for asked in self.asked]


def webhook(tmp_path: Path, url: str, **more: Any) -> Sink:
    file = tmp_path / "secret"
    file.write_text("\n".join(SECRETS) + "\n")
    content = {"kind": "webhook", "events": ("act",), "url": url, "secret": f"${{file:{file}}}", "allow_private": True}
    return sink("hook", **{**content, **more})


async def announce(desk: Desk, target: Sink, ids: Iterable[str]) -> None:
    told = [Announced("act", 1_700_000_000_000, one, "digits", {"why": "é"}) for one in ids]
    async with desk.store.change() as connection:
        await queue_events(connection, Recorded(announced=told), {target.name: target})


Story = Callable[[Desk, Taker, Courier, Clock], Awaitable[None]]


def told(tmp_path: Path, ids: Iterable[str], story: Story, *, store: str = "sqlite", **more: Any) -> None:
    """Run a story with these events queued for a webhook, whose courier takes single steps."""
    taker, clock = Taker(), Clock()

    async def begin(desk: Desk, url: str) -> None:
        target = webhook(tmp_path, url, **more)
        sending = Courier(desk.store, target, partial(Webhook, target, lambda: clock() / 1000), clock=clock)
        await announce(desk, target, ids)
        await story(desk, taker, sending, clock)
        await sending._close()

    with Backend(taker.answer) as backend:
        at_desk(Desk(tmp_path, metric(), store=store), lambda desk: begin(desk, f"{backend.url}/retrain"))


async def steps(sending: Courier, n: int) -> list[str | None]:
    """Take steps; return what was wrong with each."""
    found: list[str | None] = []
    for _ in range(n):
        try:
            await sending.step()
            found.append(None)
        except Trouble as error:
            found.append(str(error))
    return found


async def counts(desk: Desk) -> dict[str, int]:
    """The counts of the sink's events, which always add up."""
    async with desk.store.read() as connection:
        found = (await outbox.counted(connection))["hook"]
    ends = ("delivered", "refused", "dropped", "erased", "dead", "pending")
    assert found["made"] == sum(found[end] for end in ends)
    return {end: found[end] for end in ends if found[end]}


def test_a_delivery_is_signed_as_the_vector_of_the_standard() -> None:
    """The example of Standard Webhooks and of its libraries; with two keys there are two signatures."""
    content = b'{"test": 2432232314}'
    (one,) = signed(signing_keys(SECRETS[0]), "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, content).split(" ")
    assert one == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    both = signed(signing_keys("\n".join(SECRETS)), "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, content).split(" ")
    assert both[0] == one
    assert len(set(both)) == 2


@pytest.mark.parametrize("secret", ["", "whsec_", "s3cret", "whsec_c2hvcnQ=", "whsec_n0t!base64", f"{SECRETS[0]}\nx"])
def test_a_secret_that_is_none_is_refused_and_not_shown(secret: str) -> None:
    with pytest.raises(ValueError, match="whsec_") as refused:
        signing_keys(secret)
    assert "s3cret" not in str(refused.value)


def test_each_try_has_the_same_id_and_a_signature_of_its_own_time(tmp_path: Path) -> None:
    async def story(desk: Desk, taker: Taker, sending: Courier, clock: Clock) -> None:
        taker.status = 503
        assert await steps(sending, 1) == ["it answers 503"]
        clock.now_ms += 10_000
        taker.status = 200
        assert await steps(sending, 1) == [None]
        assert taker.ids == ["a", "a"]
        times = [int(asked.headers["webhook-timestamp"]) for asked in taker.asked]
        assert times[1] - times[0] == 10
        for asked in taker.asked:
            head = asked.headers
            content = f"{head['webhook-id']}.{head['webhook-timestamp']}.".encode() + asked.body
            for key, signature in zip(SECRETS, head["webhook-signature"].split(" "), strict=True):
                made = hmac.digest(base64.b64decode(key.removeprefix("whsec_")), content, "sha256")
                assert signature == f"v1,{base64.b64encode(made).decode()}"
            assert asked.json["type"] == "turnout.act"
            assert asked.json["data"] == {"route": "digits", "why": "é", "link": "/routes/digits"}
        assert await counts(desk) == {"delivered": 1}

    told(tmp_path, ["a"], story)


def test_an_event_that_fails_holds_up_no_other_and_ends_on_the_list_of_the_dead(
    tmp_path: Path, store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deliveries, "MOST_TRIES", 5)
    pause_ms = GIVE_UP_MS // 12

    async def story(desk: Desk, taker: Taker, sending: Courier, clock: Clock) -> None:
        taker.failing = {"bad": 500}
        assert await steps(sending, 3) == ["it answers 500", None, None]
        assert taker.ids == ["bad", "a", "b"]
        began = clock()
        while clock() - began <= GIVE_UP_MS and (await counts(desk)).get("pending"):
            clock.now_ms += pause_ms
            await steps(sending, 1)
        assert GIVE_UP_MS <= clock() - began < GIVE_UP_MS + 2 * pause_ms
        assert await counts(desk) == {"delivered": 2, "dead": 1}
        async with desk.store.read() as connection:
            (dead,) = await deliveries.dead(connection, "hook")
            tries = await deliveries.tries(connection, "hook")
        assert (dead["event"], dead["why"], dead["tries"]) == ("bad", "it answers 500", taker.ids.count("bad"))
        assert len(tries) == 5
        assert tries[0].status == 500
        taker.failing = {}
        async with desk.store.begin() as connection:
            assert await deliveries.replay(connection, "hook", ["other"], clock()) == 0
            assert await deliveries.replay(connection, "hook", None, clock()) == 1
        assert await counts(desk) == {"delivered": 2, "pending": 1}
        assert await steps(sending, 1) == [None]
        assert taker.ids[-1] == "bad"
        assert await counts(desk) == {"delivered": 3}

    told(tmp_path, ["bad", "a", "b"], story, store=store)


def test_of_too_many_dead_events_the_oldest_are_dropped_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deliveries, "MOST_DEAD", 2)

    async def story(desk: Desk, taker: Taker, sending: Courier, clock: Clock) -> None:
        taker.status = 500
        await steps(sending, 4)
        clock.now_ms += GIVE_UP_MS
        await steps(sending, 4)
        assert await counts(desk) == {"dead": 2, "dropped": 2}

    told(tmp_path, "abcd", story)


def test_a_receiver_that_is_gone_is_asked_no_more_until_an_operator_says_so(tmp_path: Path) -> None:
    async def story(desk: Desk, taker: Taker, sending: Courier, clock: Clock) -> None:
        taker.status = 410
        assert await steps(sending, 3) == ["it answers 410", None, None]
        assert sending.trouble == "it answers 410: disabled until `turnout sink enable hook`"
        again = Courier(desk.store, webhook(tmp_path, sending_url(taker)), lambda: pytest.fail("asked"), clock=clock)
        assert await again.step() is False  # it is stored, so a restart does not ask either
        taker.status = 200
        async with desk.store.begin() as connection:
            assert await deliveries.enable(connection, "hook")
            assert not await deliveries.enable(connection, "hook")
        clock.now_ms += 10_000
        assert await steps(sending, 2) == [None, None]
        assert not sending.trouble
        assert await counts(desk) == {"delivered": 2}

    told(tmp_path, ["a", "b"], story)


def sending_url(taker: Taker) -> str:
    return f"http://{taker.asked[0].headers['host']}/retrain"


def test_what_waits_a_day_for_a_receiver_that_is_gone_is_listed(tmp_path: Path) -> None:
    async def story(desk: Desk, taker: Taker, sending: Courier, clock: Clock) -> None:
        async with desk.store.read() as connection:
            waiting = await outbox.first(connection, "hook")
        assert waiting is not None
        clock.now_ms = waiting.made_ms
        taker.status = 410
        await steps(sending, 1)
        clock.now_ms += GIVE_UP_MS
        await steps(sending, 3)
        assert await counts(desk) == {"dead": 2}
        assert len(taker.asked) == 1

    told(tmp_path, ["a", "b"], story)


def test_the_receivers_pause_is_kept(tmp_path: Path) -> None:
    async def story(desk: Desk, taker: Taker, sending: Courier, clock: Clock) -> None:
        taker.status, taker.headers = 429, {"retry-after": "900"}
        with pytest.raises(Trouble) as trouble:
            await sending.step()
        assert trouble.value.after_seconds == 900  # the courier sleeps as long
        clock.now_ms += 899_000
        assert await sending.step() is False
        clock.now_ms += 1_000
        taker.status = 200
        assert await sending.step() is True

    told(tmp_path, ["a"], story)


def test_a_redirect_is_a_failure(tmp_path: Path) -> None:
    async def story(desk: Desk, taker: Taker, sending: Courier, clock: Clock) -> None:
        taker.status, taker.headers = 307, {"location": "/elsewhere"}
        assert await steps(sending, 1) == ["it answers 307, and redirects are not followed"]
        assert [asked.target for asked in taker.asked] == ["/retrain"]

    told(tmp_path, ["a"], story)


def test_an_answer_without_end_is_cut(tmp_path: Path) -> None:
    """Bytes for ever, a head for ever, nothing for ever: a delivery takes no more than its time and 64 KiB."""

    async def forever(_: asyncio.StreamReader, writer: asyncio.StreamWriter, first: bytes, more: bytes) -> None:
        try:
            writer.write(first)
            while True:
                writer.write(more)
                await writer.drain()
                await asyncio.sleep(0.001)
        except (ConnectionError, asyncio.CancelledError):
            writer.close()

    async def story() -> None:
        head = b"HTTP/1.1 200 OK\r\n"
        late = "no answer within 150 ms"
        for first, more, expected in (
            (head + b"content-length: 100000000\r\n\r\n", b"x" * 65_536, None),
            (head + b"content-length: 100000000\r\n\r\n", b"x", late),
            (head, b"x-more: 1\r\n" * 1_000, "Receive buffer too long"),
            (b"", b"", late),
        ):
            server = await asyncio.start_server(partial(forever, first=first, more=more), "127.0.0.1", 0)
            url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
            sending = Webhook(webhook(tmp_path, url, timeout_ms=150))
            async with server, asyncio.timeout(5):
                if expected is None:
                    assert await sending.send([b'{"id":"a"}']) == 0
                else:
                    with pytest.raises(Trouble, match=expected):
                        await sending.send([b'{"id":"a"}'])
                await sending.close()

    asyncio.run(story())


PRIVATE = [
    *("127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1"),
    *("::1", "::", "fe80::1%eth0", "fc00::1", "::ffff:10.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::", "::127.0.0.1"),
]


@pytest.mark.parametrize("address", PRIVATE)
def test_a_private_address_is_not_public_however_it_is_written(address: str) -> None:
    assert not is_public(address)


@given(st.ip_addresses())
def test_no_address_of_this_machine_is_public_under_another_form(address: Any) -> None:
    if address.version == 4:
        number = int(address)
        forms = [str(address), f"::ffff:{address}", f"64:ff9b::{number >> 16:x}:{number & 0xFFFF:x}"]
        assert len({is_public(form) for form in forms}) == 1


def test_a_name_is_resolved_when_it_is_connected_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """DNS rebinding: a name that was public a moment ago, and leads to this machine now, is refused."""
    answers = iter([["93.184.215.14"], ["93.184.215.14", "10.0.0.1"], ["127.0.0.1"], ["169.254.169.254", "fd00::1"]])

    async def resolve(self: Any, host: str, port: int, **_: Any) -> list[Any]:
        return [(0, 0, 0, "", (address, port)) for address in next(answers)]

    async def story() -> None:
        monkeypatch.setattr(type(asyncio.get_running_loop()), "getaddrinfo", resolve)
        assert await public_addresses("hook.example", 443) == ["93.184.215.14"]
        assert await public_addresses("hook.example", 443) == ["93.184.215.14"]
        for address in ("127.0.0.1", "169.254.169.254"):
            with pytest.raises(Trouble, match=f"hook.example is {address}.*allow_private = true"):
                await SinkClient(webhook(tmp_path, "https://hook.example/"), guarded=True).send(b"{}", {})

    asyncio.run(story())


def test_a_guarded_request_goes_to_the_address_that_was_examined_under_the_names_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taker = Taker()

    async def resolved(host: str, port: int) -> list[str]:
        return ["127.0.0.1"]

    async def story(port: str) -> None:
        sending = Webhook(webhook(tmp_path, f"http://hook.example:{port}/x", allow_private=False))
        assert await sending.send([orjson.dumps({"id": "a"})]) == 0
        await sending.close()

    monkeypatch.setattr("gateway.sinks.sink_client.public_addresses", resolved)
    with Backend(taker.answer) as backend:
        port = backend.url.rpartition(":")[2]
        asyncio.run(story(port))
    assert [asked.headers["host"] for asked in taker.asked] == [f"hook.example:{port}"]
