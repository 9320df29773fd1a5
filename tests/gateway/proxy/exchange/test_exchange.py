"""One variant answers: what the client gets, what the backend sees, and the one row it leaves."""

from __future__ import annotations

import asyncio
import gzip
import re
import zlib
from pathlib import Path
from typing import Any

import orjson
import pytest

from gateway.files.pseudonym import pseudonym
from policies.plans import TeamDraft, Weighted
from router.snapshot import Gateway, RouteMirror
from tests.gateway.proxy.builders import backend, only, route, snapshot
from tests.gateway.proxy.stage import Asked, Behaviour, Got, Model, play, staged
from tests.ports import free_port

ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")


async def seven(asked: Asked) -> None:
    await asked.answer({"outputs": [7], "version": "1"}, content_type="application/json", x_own="kept")


async def broken(asked: Asked) -> None:
    await asked.answer(b"out of memory", status=500)


async def silent(asked: Asked) -> None:
    await asked.gone()


async def reset(asked: Asked) -> None:
    asked.writer.transport.abort()


async def short(asked: Asked) -> None:
    asked.writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nonly this")
    await asked.writer.drain()
    asked.writer.close()


async def nonsense(asked: Asked) -> None:
    asked.writer.write(b"SSH-2.0-OpenSSH_9.2\r\n\r\n")
    asked.writer.close()


def exchanged(
    tmp_path: Path, behave: Behaviour, body: object = b"", *, of: dict[str, Any] | None = None, **settings: Any
) -> tuple[Got, dict[str, Any], dict[tuple[str, ...], int]]:
    """Send one POST through a route with one backend; return the answer, its row, and the counters."""
    found: list[Any] = []

    async def main() -> None:
        async with (
            Model(behave) as model,
            staged(
                tmp_path, snapshot(backend("a", model.url, **(of or {})), route("r", only("a"), **settings))
            ) as stage,
        ):
            found.append(await stage.ask("/r", body))
        (row,) = stage.rows()
        found.extend([row, stage.counters])

    play(main())
    return found[0], found[1], found[2]


def test_an_answer_passes_and_carries_the_id_of_its_row(tmp_path: Path) -> None:
    got, row, _ = exchanged(tmp_path, seven)
    assert (got.status, got.json["outputs"], got.headers["x-own"]) == (200, [7], "kept")
    assert ID.fullmatch(got.id)
    assert row["id"] == got.id
    assert "turnout-variant" not in got.headers


def test_the_row_of_a_unit_that_is_held_out_says_so(tmp_path: Path) -> None:
    kept = {"unit": "query:u", "baseline": "a", "holdout": "q4", "holdout_salt": "holdout/q4", "holdout_share": 1.0}

    async def main() -> None:
        async with (
            Model(seven) as model,
            staged(tmp_path, snapshot(backend("a", model.url), route("r", only("a"), **kept))) as stage,
        ):
            await stage.ask("/r?u=ann", b"")
        (row,) = stage.rows()
        assert (row["role"], row["reason"], row["variant"], row["propensity"]) == ("holdout", "holdout", "a", 1.0)

    play(main())


def test_a_row_tells_the_whole_decision(tmp_path: Path) -> None:
    async def main() -> None:
        settings = {"unit": "header:x-user", "key": "query:case", "features": (("lang", "header:x-lang"),)}
        plan = Weighted((("a", 0.25), ("b", 0.75)))
        async with (
            Model(seven) as model,
            staged(
                tmp_path,
                snapshot(
                    backend("a", model.url, model="digits", version="1.3"),
                    backend("b", model.url, model="digits", version="2.0"),
                    route("r", plan, by_unit=True, prediction="/outputs/0", **settings),
                ),
            ) as stage,
        ):
            headers = {"x-user": "u1", "x-lang": "fr", "x-request-id": "q1", "traceparent": "00-1"}
            got = await stage.ask("/r?case=c7", {}, headers=headers)
        (row,) = stage.rows()
        assert row["variant"] in ("a", "b")
        expected = {
            "line": "call",
            "id": got.id,
            "at_ms": int(got.id.replace("-", "")[:12], 16),
            "route": "r",
            "epoch": "e1",
            "period": 7,
            "revision": 3,
            "variant": row["variant"],
            "model": "digits",
            "version": {"a": "1.3", "b": "2.0"}[row["variant"]],
            "role": "primary",
            "reason": "unit",
            "propensity": {"a": 0.25, "b": 0.75}[row["variant"]],
            "unit": "u1",
            "by_unit": True,
            "key": "c7",
            "features": {"lang": "fr"},
            "status": 200,
            "predicted": True,
            "prediction": 7,
            "request_id": "q1",
            "traceparent": "00-1",
        }
        assert expected.items() <= row.items()
        assert set(row) - set(expected) == {"latency_ms", "overhead_ms"}
        assert row["latency_ms"] > 0
        assert row["overhead_ms"] >= 0

    play(main())


