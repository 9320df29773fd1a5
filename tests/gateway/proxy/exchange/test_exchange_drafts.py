"""Several variants answer: one merged list for the client, one draft row per ranker."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import orjson
import pytest

from policies.plans import TeamDraft
from tests.gateway.proxy.builders import backend, route, snapshot
from tests.gateway.proxy.stage import Asked, Behaviour, Got, Model, play, staged


def listing(*ids: str, status: int = 200, after: float = 0.0, **headers: str) -> Behaviour:
    """Return the behaviour of a ranker that answers with these items."""

    async def behave(asked: Asked) -> None:
        await asyncio.sleep(after)
        await asked.answer({"took": 1, "hits": [{"id": i} for i in ids]}, status=status, **headers)

    return behave


def saying(body: bytes, status: int = 200, **headers: str) -> Behaviour:
    async def behave(asked: Asked) -> None:
        await asked.answer(body, status=status, **headers)

    return behave


async def dead(asked: Asked) -> None:
    asked.writer.transport.abort()


FIRST = listing("a1", "x", "a2", "a3", etag='"1"', x_first="kept", content_type="application/json")
SECOND = listing("b1", "x", "b2", "b3")


def drafted(
    tmp_path: Path, rankers: Sequence[Behaviour], *, fallback: Behaviour | None = None, length: int = 4, **settings: Any
) -> tuple[Got, list[dict[str, Any]], dict[tuple[str, ...], int], list[Asked]]:
    """Send one POST through a route that merges; return the answer, the rows, the counters, the first one's calls."""
    found: list[Any] = []

    async def main() -> None:
        models = [Model(behave) for behave in (*rankers, *([fallback] if fallback else []))]
        names = ["a", "b", "c", "d"][: len(models)]
        async with asyncio.timeout(20):
            for model in models:
                await model.__aenter__()
            try:
                plan = TeamDraft(tuple(names[: len(rankers)]), "/hits", "/id", length)
                given = {"fallback": names[-1] if fallback else None, **settings}
                backends = [backend(n, m.url, timeout_ms=300) for n, m in zip(names, models, strict=True)]
                async with staged(tmp_path, snapshot(*backends, route("r", plan, **given))) as stage:
                    sent = {"accept-encoding": "gzip", "range": "bytes=0-9", "if-none-match": '"1"'}
                    found.append(await stage.ask("/r", {"q": "cats"}, headers=sent))
                found.extend([stage.rows(), stage.counters, models[0].asked])
            finally:
                for model in models:
                    await model.__aexit__(None, None, None)

    play(main())
    return found[0], found[1], found[2], found[3]


def test_two_lists_are_merged_in_the_first_rankers_envelope(tmp_path: Path) -> None:
    got, rows, counters, asked = drafted(tmp_path, [FIRST, SECOND], expose_variant=True)
    assert got.status == 200
    assert got.json["took"] == 1
    ids = [item["id"] for item in got.json["hits"]]
    assert len(ids) == len(set(ids)) == 4
    assert (got.headers["x-first"], got.headers["content-type"]) == ("kept", "application/json")
    assert "etag" not in got.headers  # it belonged to another body
    assert got.headers["turnout-variant"] == "a, b"
    assert counters == {}
    assert [row["role"] for row in rows] == ["draft", "draft"]
    assert {row["id"] for row in rows} == {got.id}
    assert [(row["variant"], row["status"], row["propensity"], row["reason"]) for row in rows] == [
        ("a", 200, 1.0, "draft"),
        ("b", 200, 1.0, "draft"),
    ]
    # Each ranker is credited for the items it drafted, in the order shown, and no item is credited twice.
    credited = [row["items"] for row in rows]
    assert sorted(credited[0] + credited[1]) == sorted(ids)
    assert all(ids.index(one) < ids.index(two) for items in credited for one, two in pairwise(items))
    # What was shown is in one row, which makes the rankers' n-th items one round.
    assert [row.get("shown") for row in rows] == [ids, None]
    (request,) = asked
    assert request.body == b'{"q":"cats"}'
    assert request.headers["accept-encoding"] == "identity"
    assert not {"range", "if-none-match"} & set(request.headers)


def test_rankers_are_asked_at_the_same_time(tmp_path: Path) -> None:
    """Each ranker answers only once the other has been called too."""
    asked = 0

    async def together(one: Asked) -> None:
        nonlocal asked
        asked += 1
        while asked < 2:
            await asyncio.sleep(0.001)
        await FIRST(one)

    _, rows, _, _ = drafted(tmp_path, [together, together])
    assert not any("fault" in row for row in rows)


def test_a_ranker_that_compresses_all_the_same_is_merged(tmp_path: Path) -> None:
    packed = saying(gzip.compress(orjson.dumps({"hits": [{"id": "a1"}]})), content_encoding="gzip")
    got, rows, counters, _ = drafted(tmp_path, [packed, SECOND])
    assert "content-encoding" not in got.headers
    assert {"a1", "b1"} <= {item["id"] for item in got.json["hits"]}
    assert counters == {}
    assert rows[0]["items"] is not None


