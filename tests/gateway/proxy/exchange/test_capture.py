"""Nothing of a body is kept unless its route says so, and then only the fields that it names."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson

from gateway.journal.segments import JOURNAL, PREDICTIONS
from policies.plans import TeamDraft
from router.snapshot import Capture
from tests.gateway.journals import texts
from tests.gateway.proxy.builders import backend, only, route, snapshot
from tests.gateway.proxy.stage import Asked, Behaviour, Model, Stage, play, staged

BODY = {"inputs": [1, 2], "user": {"name": "zeus", "age": 7}, "secret": "do not keep"}
ANSWER = {"outputs": [7], "debug": {"user": "zeus"}}


async def answering(asked: Asked) -> None:
    await asked.answer(ANSWER, content_type="application/json")


async def streaming(asked: Asked) -> None:
    await asked.start(content_type="application/json")
    data = orjson.dumps(ANSWER)
    await asked.chunk(data[:5])
    await asyncio.sleep(0.05)
    await asked.chunk(data[5:])
    asked.writer.write(b"0\r\n\r\n")
    await asked.writer.drain()


def kept(directory: Path) -> list[dict[str, Any]]:
    """Return the lines of bodies in the journal, from its files."""
    lines = map(orjson.loads, texts(directory / JOURNAL / PREDICTIONS))
    return [line for line in lines if line["line"] == "body"]


def captured(
    tmp_path: Path,
    capture: Capture | None,
    *,
    behave: Behaviour = answering,
    body: object = BODY,
    headers: dict[str, str] | None = None,
    times: int = 1,
    look: Callable[[Stage], None] = lambda stage: None,
) -> list[dict[str, Any]]:
    async def main() -> None:
        async with Model(behave) as model:
            parts = (backend("a", model.url), route("r", only("a"), capture=capture, prediction="/outputs/0"))
            async with staged(tmp_path, snapshot(*parts)) as stage:
                for _ in range(times):
                    content = body if isinstance(body, bytes) else orjson.dumps(body)
                    got = await stage.ask("/r", content, headers=headers or {})
                    assert got.status == 200
                assert [row["prediction"] for row in stage.rows() if "prediction" in row] == [7] * times
            look(stage)

    play(main())
    return kept(tmp_path)


def test_nothing_is_kept_unless_a_route_asks_for_it(tmp_path: Path) -> None:
    assert captured(tmp_path, None) == []
    journal = b"".join(path.read_bytes() for path in tmp_path.rglob("*.jsonl"))
    assert b"zeus" not in journal


def test_only_the_named_fields_reach_the_disk_and_the_redacted_are_replaced(tmp_path: Path) -> None:
    capture = Capture(request=("/inputs", "/user", "/none"), answer=("/outputs/0",), redact=("/user/name", "/gone"))
    (line,) = captured(tmp_path, capture)
    assert line["request"] == {"/inputs": [1, 2], "/user": {"name": "[redacted]", "age": 7}}
    assert line["answer"] == {"/outputs/0": 7}
    assert line["route"] == "r"
    journal = b"".join(path.read_bytes() for path in tmp_path.rglob("*.jsonl"))
    assert b"zeus" not in journal
    assert b"do not keep" not in journal


def test_a_streamed_answer_is_kept_when_it_is_whole(tmp_path: Path) -> None:
    (line,) = captured(tmp_path, Capture(answer=("",)), behave=streaming)
    assert (line["request"], line["answer"]) == (None, {"": ANSWER})


def test_a_packed_body_is_read_as_what_it_is(tmp_path: Path) -> None:
    packed = gzip.compress(orjson.dumps(BODY))
    (line,) = captured(tmp_path, Capture(request=("/inputs",)), body=packed, headers={"content-encoding": "gzip"})
    assert line["request"] == {"/inputs": [1, 2]}


def test_what_is_too_long_or_no_json_is_counted_and_not_kept(tmp_path: Path) -> None:
    counters: dict[tuple[str, ...], int] = {}

    def look(stage: Stage) -> None:
        counters.update(stage.counters)

    (tmp_path / "long").mkdir()
    (tmp_path / "text").mkdir()
    long = Capture(max_bytes=30, request=("/inputs",), answer=("/outputs",))
    assert captured(tmp_path / "long", long, look=look) == []
    assert counters["capture_drops", "r", "request_too_large"] == 1
    assert counters["capture_drops", "r", "answer_too_large"] == 1
    (line,) = captured(tmp_path / "text", Capture(request=("",), answer=("/outputs",)), body=b"no json", look=look)
    assert line["request"] is None
    assert counters["capture_drops", "r", "request_unreadable"] == 1


def test_a_share_of_the_requests_is_drawn_by_hash(tmp_path: Path) -> None:
    (tmp_path / "some").mkdir()
    (tmp_path / "none").mkdir()
    lines = captured(tmp_path / "some", Capture(share=0.5, answer=("/outputs",)), times=60)
    assert 10 < len(lines) < 50  # ids differ in each run: outside of this less than once in ten million
    assert len({line["id"] for line in lines}) == len(lines)
    assert captured(tmp_path / "none", Capture(share=0.0, answer=("/outputs",)), times=5) == []


def test_of_a_merged_list_what_the_client_saw_is_kept_once(tmp_path: Path) -> None:
    async def ranking(asked: Asked) -> None:
        await asked.answer({"hits": [1, 2, 3]}, content_type="application/json")

    async def main() -> None:
        async with Model(ranking) as one, Model(ranking) as two:
            plan = TeamDraft(("a", "b"), "/hits", "", 2)
            capture = Capture(request=("/q",), answer=("/hits",))
            parts = (
                backend("a", one.url),
                backend("b", two.url),
                route("r", plan, variants=("a", "b"), capture=capture),
            )
            async with staged(tmp_path, snapshot(*parts)) as stage:
                await stage.ask("/r", orjson.dumps({"q": "x"}))

    play(main())
    (line,) = kept(tmp_path)
    assert line["request"] == {"/q": "x"}
    assert len(line["answer"]["/hits"]) == 2