def test_the_request_reaches_the_backend_as_it_was_sent(tmp_path: Path) -> None:
    async def main() -> None:
        async with (
            Model(seven) as model,
            staged(tmp_path, snapshot(backend("a", model.url), route("r", only("a"), path="/r/*"))) as stage,
        ):
            sent = {"x-request-id": "q1", "turnout-force-token": "secret", "accept-encoding": "gzip"}
            await stage.ask("/r/%2F//./x?a=%zz&b", b'{"q": 1}', method="PUT", headers=sent)
        (asked,) = model.asked
        assert (asked.method, asked.target, asked.body) == ("PUT", "/r/%2F//./x?a=%zz&b", b'{"q": 1}')
        assert asked.headers["host"] == "models.example"
        assert asked.headers["x-request-id"] == "q1"
        assert asked.headers["accept-encoding"] == "gzip"
        assert asked.headers["via"] == "1.1 turnout"
        assert not [name for name in asked.headers if name.startswith("turnout-")]

    play(main())


def test_a_backends_own_headers_are_sent_with_its_secrets_filled_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODEL_TOKEN", "s3cret")
    (tmp_path / "tenant").write_text("acme\n")
    own = (("authorization", "Bearer ${MODEL_TOKEN}"), ("x-tenant", f"${{file:{tmp_path}/tenant}}"))

    async def main() -> None:
        async with (
            Model(seven) as model,
            staged(tmp_path, snapshot(backend("a", model.url, request_headers=own), route("r", only("a")))) as stage,
        ):
            await stage.ask("/r", headers={"Authorization": "the client's"})
        assert model.asked[0].headers["authorization"] == "Bearer s3cret"
        assert model.asked[0].headers["x-tenant"] == "acme"

    play(main())


@pytest.mark.parametrize(
    ("behave", "settings", "status", "fault"),
    [
        (silent, {"timeout_ms": 100}, 504, "timeout"),
        (reset, {}, 502, "reset"),
        (short, {}, 502, "incomplete"),
        (nonsense, {}, 502, "protocol"),
        (seven, {"urls": None}, 502, "refused"),
        (seven, {"max_concurrency": 0}, 503, "overloaded"),
    ],
)
def test_a_backend_that_fails_is_told_of_and_logged_as_its_failure(
    tmp_path: Path, behave: Behaviour, settings: dict[str, Any], status: int, fault: str
) -> None:
    async def main() -> None:
        async with Model(behave) as model:
            given = {**settings}
            urls = (model.url,) if "urls" not in given else (f"http://127.0.0.1:{free_port()}",)
            given.pop("urls", None)
            parts = (backend("a", *urls, **given), route("r", only("a"), expose_variant=True))
            async with staged(tmp_path, snapshot(*parts)) as stage:
                got = await stage.ask("/r")
        (row,) = stage.rows()
        assert (got.status, got.json["fault"]) == (status, fault)
        assert got.headers["content-type"] == "application/problem+json"
        assert got.headers["turnout-variant"] == "a"
        assert ("retry-after" in got.headers) == (status == 503)
        assert (row["id"], row["status"], row["fault"], row["variant"]) == (got.id, status, fault, "a")

    play(main())