@pytest.mark.parametrize(
    ("other", "fault", "status"),
    [
        (dead, "reset", 200),
        (saying(b"no", 503), None, 503),
        (saying(b"no", 404), None, 404),
        (listing("late", after=1), "timeout", 200),
    ],
)
@pytest.mark.parametrize("first", [True, False])
def test_with_one_ranker_down_the_other_list_answers_untouched(
    tmp_path: Path, other: Behaviour, fault: str | None, status: int, first: bool
) -> None:
    """No ranker is credited, since there was no choice. The failing ranker's row says how it failed."""
    got, rows, counters, _ = drafted(tmp_path, [other, FIRST] if first else [FIRST, other])
    assert (got.status, got.headers["etag"]) == (200, '"1"')
    assert [item["id"] for item in got.json["hits"]] == ["a1", "x", "a2", "a3"]
    down, up = rows if first else reversed(rows)
    assert (down.get("fault"), down["status"]) == (fault, status)
    assert (up["status"], "fault" in up) == (200, False)
    assert not any("items" in row for row in rows)
    assert counters == {("merge_failures", "r", "one_answer"): 1}


def test_of_three_rankers_the_two_that_answer_are_merged(tmp_path: Path) -> None:
    got, rows, counters, _ = drafted(tmp_path, [dead, FIRST, SECOND], expose_variant=True)
    assert len(got.json["hits"]) == 4
    assert got.headers["turnout-variant"] == "b, c"
    assert [row.get("items") is not None for row in rows] == [False, True, True]
    assert counters == {}


@pytest.mark.parametrize(
    ("body", "reason"), [(b"<html>", "not_json"), (b"{}", "no_list"), (b'{"hits": 3}', "not_a_list")]
)
def test_what_cannot_be_merged_passes_as_the_first_answer(tmp_path: Path, body: bytes, reason: str) -> None:
    got, rows, counters, _ = drafted(tmp_path, [FIRST, saying(body)])
    assert [item["id"] for item in got.json["hits"]] == ["a1", "x", "a2", "a3"]
    assert got.headers["etag"] == '"1"'
    assert counters == {("merge_failures", "r", reason): 1}
    assert not any("items" in row or "fault" in row for row in rows)
    assert [row["wrong"] for row in rows] == [[f"unmerged:{reason}"]] * 2


def test_a_list_too_long_to_hold_is_that_rankers_failure(tmp_path: Path) -> None:
    got, rows, _, _ = drafted(tmp_path, [saying(b" " * (2**20 + 1)), SECOND])
    assert [item["id"] for item in got.json["hits"]] == ["b1", "x", "b2", "b3"]
    assert rows[0]["fault"] == "protocol"


def test_an_error_that_is_the_clients_passes_and_blames_nobody(tmp_path: Path) -> None:
    got, rows, counters, _ = drafted(tmp_path, [saying(b"what?", 400), saying(b"no", 500)], fallback=SECOND)
    assert (got.status, got.body) == (400, b"what?")
    assert [row["status"] for row in rows] == [400, 500]
    assert counters == {}


def test_when_every_ranker_fails_the_first_that_answered_at_all_passes(tmp_path: Path) -> None:
    got, rows, _, _ = drafted(tmp_path, [dead, saying(b"sorry", 500)])
    assert (got.status, got.body) == (500, b"sorry")
    assert [(row["status"], row.get("fault")) for row in rows] == [(500, "reset"), (500, None)]


def test_when_no_ranker_answers_at_all_it_is_a_502(tmp_path: Path) -> None:
    got, rows, _, _ = drafted(tmp_path, [dead, listing("late", after=1)])
    assert (got.status, got.json["fault"]) == (502, "reset")
    assert [(row["status"], row["fault"], row["id"]) for row in rows] == [
        (502, "reset", got.id),
        (502, "timeout", got.id),
    ]


def test_a_fallback_answers_when_every_ranker_fails(tmp_path: Path) -> None:
    got, rows, _, _ = drafted(tmp_path, [dead, saying(b"no", 500)], fallback=SECOND, expose_variant=True)
    assert [item["id"] for item in got.json["hits"]] == ["b1", "x", "b2", "b3"]
    assert got.headers["turnout-variant"] == "c"
    assert [(row["variant"], row["served"], row["status"]) for row in rows] == [("a", "c", 200), ("b", "c", 500)]


def test_a_client_that_leaves_ends_every_call_and_leaves_one_row_per_ranker(tmp_path: Path) -> None:
    gone: list[str] = []

    async def watched(asked: Asked) -> None:
        await asked.gone()
        gone.append("gone")

    async def main() -> None:
        async with Model(watched) as one, Model(watched) as two:
            plan = TeamDraft(("a", "b"), "/hits", "/id", 4)
            parts = (backend("a", one.url), backend("b", two.url), route("r", plan))
            async with staged(tmp_path, snapshot(*parts)) as stage:
                _, writer = await stage.send("/r")
                await stage.eventually(lambda: one.asked and two.asked)
                writer.close()
                await stage.eventually(lambda: len(gone) == 2)
                await stage.eventually(stage.rows)
        assert [(row["role"], row["fault"]) for row in stage.rows()] == [("draft", "client_gone")] * 2

    play(main())
