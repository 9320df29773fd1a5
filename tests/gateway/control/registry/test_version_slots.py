"""A version from outside is laid over the file at every node, survives, is shown, and gives way to the file."""

from __future__ import annotations

import asyncio
import base64
import hmac
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from gateway.admin.app import create
from gateway.control.control import Control
from gateway.control.registry import mlflow
from gateway.control.registry.version_slots import Filling, SlotRefused
from gateway.store import audit
from gateway.store.standings import write_standings
from policies.rollouts.standing import encode_standing
from tests.gateway.control.test_control import House, recording, shown, until

SECRET = b"s3cret"
SLOT = (
    '{ registry = "mlflow", model = "credit", alias = "challenger", url = "http://models:8000/{name}/{version}", '
    'hosts = ["models"] }'
)
CONFIG = f"""
schema_version = 1
[gateway]
registry_secret_file = "SECRET"
[backends.a]
url = "http://models:8000/credit/1"
version = "1"
[backends.b]
url = "http://models:8000/credit/2"
version = "2"
slot = {SLOT}
[routes.r]
path = "/r"
unit = "header:u"
[routes.r.policy]
kind = "rollout"
stable = "a"
candidate = "b"
steps = [{{ shadow = 1.0, hold = "1h" }}, {{ share = 0.1, hold = "1h" }}, {{ share = 1.0, hold = "24h" }}]
"""


def house(path: Path, config: str = CONFIG, **more: str) -> House:
    path.mkdir(exist_ok=True)
    (path / "secret").write_bytes(b"old\n" + SECRET + b"\n")
    text = config.replace("SECRET", str(path / "secret"))
    for name, value in more.items():
        text = text.replace("[gateway]", f'[gateway]\n{name} = "{value}"')
    return House(path, text)


@asynccontextmanager
async def running(control: Control) -> AsyncIterator[Control]:
    async with recording(control), AsyncExitStack() as held:
        for loop in (control.slots.keep(), control.in_force.keep_in_step()):
            held.callback(asyncio.create_task(loop).cancel)
        await until(lambda: control.queries.ready)
        yield control


def of(control: Control) -> tuple[str, tuple[str, ...]]:
    backend = control.in_force.snapshot.backends["b"]
    return backend.version, backend.urls


def message(version: str = "7", *, at: float | None = None, **data: Any) -> bytes:
    moment = datetime.fromtimestamp(time.time() if at is None else at, UTC).isoformat()
    said = {"name": "credit", "alias": "challenger", "version": version, **data}
    return orjson.dumps({"entity": "model_version_alias", "action": "created", "timestamp": moment, "data": said})


def signature(body: bytes, secret: bytes = SECRET, sent: str = "", delivery: str = "d1") -> dict[str, str]:
    sent = sent or str(int(time.time()))
    digest = hmac.new(secret, b".".join((delivery.encode(), sent.encode(), body)), sha256).digest()
    return {
        "X-MLflow-Signature": "v1," + base64.b64encode(digest).decode(),
        "X-MLflow-Delivery-Id": delivery,
        "X-MLflow-Timestamp": sent,
    }


async def post(control: Control, path: str, body: bytes, headers: dict[str, str] | None = None) -> httpx.Response:
    transport = httpx.ASGITransport(create(shown(control)))
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:9090") as client:
        return await client.post(path, content=body, headers=headers)


async def tell(control: Control, body: bytes, **more: Any) -> httpx.Response:
    return await post(control, "/api/v1/registry/mlflow", body, signature(body, **more))


def test_a_version_that_gets_the_alias_enters_where_the_file_says(tmp_path: Path) -> None:
    async def story() -> None:
        here = house(tmp_path)
        async with recording(here.control()) as control:
            await until(lambda: control.queries.ready)
            before = control.in_force.identity
            answer = await tell(control, message("7"))
            assert answer.json()["results"][0] | {"why": ""} == {
                "backend": "b",
                "version": "7",
                "applied": True,
                "why": "",
                "routes": ["r"],
                "refused": False,
            }
            assert of(control) == ("7", ("http://models:8000/credit/7",))
            assert control.in_force.identity != before, "nodes that serve other versions are no fleet"
            assert control.in_force.current
            again = (await tell(control, message("7"))).json()["results"][0]
            assert (again["applied"], again["why"]) == (False, "b has version 7 already")
            async with control.queries.store.read() as connection:
                entries = {one.act: one.shown for one in await audit.listed(connection)}
            assert entries["slot_filled"]["changed"] == "b: version 2 -> 7, at http://models:8000/credit/7"
            assert (entries["slot_filled"]["who"], entries["slot_filled"]["via"]) == ("mlflow", "registry")
            assert "slot_filled" in [one["kind"] for one in control.event_log.newest]
        alone = here.control()  # its store is never opened
        assert of(alone) == ("7", ("http://models:8000/credit/7",))
        assert alone.in_force.current
        async with recording(here.control()) as control:
            await until(lambda: control.queries.ready)
            await control.slots.take()
            assert of(control)[0] == "7"

    asyncio.run(story())


