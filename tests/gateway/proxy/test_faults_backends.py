"""Faults of backends, through a whole worker: what the client saw, what was logged, and that the pool is whole.

Rule: each test is one fault by its number, of which ``test_faults`` holds the list; ``troubled`` asserts the last part.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway.files.published import SNAPSHOT, publish
from gateway.proxy.client import phases, upstream
from tests.gateway.proxy import faults
from tests.gateway.proxy.builders import backend, only, route, snapshot
from tests.gateway.proxy.faults import OK, Received, Wire, nowhere, polite
from tests.gateway.proxy.stage import play, staged
from tests.gateway.proxy.trouble import (
    CHUNKED,
    ERROR,
    LONG,
    SHORT,
    UNTIL_CLOSE,
    Act,
    Trouble,
    closes,
    drips,
    late,
    one_row_each,
    resets,
    saw,
    sends,
    slices,
    stalls,
    troubled,
    well,
)

#: What there is of an answer would do as a prediction: the digits of a number.
PREDICTION = {"prediction": ""}


# F1: there is no listener.


def test_f1_a_backend_that_refuses_is_502_and_one_row(tmp_path: Path) -> None:
    async def main() -> None:
        cast = (backend("gone", nowhere()), route("gone", only("gone")))
        async with troubled(tmp_path, cast=cast) as t:
            got = await t.ask(b"x", target="/gone")
            assert saw(got) == "502 refused"
            (row,) = t.stage.rows()
            assert (row["id"], row["status"], row["fault"], row.get("retries")) == (got.id, 502, "refused", None)
            assert not t.stage.counted()
            assert not t.seen

    play(main())


def test_f1_a_call_that_one_replica_refuses_goes_once_to_another_whatever_its_method(tmp_path: Path) -> None:
    async def main() -> None:
        async with troubled(tmp_path, nowhere=1) as t:
            assert [await t.saw(b"%d" % n) for n in range(20)] == ["200 ok"] * 20
            assert [request.body for request in t.seen] == [b"%d" % n for n in range(20)]
            retries = Counter(retries for _, status, fault, retries in t.logged() if (status, fault) == (200, None))
            assert (retries.total(), set(retries)) == (20, {0, 1})
            assert t.stage.counted() == {("retries", "a", "refused"): retries[1]}

    play(main())


# F2: accepted, and closed before an answer, on a fresh connection.


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("act", [closes(), closes(after_seconds=0.05), resets(), closes(b"HTTP/1.1 200 OK\r\nconten")])
def test_f2_a_fresh_connection_that_ends_without_an_answer_is_502_and_not_tried_again(
    tmp_path: Path, act: Act, method: str
) -> None:
    async def main() -> None:
        async with troubled(tmp_path, act) as t:
            assert await t.saw(method=method) == "502 reset"
            assert t.logged() == [("call", 502, "reset", 0)]
            assert (len(t.seen), t.replicas[0].wires) == (1, 1)
            assert not t.stage.counted()

    play(main())


@pytest.mark.parametrize(("method", "expected"), [("GET", "200 ok"), ("PUT", "200 ok"), ("POST", "502 reset")])
def test_f2_another_replica_is_asked_only_if_twice_is_as_good_as_once(
    tmp_path: Path, method: str, expected: str
) -> None:
    async def main() -> None:
        async with troubled(tmp_path, closes(), replicas=2) as t:
            assert await t.saw(b"x", method=method) == expected
            again = expected == "200 ok"
            assert [len(replica.requests) for replica in t.replicas] in ([[1, 1]] if again else [[0, 1], [1, 0]])
            assert t.logged() == [("call", 200, None, 1) if again else ("call", 502, "reset", 0)]
            assert t.stage.counted() == ({("retries", "a", "reset"): 1} if again else {})

    play(main())


# F3: the same on a connection that was used before.


@pytest.mark.parametrize("act", [closes(), resets()])
@pytest.mark.parametrize(("method", "expected"), [("GET", "200 ok"), ("DELETE", "200 ok"), ("POST", "502 reset")])
def test_f3_a_used_connection_that_ends_is_replaced_only_if_twice_is_as_good_as_once(
    tmp_path: Path, act: Act, method: str, expected: str
) -> None:
    async def main() -> None:
        async with troubled(tmp_path, well, act) as t:
            assert await t.saw(method=method) == "200 ok"
            assert await t.saw(method=method) == expected
            again = expected == "200 ok"
            assert (len(t.seen), t.replicas[0].wires) == ((3, 2) if again else (2, 1))
            assert t.logged()[1] == (("call", 200, None, 1) if again else ("call", 502, "reset", 0))
            assert t.stage.counted() == ({("retries", "a", "reset"): 1} if again else {})

    play(main())


# F4: it stalls. Each stage has a timer of its own. A total is long enough for the calls at the end of the test, too.


@pytest.mark.parametrize(
    ("act", "settings", "expected"),
    [
        (stalls(), {"timeout_ms": 100}, "504 timeout"),
        (late(0.3, OK), {"timeout_ms": 100}, "504 timeout"),
        (stalls(b"HTTP/1.1 200 OK\r\nconten"), {"timeout_ms": 100}, "504 timeout"),
        (stalls(b"HTTP/1.1 103 Early Hints\r\n\r\n"), {"timeout_ms": 100}, "504 timeout"),
        (stalls(), {"total_timeout_ms": 300}, "504 timeout"),
        (stalls(SHORT + b"123"), {"idle_timeout_ms": 100}, "504 timeout"),
        (stalls(SHORT + b"123"), {"total_timeout_ms": 300}, "504 timeout"),
        (stalls(LONG + b"123"), {"idle_timeout_ms": 100}, "200 123 (cut)"),
        (stalls(CHUNKED + b"3\r\n123\r\n"), {"idle_timeout_ms": 100}, "200 123 (cut)"),
        (stalls(CHUNKED + b"3\r\n123\r\n"), {"total_timeout_ms": 300}, "200 123 (cut)"),
        (stalls(UNTIL_CLOSE + b"123"), {"idle_timeout_ms": 100}, "200 123 (cut)"),
    ],
)
def test_f4_an_answer_that_stalls_is_504_before_its_head_is_sent_and_breaks_off_after(
    tmp_path: Path, act: Act, settings: dict[str, Any], expected: str
) -> None:
    async def main() -> None:
        async with troubled(tmp_path, act, route=PREDICTION, **settings) as t:
            assert await t.saw() == expected
            await t.stage.eventually(lambda: not t.open)  # no client waits for the rest of it
            assert len(t.seen) == 1
            check_failure(t, expected, "timeout")

    play(main())


def test_f4_a_connection_that_does_not_come_up_is_504(tmp_path: Path) -> None:
    async def main() -> None:
        async with troubled(tmp_path, deaf=True, connect_timeout_ms=100) as t:
            assert await t.saw() == "504 timeout"
            assert t.logged() == [("call", 504, "timeout", 0)]

    play(main())


def test_f4_a_backend_that_does_not_take_an_upload_is_504(tmp_path: Path) -> None:
    async def main() -> None:
        go = asyncio.Event()

        async def hardly(wire: Wire) -> None:
            await wire.head()
            await go.wait()

        async with faults.backend(hardly) as deaf:
            cast = (backend("b", deaf.url, timeout_ms=200), route("b", only("b")))
            async with troubled(tmp_path, cast=cast) as t:
                assert saw(await t.ask(b"x" * 9_000_000, target="/b")) == "504 timeout"
                go.set()
                await t.stage.eventually(lambda: not deaf.open)
                assert t.logged() == [("call", 504, "timeout", 0)]

    play(main())


def test_f4_latency_and_a_slow_close_are_no_faults(tmp_path: Path) -> None:
    async def main() -> None:
        acts = (late(0.1, OK), closes(OK, after_seconds=0.1), closes(UNTIL_CLOSE + b"123", after_seconds=0.1))
        async with troubled(tmp_path, *acts, timeout_ms=5_000) as t:
            assert [await t.saw() for _ in range(2)] == ["200 ok", "200 ok"]
            await t.stage.eventually(lambda: not t.open)  # else the next would meet what F3 is about
            assert await t.saw() == "200 123"
            assert [row[1:] for row in t.logged("call", "close")] == [(200, None, 0)] * 3

    play(main())


# F5: it drips: in time between bytes, and never done.


@pytest.mark.parametrize(
    ("act", "expected"),
    [
        (drips(SHORT[:-4], b"\r\nx: y"), "504"),
        (drips(SHORT.replace(b"10", b"90000"), b"1"), "504"),
        (drips(LONG, b"1"), "200"),
        (drips(CHUNKED, b"1\r\n1\r\n"), "200"),
        (drips(UNTIL_CLOSE, b"1"), "200"),
    ],
)
def test_f5_an_answer_that_drips_has_a_total(tmp_path: Path, act: Act, expected: str) -> None:
    async def main() -> None:
        async with troubled(tmp_path, act, route=PREDICTION, idle_timeout_ms=150, total_timeout_ms=250) as t:
            got = await t.ask()
            if expected == "504":
                assert saw(got) == "504 timeout"
            else:
                assert not got.whole
                assert set(got.body) == {ord("1")}
            await t.stage.eventually(lambda: not t.open)
            check_failure(t, expected, "timeout")

    play(main())


def test_f5_without_a_total_a_stream_drips_as_long_as_it_likes(tmp_path: Path) -> None:
    async def main() -> None:
        data = b"1\r\n1\r\n" * 30 + b"0\r\n\r\n"

        async def slowly(wire: Wire) -> None:
            await wire.send(CHUNKED)
            await wire.slice(data, pause_seconds=0.002)

        async with troubled(tmp_path, slowly, idle_timeout_ms=150) as t:
            assert await t.saw() == "200 " + "1" * 30
            assert t.logged("close") == [("close", 200, None, 0)]

    play(main())


# F6: it breaks off, or is no answer at all.


@pytest.mark.parametrize(
    ("act", "expected"),
    [
        (closes(SHORT + b"123"), "502 incomplete"),
        (closes(SHORT, b"123"), "502 incomplete"),
        (resets(SHORT, b"123"), "502 incomplete"),
        (closes(LONG + b"123"), "200 123 (cut)"),
        (resets(LONG, b"123"), "200 123 (cut)"),
        (closes(CHUNKED + b"3\r\n123\r\n"), "200 123 (cut)"),
        (resets(CHUNKED, b"3\r\n123\r\n"), "200 123 (cut)"),
        (closes(CHUNKED, b"9\r\n123"), "200 123 (cut)"),
        (closes(CHUNKED + b"3\r\n123\r\n0\r\n"), "200 123 (cut)"),
        (resets(UNTIL_CLOSE, b"123"), "200 123 (cut)"),
    ],
)
def test_f6_an_answer_that_breaks_off_is_never_whole_nor_a_prediction(tmp_path: Path, act: Act, expected: str) -> None:
    async def main() -> None:
        async with troubled(tmp_path, act, route=PREDICTION) as t:
            assert await t.saw(method="GET") == expected
            assert len(t.seen) == 1
            check_failure(t, expected, "incomplete")

    play(main())


GLUED = b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nstolen"


@pytest.mark.parametrize(
    "act",
    [
        sends(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 4\r\n\r\nabcd"),
        sends(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n"),
        sends(CHUNKED + b"3\r\nabcd\r\n0\r\n\r\n"),
        sends(CHUNKED + b"xyz\r\n"),
        slices(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 4\r\n\r\nabcd"),
        sends(b"HTTP/1.1 101 Switching Protocols\r\nupgrade: h2c\r\nconnection: upgrade\r\n\r\n" + GLUED),
        sends(b"<html>hello</html>"),
        sends(b"\x15\x03\x01\x00\x02\x02\x28"),
    ],
)
def test_f6_what_is_no_answer_is_502_and_the_end_of_its_connection(tmp_path: Path, act: Act) -> None:
    async def main() -> None:
        async with troubled(tmp_path, act, route=PREDICTION) as t:
            assert await t.saw(method="GET") == "502 protocol"
            await t.stage.eventually(lambda: not t.open)
            assert len(t.seen) == 1
            check_failure(t, "502", "protocol")

    play(main())


def test_f6_a_chunk_that_goes_wrong_later_breaks_the_answer_off(tmp_path: Path) -> None:
    async def main() -> None:
        async with troubled(tmp_path, sends(CHUNKED + b"3\r\n123\r\n", b"xyz\r\n"), route=PREDICTION) as t:
            assert await t.saw() == "200 123 (cut)"
            await t.stage.eventually(lambda: not t.open)
            check_failure(t, "200", "protocol")

    play(main())


@pytest.mark.parametrize(
    ("data", "expected"),
    [(OK, "200 ok"), (CHUNKED + b"2\r\nab\r\n1\r\nc\r\n0\r\n\r\n", "200 abc"), (ERROR, "500 bad")],
)
def test_f6_an_answer_in_slices_is_as_good_as_in_one_piece(tmp_path: Path, data: bytes, expected: str) -> None:
    async def main() -> None:
        async with troubled(tmp_path, slices(data), slices(data)) as t:
            assert [await t.saw(), await t.saw()] == [expected] * 2
            assert [row[1:] for row in t.logged("call", "close")] == [(int(expected[:3]), None, 0)] * 2
            assert t.replicas[0].wires == 1

    play(main())


def test_f6_no_user_gets_another_users_answer(tmp_path: Path) -> None:
    """Whatever comes after an answer or in place of one: a user gets the answer to their own request, or an error.

    This holds for bytes that arrive before the next request is sent; of an answer that begins later no client could say
    which request it belongs to. Here connections are reused at once; bytes on an idle connection are duty 36.
    """

    def answer(name: bytes, spoilt: int) -> tuple[bytes, ...]:
        body = b"for-" + name
        good = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body) + body
        chunks = b"%x\r\n%b\r\n" % (len(body), body)
        return (
            (good,),
            (good + GLUED,),
            (good + GLUED[:9], GLUED[9:]),
            (good.replace(b"\r\n\r\n", b"\r\ncontent-length: 3\r\n\r\n", 1),),
            (CHUNKED + chunks + b"zz\r\n",),
            (CHUNKED + chunks + b"0\r\n\r\n" + GLUED,),
            (CHUNKED + chunks + b"0\r\n\r\n",),
            (good.replace(b"content-length: ", b"content-length: 1"),),
        )[spoilt]

    async def script(wire: Wire) -> None:
        while (request := await wire.request()) is not None:
            name = request.line.split(b" ")[1].rpartition(b"/")[2]
            await wire.send(*answer(name, int(name) % 8))
            if int(name) % 8 == 7:
                wire.close()

    async def main() -> None:
        async with faults.backend(script) as b:
            cast = snapshot(backend("b", b.url, max_concurrency=8), route("b", only("b"), path="/b/*"))
            async with staged(tmp_path, cast) as stage:
                got = []
                for start in range(0, 400, 20):
                    names = range(start, start + 20)
                    got += await asyncio.gather(*(stage.ask(f"/b/{name}", method="GET") for name in names))
                await stage.eventually(lambda: not stage.busy())
                one_row_each(stage)
        for name, answer_ in enumerate(got):
            mine = f"200 for-{name}"
            bad = {3: ("502 protocol",), 4: ("502 protocol", mine + " (cut)"), 7: ("502 incomplete",)}
            assert saw(answer_) in bad.get(name % 8, (mine,)), name
        assert {row["id"] for row in stage.rows()} == {answer_.id for answer_ in got}

    play(main())


# F12: one backend is slow.


def test_f12_a_backend_that_hangs_takes_nothing_from_another(tmp_path: Path) -> None:
    """Each has its own places and its own queue: all places of one are taken while the other answers every request."""

    async def main() -> None:
        async with faults.backend() as fast:
            cast = (backend("b", fast.url, max_concurrency=2), route("b", only("b")))
            settings: dict[str, Any] = {"max_waiting": 2, "wait_timeout_ms": 10_000, "timeout_ms": 10_000}
            async with troubled(tmp_path, cast=cast, **settings) as t:
                hang = asyncio.Event()

                async def hangs(wire: Wire) -> None:
                    await hang.wait()
                    await wire.send(OK)

                t.usual = hangs
                stuck = [asyncio.create_task(t.saw()) for _ in range(5)]
                up = t.stage.upstreams()["a"]
                await t.stage.eventually(lambda: (up.in_flight, len(up.waiting)) == (3, 2))
                assert [saw(await t.ask(target="/b")) for _ in range(50)] == ["200 ok"] * 50
                assert await t.saw() == "503 overloaded"
                assert not any(task.done() for task in stuck)
                hang.set()
                assert [await task for task in stuck] == ["200 ok"] * 5
                assert Counter(t.logged()) == {("call", 200, None, 0): 55, ("call", 503, "overloaded", 0): 1}

    play(main())


def test_f12_a_backend_that_takes_few_connections_fails_only_what_is_over(tmp_path: Path) -> None:
    async def main() -> None:
        async with troubled(tmp_path) as t:
            t.replicas[0].limit = 1
            hold = asyncio.Event()

            async def holds(wire: Wire) -> None:
                await hold.wait()
                await wire.send(OK)

            t.acts.append(holds)
            first = asyncio.create_task(t.saw())
            await t.stage.eventually(lambda: t.seen)
            assert [await t.saw() for _ in range(2)] == ["502 reset"] * 2
            hold.set()
            assert await first == "200 ok"
            assert Counter(t.logged()) == {("call", 200, None, 0): 1, ("call", 502, "reset", 0): 2}
            t.replicas[0].limit = 100

    play(main())


# F13: a storm of repeats.


def test_f13_when_everything_fails_at_once_a_fifth_is_repeated_and_the_rest_is_counted(tmp_path: Path) -> None:
    many = 40

    async def main() -> None:
        fail, end = asyncio.Event(), asyncio.Event()

        async def fails(wire: Wire) -> None:
            await fail.wait()
            wire.close()

        async def fails_again(wire: Wire) -> None:
            await end.wait()
            wire.close()

        acts = [fails] * many + [fails_again] * many
        async with troubled(tmp_path, *acts, replicas=2, max_concurrency=many) as t:
            asking = [asyncio.create_task(t.saw(method="GET")) for _ in range(many)]
            await t.stage.eventually(lambda: len(t.seen) == many)
            fail.set()
            await t.stage.eventually(lambda: sum(task.done() for task in asking) == 32)
            await t.stage.eventually(lambda: len(t.seen) == many + 8)
            end.set()
            assert [await task for task in asking] == ["502 reset"] * many
            assert len(t.seen) == many + 8
            assert Counter(t.logged()) == {("call", 502, "reset", 0): 32, ("call", 502, "reset", 1): 8}
            assert t.stage.counted() == {("retries", "a", "reset"): 8, ("retry_budget_exhausted", "a"): 32}

    play(main())


# F16: a replica that fails and recovers in turn.


def test_f16_a_replica_that_flaps_is_out_longer_each_time_and_comes_back(tmp_path: Path) -> None:
    ill = [True]

    async def moody(wire: Wire) -> None:
        while await wire.request() is not None:
            await wire.send(ERROR if ill[0] else OK)

    async def main() -> None:
        async with faults.backend(moody) as patient, faults.backend() as other:
            cast = (backend("b", patient.url, other.url, eject_after=2, eject_ms=150), route("b", only("b")))
            async with troubled(tmp_path, cast=cast) as t:
                up = t.stage.upstreams()["b"]

                async def ask_until(state: str) -> Counter[str]:
                    answers: Counter[str] = Counter()
                    async with asyncio.timeout(5):
                        while up.states()[0][1] != state:
                            answers[saw(await t.ask(target="/b"))] += 1
                            await asyncio.sleep(0.005)
                    return answers

                assert (await ask_until("ejected"))["500 bad"] == 2
                out = len(patient.requests)
                assert [saw(await t.ask(target="/b")) for _ in range(10)] == ["200 ok"] * 10
                # Its trial, of which it makes nothing.
                async with asyncio.timeout(5):
                    while len(patient.requests) == out:
                        await t.ask(target="/b")
                assert up.states()[0][1] == "ejected"
                ill[0] = False
                assert set(await ask_until("fit")) == {"200 ok"}
                counted = t.stage.counted()
                assert [(key[0], key[1], key[3], n) for key, n in counted.items()] == [("ejections", "b", "answer", 2)]
                assert Counter(row.get("status") for row in t.stage.rows())[500] == 3
                assert not any("fault" in row for row in t.stage.rows())

    play(main())


def test_f16_when_every_replica_is_bad_all_are_asked(tmp_path: Path) -> None:
    async def main() -> None:
        async with troubled(tmp_path, replicas=2, eject_after=1, eject_ms=60_000, max_ejected_share=1.0) as t:
            t.usual = sends(ERROR)
            assert [await t.saw() for _ in range(30)] == ["500 bad"] * 30
            assert all(len(replica.requests) > 1 for replica in t.replicas)
            assert t.logged() == [("call", 500, None, 0)] * 30

    play(main())


# F17: the backend's errors are distinguished from the gateway's.


def test_f17_errors_of_the_connection_and_of_the_backend_are_counted_apart(tmp_path: Path) -> None:
    async def main() -> None:
        async def broken(wire: Wire) -> None:
            while await wire.request() is not None:
                await wire.send(ERROR)

        async with faults.backend() as fine, faults.backend(broken) as bad:
            cast = (
                backend("gone", nowhere(), fine.url, eject_after=2),
                backend("bad", bad.url, fine.url, eject_after=2),
                route("gone", only("gone")),
                route("bad", only("bad")),
            )
            async with troubled(tmp_path, cast=cast) as t:
                answers = Counter([saw(await t.ask(target=f"/{name}")) for name in ("gone", "bad") for _ in range(30)])
                assert answers == {"200 ok": 58, "500 bad": 2}
                counted = {(key[0], key[1], key[-1]): number for key, number in t.stage.counted().items()}
                assert counted == {
                    ("retries", "gone", "refused"): 2,
                    ("ejections", "gone", "connection"): 1,
                    ("ejections", "bad", "answer"): 1,
                }
                assert Counter(t.logged()) == {
                    ("call", 200, None, 0): 56,
                    ("call", 200, None, 1): 2,
                    ("call", 500, None, 0): 2,
                }

    play(main())


# F29: the backend moves.


def test_f29_a_backend_that_moves_is_followed_and_no_request_fails(tmp_path: Path) -> None:
    """Requests under way end where they began; then the old connections go."""

    async def main() -> None:
        go = asyncio.Event()

        async def held(wire: Wire) -> None:
            while (request := await wire.request()) is not None:
                if request.body == b"held":
                    await go.wait()
                await wire.send(OK)

        async with faults.backend(held) as old, faults.backend(polite) as new:
            before = snapshot(backend("a", old.url), route("a", only("a")))
            moved = replace(before, revision=4, backends={"a": backend("a", new.url)})
            async with staged(tmp_path, before) as stage:
                first = asyncio.create_task(stage.ask("/a", b"held"))
                await stage.eventually(lambda: old.requests)
                publish(tmp_path / SNAPSHOT, moved)
                asked = 0
                async with asyncio.timeout(5):
                    while not new.requests:
                        assert saw(await stage.ask("/a")) == "200 ok"
                        asked += 1
                assert [saw(await stage.ask("/a")) for _ in range(20)] == ["200 ok"] * 20
                assert len(old.requests) + len(new.requests) == asked + 21
                assert (len(new.requests), old.open) >= (21, 1)
                go.set()
                assert saw(await first) == "200 ok"
                await stage.eventually(lambda: not old.open)
                await stage.eventually(lambda: not stage.busy())
                one_row_each(stage)
                assert {(row["status"], row.get("fault")) for row in stage.rows()} == {(200, None)}

    play(main())


# F30: the keep-alive race.


@pytest.mark.interpreted  # a compiled constant stays what it was
def test_f30_at_a_low_rate_no_request_meets_the_moment_in_which_its_backend_closes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Common servers close after five seconds of idleness; here everything takes a tenth of the time."""
    assert phases.IDLE_SECONDS < 5 - 0.5
    monkeypatch.setattr(phases, "IDLE_SECONDS", phases.IDLE_SECONDS / 10)
    monkeypatch.setattr(upstream, "IDLE_SECONDS", phases.IDLE_SECONDS)

    async def impatient(wire: Wire) -> None:
        async def request() -> Received | None:
            try:
                return await asyncio.wait_for(wire.request(), 0.5)
            except TimeoutError:
                return None

        while await request() is not None:
            await wire.send(OK)

    async def main() -> None:
        async with faults.backend(impatient) as b:
            names = [f"v{n}" for n in range(13)]
            parts = [part for name in names for part in (backend(name, b.url), route(name, only(name)))]
            async with staged(tmp_path, snapshot(*parts)) as stage:

                async def seldom(name: str, pause: float) -> list[str]:
                    answers = []
                    for _ in range(3):
                        answers.append(saw(await stage.ask(f"/{name}", b"x")))
                        await asyncio.sleep(pause)
                    return answers

                pauses = [0.35 + 0.015 * n for n in range(13)]
                told = await asyncio.gather(*map(seldom, names, pauses))
                assert told == [["200 ok"] * 3] * 13
                assert len(b.requests) == 39
                assert not stage.counted()
                await stage.eventually(lambda: not b.open)

    play(main())


def check_failure(t: Trouble, saw: str, fault: str) -> None:
    """Check that the one request so far is logged as the backend's failure, and as no prediction."""
    status = int(saw[:3])
    rows = t.logged()
    if status == 200:
        # The open row says what becomes of it should the worker die.
        assert rows == [("open", 200, "incomplete", 0), ("close", 200, fault, 0)]
    else:
        assert rows == [("call", status, fault, 0)]
    assert not any(row.get("predicted") for row in t.stage.rows())
    assert not t.stage.counted()