@pytest.mark.parametrize("kind", ["single", "draft", "fallback", "forced"])
def test_what_a_client_is_told_of_a_failure_names_no_variant_where_answers_do_not(tmp_path: Path, kind: str) -> None:
    """Its address is not shown either: a user who knows which variant failed is no longer blind to it."""

    async def main() -> None:
        dead = free_port()
        names = ("secret_one", "secret_two")
        plan = TeamDraft(names, "/hits", "/id", 3) if kind == "draft" else Weighted(((names[0], 1.0), (names[1], 0.0)))
        fallback = names[1] if kind == "fallback" else None
        there = [backend(name, f"http://127.0.0.1:{dead}") for name in names]
        asked = route("r", plan, fallback=fallback, allow_force=True)
        async with staged(tmp_path, snapshot(*there, asked)) as stage:
            got = await stage.ask("/r", headers={"turnout-force-variant": "none"} if kind == "forced" else {})
        assert got.status == (400 if kind == "forced" else 502)
        told = f"{got.headers} {got.body!r}"
        assert not [word for word in (*names, str(dead)) if word in told], told

    play(main())


@pytest.mark.parametrize(
    ("path", "prefix", "target", "expected"),
    [
        ("/ab/v2/infer", "/ab", "/ab/v2/infer?a=/ab", "/base/v2/infer?a=/ab"),
        ("/ab/*", "/ab", "/ab/%2Fx//y/../z", "/base/%2Fx//y/../z"),
        ("/ab/c/*", "/ab/c", "/ab/c/", "/base/"),
        ("/ab", "/ab", "/ab", "/base/"),
        ("/ab", "/ab", "/ab?q=1", "/base/?q=1"),
        ("/ab/v2/infer", None, "/ab/v2/infer", "/base/ab/v2/infer"),
    ],
)
def test_a_prefix_is_cut_off_before_a_request_and_its_copies_go_on(
    tmp_path: Path, path: str, prefix: str | None, target: str, expected: str
) -> None:
    async def main() -> None:
        async with Model(seven) as model, Model(seven) as copied:
            mirrors = (RouteMirror(variant="b", share=1.0),)
            parts = (
                backend("a", f"{model.url}/base"),
                backend("b", f"{copied.url}/base"),
                route("r", only("a"), path=path, strip_prefix=prefix, mirrors=mirrors),
            )
            async with staged(tmp_path, snapshot(*parts)) as stage:
                assert (await stage.ask(target)).status == 200
                await stage.eventually(lambda: copied.asked)
        assert [asked.target for asked in (*model.asked, *copied.asked)] == [expected, expected]

    play(main())


def test_a_backends_own_error_passes_untouched(tmp_path: Path) -> None:
    got, row, _ = exchanged(tmp_path, broken, prediction="/outputs/0")
    assert (got.status, got.body) == (500, b"out of memory")
    assert row["status"] == 500
    assert not {"fault", "served", "predicted"} & set(row)


def test_an_unknown_path_is_404_and_leaves_no_row(tmp_path: Path) -> None:
    async def main() -> None:
        async with staged(tmp_path, snapshot(backend("a", "http://127.0.0.1:1"), route("r", only("a")))) as stage:
            got = await stage.ask("/elsewhere?x=1", method="GET")
        assert got.status == 404
        assert got.json["detail"] == "no route takes GET /elsewhere"
        assert "turnout-prediction-id" not in got.headers
        assert stage.rows() == []

    play(main())


# The fallback.


@pytest.mark.parametrize(("behave", "fault"), [(broken, None), (short, "incomplete"), (silent, "timeout")])
def test_a_fallback_answers_for_a_failed_variant_and_the_row_says_both(
    tmp_path: Path, behave: Behaviour, fault: str | None
) -> None:
    async def main() -> None:
        async with Model(behave) as first, Model(seven) as second:
            parts = (
                backend("a", first.url, timeout_ms=100),
                backend("b", second.url),
                route("r", only("a"), fallback="b", expose_variant=True, prediction="/outputs/0"),
            )
            async with staged(tmp_path, snapshot(*parts)) as stage:
                got = await stage.ask("/r", {"q": 1})
        assert (got.status, got.json["outputs"], got.headers["turnout-variant"]) == (200, [7], "b")
        assert second.asked[0].body == first.asked[0].body == b'{"q":1}'
        (row,) = stage.rows()
        assert (row["id"], row["variant"], row["served"], row["status"]) == (got.id, "a", "b", 200)
        assert row.get("fault") == fault
        assert "predicted" not in row  # the prediction that was sent is not this variant's

    play(main())