def test_the_file_wins_once_it_says_something_else_of_the_backend(tmp_path: Path) -> None:
    async def story() -> None:
        here = house(tmp_path)
        async with recording(here.control()) as control:
            await until(lambda: control.queries.ready)
            await control.slots.fill(Filling("b", "7", "ana", "api"))
            here.edit('path = "/r"', 'path = "/q"')
            assert (await control.in_force.reload()).ok
            assert of(control)[0] == "7", "an edit of something else"
            here.edit('version = "2"', 'version = "3"')
            assert (await control.in_force.reload()).ok
            await control.slots.take()
            assert of(control) == ("3", ("http://models:8000/credit/2",))
            await control.slots.fill(Filling("b", "8", "ana", "api"))
            assert of(control)[0] == "8"

    asyncio.run(story())


def test_a_lost_snapshot_gets_the_version_from_the_store(tmp_path: Path) -> None:
    async def story() -> None:
        here = house(tmp_path)
        async with recording(here.control()) as control:
            await until(lambda: control.queries.ready)
            await control.slots.fill(Filling("b", "7", "ana", "api"))
        (here.data / "snapshot.json").unlink()
        async with recording(here.control()) as control:
            await until(lambda: control.queries.ready)
            assert of(control)[0] == "2"
            await control.slots.take()
            assert of(control)[0] == "7"

    asyncio.run(story())


def test_every_node_takes_it_over_and_the_fleet_agrees(tmp_path: Path, postgresql_url: str) -> None:
    async def story() -> None:
        nodes = [house(tmp_path / name, store=postgresql_url) for name in "ab"]
        async with running(nodes[0].control()) as a, running(nodes[1].control()) as b:
            await until(lambda: a.in_force.snapshot.revision == b.in_force.snapshot.revision != 0)
            await b.slots.fill(Filling("b", "7", "ana", "api"))
            await until(lambda: of(a)[0] == of(b)[0] == "7")
            await until(lambda: a.in_force.snapshot.revision == b.in_force.snapshot.revision)
            assert a.in_force.identity == b.in_force.identity

    asyncio.run(story())


def test_of_two_messages_the_later_by_the_registry_s_clock_wins(tmp_path: Path) -> None:
    """MLflow sends again what was not answered, and a message may be overheard."""

    async def story() -> None:
        here, now = house(tmp_path), time.time()
        async with recording(here.control()) as control:
            await until(lambda: control.queries.ready)
            first = message("7", at=now - 20)
            sent = signature(first)
            assert (await post(control, "/api/v1/registry/mlflow", first, sent)).json()["results"][0]["applied"]
            assert (await tell(control, message("8", at=now - 10))).json()["results"][0]["applied"]
            for late in (first, message("6", at=now - 15)):
                found = (await tell(control, late)).json()["results"][0]
                assert (found["applied"], found["why"][:7]) == (False, "a later")
            replayed = await post(control, "/api/v1/registry/mlflow", first, sent)
            assert not replayed.json()["results"][0]["applied"]
            assert of(control)[0] == "8"

    asyncio.run(story())


VERSIONS = ["", "..", "a..b", "1/2", "1%2f2", "/1", ".1", "1?x", "1#x", "1@evil", "x" * 129, "x" * 8_192, "1\0", "é"]


def test_a_version_that_would_lead_elsewhere_is_a_named_problem(tmp_path: Path) -> None:
    async def story() -> None:
        here = house(tmp_path)
        async with recording(here.control()) as control:
            await until(lambda: control.queries.ready)
            for version in VERSIONS:
                answer = await post(control, "/api/v1/backends/b/version", orjson.dumps({"version": version}))
                assert answer.status_code == 422
                assert answer.json()["detail"].startswith("backends.b.slot: a version has letters")
                assert (await tell(control, message(version))).status_code == 422
            assert of(control)[0] == "2"

    asyncio.run(story())


def test_a_new_version_begins_its_rollout_at_the_first_step(tmp_path: Path) -> None:
    async def story() -> None:
        here = house(tmp_path)
        async with recording(here.control()) as control:
            await until(lambda: control.queries.ready)
            await control.in_force.decide()
            before = control.in_force.snapshot.routes["r"]
            stood = before.standing
            far = replace(stood, number=4, step=1, detail={**stood.detail, "stage": ["share", 0.1]})
            async with control.queries.store.change() as connection:
                await write_standings(connection, "route", {"r": encode_standing(far)}, 1)
            assert (await control.in_force.reload()).ok
            assert control.in_force.snapshot.routes["r"].plan.shares == {"a": 0.9, "b": 0.1}
            await control.slots.fill(Filling("b", "7", "ana", "api"))
            after = control.in_force.snapshot.routes["r"]
            assert after.plan.shares == before.plan.shares
            assert after.period > before.period

    asyncio.run(story())


