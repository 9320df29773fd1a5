"""``POST /-/feedback`` and the health paths: what is acknowledged is durable, what is refused is counted."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway.files.published import SNAPSHOT, publish
from gateway.journal.appender import Appender
from router.settings.tokens import NamedToken, Scope, hashed
from router.snapshot import Backend, Gateway, Metric, Route
from tests.gateway.proxy.builders import backend, metric, only, route, snapshot
from tests.gateway.proxy.stage import Got, Stage, play, read_answer, staged

GOOD = {"prediction_id": "p1", "metric": "correct", "value": 7}


def parts() -> tuple[Backend, Metric, Route]:
    return backend("a", "http://127.0.0.1:1"), metric("correct"), route("r", only("a"))


async def send(stage: Stage, body: object, **headers: str) -> tuple[int, Any]:
    got = await stage.ask("/-/feedback", body, headers=headers)
    return got.status, got.json


def test_one_event_or_several_are_accepted_and_are_in_the_journal(tmp_path: Path) -> None:
    async def main() -> None:
        async with staged(tmp_path, snapshot(*parts())) as stage:
            assert await send(stage, GOOD) == (202, {"accepted": 1})
            assert await send(stage, [GOOD, {**GOOD, "prediction_id": "p2"}]) == (202, {"accepted": 2})
            assert await send(stage, []) == (202, {"accepted": 0})
            # 202 means that the event is on the disk, so it is read without waiting.
            assert [line["prediction_id"] for line in stage.feedback()] == ["p1", "p1", "p2"]
        assert stage.feedback()[0] | {"received_ms": 0} == {"line": "feedback", **GOOD, "received_ms": 0}
        assert not [line for line in stage.lines() if line["line"] == "rejected"]

    play(main())


def test_one_bad_event_refuses_all_and_each_problem_is_told_by_index(tmp_path: Path) -> None:
    async def main() -> None:
        async with staged(tmp_path, snapshot(*parts())) as stage:
            status, body = await send(stage, [GOOD, {**GOOD, "metric": "corect"}, 3])
            assert (status, stage.feedback()) == (422, [])
        assert body == {
            "type": "about:blank",
            "title": "Unprocessable Content",
            "status": 422,
            "detail": "2 problems in 3 events; nothing is stored",
            "errors": [
                {"index": 1, "detail": 'unknown metric "corect", did you mean "correct"?'},
                {"index": 2, "detail": "an event must be an object, got 3"},
            ],
        }
        (rejected,) = [line for line in stage.lines() if line["line"] == "rejected"]
        assert rejected["events"] == 3
        assert stage.counters == {("feedback_rejected", "invalid"): 3}

    play(main())


@pytest.mark.parametrize(
    ("body", "status", "events"),
    [
        (b"not json", 422, 1),
        (b'{"value": NaN}', 422, 1),
        ([GOOD] * 1001, 422, 1001),
        (b" " * (2**21), 413, 1),
    ],
)
def test_what_is_no_feedback_is_refused_and_counted(tmp_path: Path, body: object, status: int, events: int) -> None:
    async def main() -> None:
        async with staged(tmp_path, snapshot(*parts())) as stage:
            got = await stage.ask("/-/feedback", body)
            assert got.status == status
            assert got.headers["content-type"] == "application/problem+json"
        assert [line["events"] for line in stage.lines() if line["line"] == "rejected"] == [events]

    play(main())


def test_a_body_that_turns_out_too_long_is_413_as_well(tmp_path: Path) -> None:
    async def main() -> None:
        async with staged(tmp_path, snapshot(*parts())) as stage:
            sent = {"transfer-encoding": "chunked", "content-length": ""}
            reader, writer = await stage.send("/-/feedback", headers=sent)
            for _ in range(17):
                writer.write(b"10000\r\n" + b" " * 65_536 + b"\r\n")
            assert (await read_answer(reader)).status == 413
            writer.close()

    play(main())


def test_one_problem_in_one_event_is_said_in_the_singular(tmp_path: Path) -> None:
    async def main() -> None:
        async with staged(tmp_path, snapshot(*parts())) as stage:
            status, body = await send(stage, {**GOOD, "metric": "corect"})
        assert (status, body["detail"]) == (422, "1 problem in 1 event; nothing is stored")

    play(main())


@pytest.mark.parametrize(
    ("authorization", "status"),
    [("Bearer s3cret", 202), ("bearer  s3cret ", 202), ("Bearer s3cre", 401), ("Basic s3cret", 401), ("", 401)],
)
def test_a_token_is_asked_for_when_one_is_set(tmp_path: Path, authorization: str, status: int) -> None:
    (tmp_path / "token").write_text("s3cret\n")

    async def main() -> None:
        cast = snapshot(Gateway(feedback_token_file=str(tmp_path / "token")), *parts())
        async with staged(tmp_path, cast) as stage:
            got = await stage.ask("/-/feedback", GOOD, headers={"authorization": authorization})
        assert got.status == status
        assert ("www-authenticate" in got.headers) == (status == 401)
        assert len(stage.feedback()) == (status == 202)
        # It is not known whether it was feedback.
        assert not [line for line in stage.lines() if line["line"] == "rejected"]

    play(main())


def test_a_named_token_is_taken_where_one_is_asked_for_until_it_is_revoked(tmp_path: Path) -> None:
    """Of scope feedback alone: a token that may change routes is not one to give to a web page."""
    (tmp_path / "token").write_text("s3cret\n")
    scopes: tuple[Scope, ...] = ("feedback", "read", "operate", "admin")
    named = tuple(NamedToken(name=one, scope=one, sha256=hashed(f"turnout_{one}".encode())) for one in scopes)
    over = NamedToken(name="over", scope="feedback", sha256=hashed(b"turnout_over"), expires_ms=1)

    async def main() -> None:
        for gateway in (Gateway(feedback_token_required=True), Gateway(feedback_token_file=str(tmp_path / "token"))):
            cast = replace(snapshot(gateway, *parts()), tokens=(*named, over))
            place = tmp_path / str(gateway.feedback_token_required)
            place.mkdir()
            async with staged(place, cast) as stage:

                async def status(token: str) -> int:
                    got = await stage.ask("/-/feedback", b"[]", headers={"authorization": f"Bearer {token}"})
                    return got.status

                assert await status("turnout_feedback") == 202
                for token in ("turnout_read", "turnout_operate", "turnout_admin", "turnout_over", "turnout_", ""):
                    assert await status(token) == 401
                assert await status("s3cret") == (401 if gateway.feedback_token_required else 202)
                publish(place / SNAPSHOT, replace(cast, tokens=named[1:]))
                async with asyncio.timeout(10):
                    while await status("turnout_feedback") == 202:
                        await asyncio.sleep(0.05)
            assert stage.counters["feedback_token_uses", "feedback"] >= 1

    play(main())


def test_where_no_token_is_asked_for_any_is_ignored(tmp_path: Path) -> None:
    async def main() -> None:
        async with staged(tmp_path, snapshot(*parts())) as stage:
            got = await stage.ask("/-/feedback", b"[]", headers={"authorization": "Bearer turnout_other"})
            assert got.status == 202

    play(main())


def test_feedback_that_cannot_be_made_durable_is_503(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with staged(tmp_path, snapshot(*parts())) as stage:
            with monkeypatch.context() as broken:
                broken.setattr(os, "fdatasync", _fails)
                status, body = await send(stage, GOOD)
                assert (status, body["detail"]) == (503, "the journal could not be written: Input/output error")
            assert (await send(stage, GOOD))[0] == 202
        assert stage.counters == {("journal_refused",): 1, ("feedback_commits",): 2}

    play(main())


def _fails(fd: int) -> None:
    raise OSError(5, "Input/output error")


def test_feedback_is_503_while_the_journal_is_full_whatever_the_policy(tmp_path: Path) -> None:
    async def main() -> None:
        (tmp_path / "journal" / "feedback").mkdir(parents=True)
        old = Appender(tmp_path / "journal" / "feedback", "000000000000-00-000000000000", roll_bytes=2**20)
        old.append(b"x" * 5000 + b"\n")
        old.close()
        async with staged(tmp_path, snapshot(Gateway(max_feedback_journal_bytes=4000), *parts())) as stage:
            status, body = await send(stage, GOOD)
        assert (status, body["detail"]) == (503, "the journal is full")
        assert stage.counters[("journal_refused",)] == 1

    play(main())


def test_many_callers_are_served_at_once_and_nothing_is_lost(tmp_path: Path) -> None:
    async def main() -> None:
        async with staged(tmp_path, snapshot(*parts())) as stage:
            events = [{**GOOD, "prediction_id": f"p{n}"} for n in range(100)]
            results = await asyncio.gather(*(send(stage, event) for event in events))
            assert {status for status, _ in results} == {202}
        assert {line["prediction_id"] for line in stage.feedback()} == {event["prediction_id"] for event in events}

    play(main())


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/-/livez", 200),
        ("HEAD", "/-/readyz", 200),
        ("GET", "/-/readyz?verbose", 200),
        ("POST", "/-/livez", 405),
        ("GET", "/-/feedback", 405),
        ("GET", "/-/nothing", 404),
    ],
)
def test_the_gateways_own_paths(tmp_path: Path, method: str, path: str, status: int) -> None:
    async def main() -> None:
        async with staged(tmp_path, snapshot(*parts())) as stage:
            sent = {"content-length": ""} if method != "POST" else {}
            reader, writer = await stage.send(path, method=method, headers={**sent, "connection": "close"})
            answer = await reader.read()
            writer.close()
        assert answer.split(b" ")[1] == str(status).encode()
        assert (b"\r\nallow: " in answer) == (status == 405)

    play(main())


def test_a_worker_that_drains_is_not_ready(tmp_path: Path) -> None:
    """Connections that were open already get this answer; new ones are not accepted."""

    async def main() -> None:
        async with staged(tmp_path, snapshot(*parts())) as stage:
            reader, writer = await asyncio.open_connection("127.0.0.1", stage.port)
            writer.write(b"GET /-/readyz HTTP/1.1\r\nhost: x\r\n")
            await asyncio.sleep(0.05)
            stage.stop.set()
            await asyncio.sleep(0.05)
            writer.write(b"\r\n")
            got = await read_answer(reader)
            writer.close()
        assert (got.status, got.json) == (503, {"status": "draining"})

    play(main())


@pytest.mark.parametrize("depth", [10, 254, 1_000, 100_000])
@pytest.mark.parametrize("begins", ["", '{"prediction_id":"p1","metric":"correct","value":', '[{"x":'])
def test_json_that_is_nested_deeply_is_422_and_never_a_fault_of_ours(tmp_path: Path, depth: int, begins: str) -> None:
    ends = {"": "", "{": "}", "[": "}]"}[begins[:1]]
    body = f"{begins}{'[' * depth}{']' * depth}{ends}".encode()

    async def main() -> None:
        async with staged(tmp_path, snapshot(*parts())) as stage:
            good = depth == 10 and begins.startswith("{")
            assert (await stage.ask("/-/feedback", body)).status == (202 if good else 422)

    play(main())


SHOP = "https://shop.example"


async def from_page(stage: Stage, origin: str, **more: str) -> Got:
    return await stage.ask("/-/feedback", GOOD, headers={"origin": origin, **more})


def test_a_page_of_another_site_sends_no_feedback(tmp_path: Path) -> None:
    """A browser sends it for any page that its user opens, and from networks that only the user is in."""

    async def main() -> None:
        async with staged(tmp_path, snapshot(*parts())) as stage:
            for origin in (SHOP, "null", "https://models.example.evil", "http://models.example:81"):
                got = await from_page(stage, origin)
                assert (got.status, [name for name in got.headers if name.startswith("access-")]) == (403, [])
            preflight = await stage.ask("/-/feedback", method="OPTIONS", headers={"origin": SHOP})
            assert preflight.status == 403
            assert (await from_page(stage, "https://models.example")).status == 202  # its own host
            assert (await send(stage, GOOD))[0] == 202  # no browser
        assert len(stage.feedback()) == 2
        assert stage.counters[("feedback_rejected", "origin")] == 5
        # A flood of refused requests cannot fill the journal.
        assert not [line for line in stage.lines() if line["line"] == "rejected"]

    play(main())


def test_a_page_that_is_named_sends_feedback_as_text_and_reads_every_answer(tmp_path: Path) -> None:
    """navigator.sendBeacon sends text/plain, with credentials, and without a preflight request."""

    async def main() -> None:
        gateway = Gateway(feedback_origins=(SHOP,))
        async with staged(tmp_path, snapshot(gateway, *parts())) as stage:
            asked = {"origin": SHOP, "access-control-request-method": "POST"}
            preflight = await stage.ask("/-/feedback", method="OPTIONS", headers=asked)
            assert (preflight.status, preflight.headers["access-control-allow-methods"]) == (204, "POST")
            assert preflight.headers["access-control-allow-headers"] == "content-type, authorization"
            beacon = await from_page(stage, SHOP, **{"content-type": "text/plain;charset=UTF-8"})
            bad = await stage.ask("/-/feedback", b"no", headers={"origin": SHOP})
            big = await stage.ask("/-/feedback", b"x" * 2_000_000, headers={"origin": SHOP})
            assert [got.status for got in (beacon, bad, big)] == [202, 422, 413]
            for got in (preflight, beacon, bad, big):
                assert got.headers["access-control-allow-origin"] == SHOP
                assert got.headers["access-control-allow-credentials"] == "true"
                assert got.headers["vary"] == "origin"
            assert (await from_page(stage, "https://other.example")).status == 403
        assert len(stage.feedback()) == 1

    play(main())