def test_a_fallback_is_not_asked_when_the_variant_answers(tmp_path: Path) -> None:
    async def refusing(asked: Asked) -> None:
        await asked.answer(b"bad input", status=400)

    async def main() -> None:
        async with Model(refusing) as first, Model(seven) as second:
            parts = (backend("a", first.url), backend("b", second.url), route("r", only("a"), fallback="b"))
            async with staged(tmp_path, snapshot(*parts)) as stage:
                assert (await stage.ask("/r")).status == 400
        assert second.asked == []

    play(main())


def test_a_fallback_that_fails_as_well_is_a_502_and_still_the_variants_failure(tmp_path: Path) -> None:
    async def main() -> None:
        async with Model(broken) as first, Model(reset) as second:
            parts = (backend("a", first.url), backend("b", second.url), route("r", only("a"), fallback="b"))
            async with staged(tmp_path, snapshot(*parts)) as stage:
                got = await stage.ask("/r")
        (row,) = stage.rows()
        assert (got.status, row["status"], row["variant"]) == (502, 502, "a")
        assert "served" not in row

    play(main())


# Forced variants.


@pytest.mark.parametrize(
    ("allowed", "headers", "status"),
    [
        (True, {"turnout-force-variant": "b"}, 200),
        (False, {"turnout-force-variant": "b", "turnout-force-token": "t0k3n"}, 200),
        (False, {"turnout-force-variant": "b", "turnout-force-token": "0ld"}, 200),
        (False, {"turnout-force-variant": "b", "turnout-force-token": "wrong"}, 403),
        (False, {"turnout-force-variant": "b"}, 403),
        (True, {"turnout-force-variant": "c"}, 400),
        (False, {"turnout-force-variant": "c", "turnout-force-token": "t0k3n"}, 400),
    ],
)
def test_a_variant_is_forced_by_those_who_may(
    tmp_path: Path, allowed: bool, headers: dict[str, str], status: int
) -> None:
    (tmp_path / "token").write_text("t0k3n\n0ld\n")

    async def main() -> None:
        async with Model(seven) as model:
            parts = (
                Gateway(force_token_file=str(tmp_path / "token")),
                backend("a", model.url),
                backend("b", model.url),
                route("r", Weighted((("a", 1.0), ("b", 0.0))), allow_force=allowed, expose_variant=True),
            )
            async with staged(tmp_path, snapshot(*parts)) as stage:
                got = await stage.ask("/r", headers=headers)
        assert got.status == status
        if status == 200:
            (row,) = stage.rows()
            assert (row["variant"], row["forced"], row["reason"], row["propensity"]) == ("b", True, "forced", None)
            assert not [name for asked in model.asked for name in asked.headers if name.startswith("turnout-")]
        else:
            assert got.headers["content-type"] == "application/problem+json"
            assert "turnout-prediction-id" not in got.headers
            assert (stage.rows(), model.asked) == ([], [])

    play(main())


def test_without_a_token_file_no_token_is_valid(tmp_path: Path) -> None:
    async def main() -> None:
        async with staged(tmp_path, snapshot(backend("a", "http://127.0.0.1:1"), route("r", only("a")))) as stage:
            headers = {"turnout-force-variant": "a", "turnout-force-token": ""}
            assert (await stage.ask("/r", headers=headers)).status == 403

    play(main())


# Units.


def test_a_unit_is_logged_under_its_keyed_name_and_assigned_by_itself(tmp_path: Path) -> None:
    """So with another key, or none, every unit keeps its variant."""
    users = [f"user-{number}" for number in range(20)]
    keys = ["k" * 32, "l" * 32]

    def asked(gateway: Gateway, folder: Path) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        folder.mkdir()

        async def main() -> None:
            async with Model(seven) as model:
                parts = (
                    gateway,
                    backend("a", model.url),
                    backend("b", model.url),
                    route("r", Weighted((("a", 0.5), ("b", 0.5))), unit="header:x-user"),
                )
                async with staged(folder, snapshot(*parts)) as stage:
                    for user in users:
                        await stage.ask("/r", headers={"x-user": user})
                    rows.extend(stage.rows())

        play(main())
        return rows

    plain = asked(Gateway(), tmp_path / "plain")
    assert [row["unit"] for row in plain] == users
    for number, key in enumerate(keys):
        (tmp_path / key).write_text(key)
        rows = asked(Gateway(unit_key_file=str(tmp_path / key)), tmp_path / str(number))
        assert [row["unit"] for row in rows] == [pseudonym(key.encode(), user) for user in users]
        assert [row["variant"] for row in rows] == [row["variant"] for row in plain]
        journal = b"".join(path.read_bytes() for path in (tmp_path / str(number)).rglob("*.jsonl"))
        assert b"user-" not in journal