def test_whoever_may_operate_says_a_version_for_any_other_registry(tmp_path: Path) -> None:
    async def story() -> None:
        here = house(tmp_path, CONFIG.replace('registry = "mlflow", model = "credit", alias = "challenger", ', ""))
        async with recording(here.control()) as control:
            await until(lambda: control.queries.ready)
            path = "/api/v1/backends/{}/version"
            done = await post(control, path.format("b"), b'{"version": "7", "why": "retrained"}')
            assert done.json()["results"][0]["applied"]
            assert of(control) == ("7", ("http://models:8000/b/7",))
            for name, body, status, said in (
                ("a", b'{"version": "7"}', 422, "backends.a has no slot"),
                ("c", b'{"version": "7"}', 404, 'no backend is named "c"'),
                ("b", b'{"version": 7}', 422, "the body must be"),
                ("b", b"[]", 422, "the body must be a JSON object"),
                ("b", b'{"version": "7", "url": "http://evil"}', 422, "the body must be"),
            ):
                answer = await post(control, path.format(name), body)
                assert (answer.status_code, answer.json()["detail"][: len(said)]) == (status, said)
            assert (await tell(control, message())).json()["why"] == "no backend's slot is of this model and alias"

    asyncio.run(story())


def test_a_host_that_a_version_chooses_must_be_one_of_the_file(tmp_path: Path) -> None:
    config = CONFIG.replace("http://models:8000/{name}/{version}", "http://{version}.models:8000/{name}")

    async def story() -> None:
        here = house(tmp_path, config.replace('hosts = ["models"]', 'hosts = ["1.models", "v7.models"]'))
        async with recording(here.control()) as control:
            await until(lambda: control.queries.ready)
            with pytest.raises(SlotRefused, match=r'the host "evil\.models" is not one of hosts'):
                await control.slots.fill(Filling("b", "evil", "ana", "api"))
            assert (await control.slots.fill(Filling("b", "v7", "ana", "api"))).applied

    asyncio.run(story())


def headers(given: dict[str, str]) -> dict[str, str]:
    return {name.lower(): value for name, value in given.items()}


def test_a_message_is_believed_by_its_signature_alone() -> None:
    body, now = message(), time.time()
    good = headers(signature(body))
    assert mlflow.signed(good, body, (b"old", SECRET), now) is None
    for name in good:
        assert "it needs" in str(mlflow.signed({**good, name: ""}, body, (SECRET,), now))
    for wrong in (body + b" ", body[:-1], b"", body.replace(b"7", b"8")):
        assert "does not fit" in str(mlflow.signed(good, wrong, (SECRET,), now))
    for other in ({"x-mlflow-delivery-id": "d2"}, {"x-mlflow-timestamp": str(int(now) + 1)}):
        assert "does not fit" in str(mlflow.signed(good | other, body, (SECRET,), now))
    assert "does not fit" in str(mlflow.signed(good, body, (b"old",), now))
    assert "does not fit" in str(mlflow.signed(good, body, (), now))
    unversioned = {"x-mlflow-signature": good["x-mlflow-signature"].removeprefix("v1,")}
    assert "does not fit" in str(mlflow.signed(good | unversioned, body, (SECRET,), now))
    for seconds in (-301, 301):
        stale = headers(signature(body, sent=str(int(now) + seconds)))
        assert "300 s ago" in str(mlflow.signed(stale, body, (SECRET,), now))
    for sent in ("-1", "1e9", "9" * 20, "٣"):
        assert "Unix seconds" in str(mlflow.signed(good | {"x-mlflow-timestamp": sent}, body, (SECRET,), now))


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "no message of MLflow"),
        (b"[]", "no message of MLflow"),
        (b'"x"', "no message of MLflow"),
        (b'{"entity": "registered_model", "action": "created"}', "registered_model.created fills no slot"),
        (b'{"entity": "model_version_alias", "action": "deleted"}', "model_version_alias.deleted fills no slot"),
        (b'{"entity": "model_version_alias", "action": "created"}', "no message of MLflow"),
        (message(name=3), "name and alias must be texts"),
        (message().replace(b"+00:00", b""), "its timestamp has no zone"),
    ],
)
def test_what_fills_no_slot_is_answered_with_why(body: bytes, said: str) -> None:
    assert said in str(mlflow.alias_moved(body))


def test_without_a_secret_and_with_a_false_one_nothing_is_believed(tmp_path: Path) -> None:
    async def story() -> None:
        here = house(tmp_path)
        async with recording(here.control()) as control:
            await until(lambda: control.queries.ready)
            assert (await tell(control, message(), secret=b"other")).status_code == 401
            assert (await post(control, "/api/v1/registry/mlflow", message())).status_code == 401
            assert (await tell(control, b"x" * 70_000)).status_code == 413
            (tmp_path / "secret").unlink()
            assert (await tell(control, message())).status_code == 503
            assert of(control)[0] == "2"
        bare = CONFIG.replace('registry_secret_file = "SECRET"', "").replace(
            SLOT, '{ url = "http://m/{version}", hosts = ["m"] }'
        )
        async with recording(house(tmp_path / "bare", bare).control()) as control:
            await until(lambda: control.queries.ready)
            assert (await tell(control, message())).status_code == 404

    asyncio.run(story())