# Reading bodies and answers.


def test_a_unit_in_the_body_decides(tmp_path: Path) -> None:
    got, row, counters = exchanged(tmp_path, seven, {"user": {"id": 42}}, unit="body:/user/id")
    assert (got.status, row["unit"], counters) == (200, "42", {})


@pytest.mark.parametrize("body", [b"not json", b"", b'{"user": {}}'])
def test_a_body_without_the_unit_lets_the_request_stand_in(tmp_path: Path, body: bytes) -> None:
    got, row, counters = exchanged(tmp_path, seven, body, unit="body:/user/id")
    assert got.status == 200
    assert "unit" not in row
    assert counters == {("unit_fallbacks", "r"): 1}


@pytest.mark.parametrize(
    ("body", "coding", "prediction"),
    [
        (b'{"p": null}', "", None),
        (b'{"p": [1, 2]}', "identity", [1, 2]),
        (gzip.compress(b'{"p": 3}', mtime=0), "gzip", 3),
        (zlib.compress(b'{"p": 3}'), "deflate", 3),
        (zlib.compress(b'{"p": 3}', wbits=-15), "Deflate", 3),
        (b'{"p": {"score": NaN}}', "", {"score": None}),
        (b" \r\n" * 3_000 + b'{"p": 3}', "", 3),
        ('{"p": 3}'.center(6_000).encode("utf-16-le"), "", 3),
    ],
)
def test_a_prediction_is_read_from_the_answer(tmp_path: Path, body: bytes, coding: str, prediction: object) -> None:
    async def behave(asked: Asked) -> None:
        await asked.answer(body, content_encoding=coding)

    got, row, counters = exchanged(tmp_path, behave, prediction="/p")
    assert got.body == body  # unchanged
    assert row["predicted"] is True
    assert row.get("prediction") == prediction
    assert counters == {}


@pytest.mark.parametrize(
    ("body", "coding"),
    [
        (b"<html>", ""),
        (b" <html>" * 1_000, ""),
        (b"x" * 2**20, ""),
        (b"\x89PNG" * 2_000, ""),
        (b"{}", ""),
        (b'{"p": 3}', "br"),
        (b"not gzip", "gzip"),
        (gzip.compress(b'{"p": 3}', mtime=0)[:-4], "gzip"),
        (gzip.compress(b'{"p": "' + b"x" * 2**21 + b'"}', mtime=0), "gzip"),
        (b'{"p": ' + b"[" * 600 + b"]" * 600 + b"}", ""),
        (b"[" * 200_000, ""),
    ],
)
def test_an_answer_that_cannot_be_read_passes_and_is_counted(tmp_path: Path, body: bytes, coding: str) -> None:
    async def behave(asked: Asked) -> None:
        await asked.answer(body, content_encoding=coding)

    got, row, counters = exchanged(tmp_path, behave, prediction="/p")
    assert (got.status, got.body) == (200, body)
    assert "predicted" not in row
    assert counters == {("extraction_failures", "r", "a"): 1}


def test_a_version_that_the_backend_reports_is_logged_and_a_mismatch_counted(tmp_path: Path) -> None:
    _, row, counters = exchanged(tmp_path, seven, of={"reported_version": "/version", "version": "2"})
    assert (row["version"], row["reported_version"]) == ("2", "1")
    assert counters == {("version_mismatches", "r", "a"): 1}


def test_a_row_says_what_did_not_go_as_the_file_says(tmp_path: Path) -> None:
    """A worker's counters say how often it happened; the row says which variant it was, when, and what was found."""
    missing = {"unit": "header:x-user-id", "key": "body:/id", "features": (("country", "header:x-country"),)}
    of = {"reported_version": "/version", "version": "2"}
    _, row, _ = exchanged(tmp_path, seven, {"id": None}, of=of, prediction="/label", **missing)
    assert row["wrong"] == ["no_unit", "no_key", "no_feature:country", "no_prediction", "other_version:1"]
    (tmp_path / "version").mkdir()
    _, row, _ = exchanged(tmp_path / "version", seven, of={"reported_version": "/v"}, prediction="/outputs/0")
    assert row["wrong"] == ["no_version"]


@pytest.mark.parametrize(("client_errors", "fault"), [("pass", None), ("fail", "client_error")])
def test_a_backends_4xx_passes_and_is_its_failure_where_operators_say_so(
    tmp_path: Path, client_errors: str, fault: str | None
) -> None:
    async def unknown(asked: Asked) -> None:
        await asked.answer(b"no such model", status=404)

    got, row, _ = exchanged(tmp_path, unknown, of={"client_errors": client_errors})
    assert (got.status, got.body) == (404, b"no such model")
    assert (row["status"], row.get("fault")) == (404, fault)


@pytest.mark.parametrize(
    ("method", "answer", "length"),
    [
        ("HEAD", b"HTTP/1.1 200 OK\r\ncontent-length: 3000000\r\n\r\n", "3000000"),
        ("GET", b"HTTP/1.1 204 No Content\r\n\r\n", None),
    ],
)
def test_an_answer_that_has_no_body_is_whole_and_not_an_unread_one(
    tmp_path: Path, method: str, answer: bytes, length: str | None
) -> None:
    async def bare(asked: Asked) -> None:
        asked.writer.write(answer)

    async def main() -> None:
        async with Model(bare) as model:
            parts = (backend("a", model.url), route("r", only("a"), prediction="/p"))
            async with staged(tmp_path, snapshot(*parts)) as stage:
                sent = {"content-length": "", "connection": "close"}
                reader, writer = await stage.send("/r", method=method, headers=sent)
                got = (await reader.read()).decode()
                writer.close()
        assert got.endswith("\r\n\r\n")
        assert got.count("content-length") == (length is not None)
        assert length is None or f"content-length: {length}" in got
        (row,) = stage.rows()
        assert (row["line"], row["method"], "fault" in row) == ("call", method, False)
        assert stage.counters == {}

    play(main())


# The law.


def test_each_id_that_a_client_received_has_exactly_one_primary_row(tmp_path: Path) -> None:
    """Under concurrency, with failures of every kind, and with clients that leave."""

    async def moody(asked: Asked) -> None:
        mood = orjson.loads(asked.body)["n"] % 6
        await asyncio.sleep(0.002 * mood)
        await (seven, broken, reset, short, silent, seven)[mood](asked)

    async def main() -> None:
        async with Model(moody) as first, Model(seven) as second:
            parts = (
                backend("a", first.url, timeout_ms=100),
                backend("b", second.url),
                route("r", Weighted((("a", 0.5), ("b", 0.5)), sticky=False)),
                route("f", Weighted((("a", 0.5), ("b", 0.5)), sticky=False), fallback="b"),
            )
            async with staged(tmp_path, snapshot(*parts)) as stage:

                async def user(n: int) -> str | None:
                    path = "/f" if n % 3 == 0 else "/r"
                    if n % 7 == 0:  # leaves
                        _, writer = await stage.send(path, {"n": n})
                        await asyncio.sleep(0.001)
                        writer.close()
                        return None
                    return (await stage.ask(path, {"n": n})).id

                received = [i for i in await asyncio.gather(*map(user, range(300))) if i is not None]
        rows = stage.rows()
        assert all(row["role"] == "primary" for row in rows)
        ids = [row["id"] for row in rows]
        assert len(ids) == len(set(ids))
        assert set(received) <= set(ids)
        further = [row for row in rows if row["id"] not in set(received)]
        assert len(rows) <= 300
        assert {row.get("fault") for row in further} <= {"client_gone", None, "reset", "incomplete", "timeout"}

    play(main())
