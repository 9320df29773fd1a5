"""The assignment key: it is made once, never lost silently, never shown, and decides every random choice."""

from __future__ import annotations

import ast
import asyncio
import os
import re
import stat
from collections.abc import Iterable
from pathlib import Path

import orjson
import pytest

import gateway as gateway_package
import policies
import router as router_package
from gateway.cli import run
from gateway.cli.exits import PROBLEM
from gateway.control import agreement
from gateway.files import assignment_key
from gateway.files.assignment_key import FILE, KeyUnusable, begin, find, is_older, keep
from gateway.files.published import SNAPSHOT, publish
from gateway.process import environment, first_snapshot
from gateway.process.first_snapshot import ensure_snapshot, initial_key
from gateway.process.supervisor import EXIT_CONFIG, EXIT_UNAVAILABLE, serve
from gateway.proxy.exchange.capture import capturing
from gateway.proxy.log.counters import Counts
from gateway.store import Store, StoreError
from gateway.store.counts import plans
from policies import Occasion
from policies.types import Evidence
from router.assignment import AssignmentKey
from router.compile import compile_snapshot
from router.config.config import parse
from router.router import Router
from router.snapshot import Gateway, Route, Snapshot, decode, encode
from tests.gateway.control.test_control import House, kinds, recording, until
from tests.router.builders import ROUTE, SMALL, config_of, request, snapshot_of, with_policy

SECRET = "0123456789abcdef" * 4
OTHER = "fedcba9876543210" * 4
UNITS = [f"user-{number}" for number in range(2_000)]

#: Which of user-0 … user-299 got v2 at commit 30d391e, on the route of ``builders.SMALL``.
BEFORE_KEYS = [6, 10, 29, 35, 59, 61, 75, 123, 148, 169, 221]


def keyed(
    text: str = SMALL, secret: str | None = SECRET, previous: Snapshot | None = None, now_ms: int = 1
) -> Snapshot:
    key = None if secret is None else AssignmentKey(secret)
    return compile_snapshot(
        config_of(text), previous=previous, evidence=lambda *_: Evidence(), now_ms=now_ms, revision=7, key=key
    )


def met(route: Route, units: Iterable[str] = UNITS) -> list[str]:
    """Return the variant that answers each unit."""
    return [route.plan.decide(Occasion(route.salt, unit, "request")).answering[0] for unit in units]


def as_of_30d391e(snapshot: Snapshot) -> bytes:
    """Write a snapshot as releases without keys did."""
    value = orjson.loads(encode(snapshot))
    del value["assignment"], value["gateway"]["assignment_key_file"]
    return orjson.dumps(value)


AB = with_policy('{ kind = "ab", shares = { v1 = 0.5, v2 = 0.5 } }', f'{ROUTE}baseline = "v1"\n')


@pytest.mark.parametrize("number", range(5))
def test_who_knows_the_salt_and_not_the_key_cannot_tell_who_meets_what(number: int) -> None:
    """A client can compute the unkeyed hash: it predicts half of the units, as a coin does (σ is 22 of 2,000)."""
    actual = met(keyed(AB, f"{number}" * 32).routes["digits"])
    guessed = met(keyed(AB, None).routes["digits"])
    right = sum(a == b for a, b in zip(actual, guessed, strict=True))
    assert abs(right - 1_000) < 90
    assert abs(actual.count("v1") - 1_000) < 90


def test_two_keys_assign_independently_and_one_key_assigns_alike_everywhere() -> None:
    one, other = (met(keyed(AB, secret).routes["digits"]) for secret in (SECRET, OTHER))
    assert abs(sum(a == b for a, b in zip(one, other, strict=True)) - 1_000) < 90
    assert met(keyed(AB, SECRET).routes["digits"]) == one


def test_routes_of_one_salt_still_assign_alike() -> None:
    salted = AB.replace('kind = "ab"', 'kind = "ab", salt = "both"')
    second = salted[salted.index("[routes.digits]") :].replace("digits", "other")
    routes = keyed(salted + second).routes
    assert met(routes["digits"]) == met(routes["other"])


@pytest.mark.parametrize(
    "policy",
    [
        '{ kind = "canary", stable = "v1", candidate = "v2", share = 0.5 }',
        '{ kind = "thompson", variants = ["v1", "v2"], reward = "click" }',
        '{ kind = "interleave", rankers = ["v1", "v2"], items = "/items", length = 5 }',
    ],
)
def test_a_request_draws_with_what_the_key_makes_of_the_salt(policy: str) -> None:
    router = Router(keyed(with_policy(policy)))
    facts = request(x_user_id="user-1")
    route = router.match(facts)
    assert route is not None
    assert router.route(route, facts, "id-1").occasion.salt == AssignmentKey(SECRET).salt("digits")
    assert b'"salt": "digits"' not in encode(router.snapshot)


def test_whatever_draws_draws_with_the_salt_of_a_route() -> None:
    """Copies, fresh draws, the draws of a merge, captured bodies: any client could compute the hash of a constant."""
    drawn = []
    for package in (policies, router_package, gateway_package):
        for path in sorted(Path(str(package.__file__)).parent.rglob("*.py")):
            text = path.read_text()
            for call in ast.walk(ast.parse(text)) if re.search(r"\b(chance|pick)\(", text) else ():
                if isinstance(call, ast.Call) and ast.unparse(call.func) in {"chance", "pick"}:
                    drawn.append((path.name, ast.unparse(call.args[0])))
    assert len(drawn) >= 4
    assert [one for one in drawn if one[1] not in {"occasion.salt", "route.salt", "route.holdout_salt"}] == []


def test_what_is_captured_cannot_be_told_beforehand() -> None:
    text = SMALL.replace(
        "[routes.digits.policy]", '[routes.digits.capture]\nshare = 0.5\nrequest = ["/x"]\n[routes.digits.policy]'
    )
    ids = [f"0198b2c4-7a10-7cc3-98c4-{number:012x}" for number in range(1_000)]
    routes = [keyed(text, secret).routes["digits"] for secret in (None, SECRET)]
    drawn = [[capturing(route, one, Counts()) is not None for one in ids] for route in routes]
    assert abs(sum(a == b for a, b in zip(*drawn, strict=True)) - 500) < 70


def test_a_key_changes_no_epoch_and_another_key_begins_a_period() -> None:
    plain, first = keyed(secret=None), keyed(secret=SECRET, now_ms=5)
    assert first.routes["digits"].epoch == plain.routes["digits"].epoch
    again = keyed(secret=SECRET, previous=first, now_ms=9)
    assert again.routes["digits"].period == 5
    moved = keyed(secret=OTHER, previous=again, now_ms=9)
    assert (moved.routes["digits"].period, moved.routes["digits"].epoch) == (9, first.routes["digits"].epoch)
    assert moved.routes["digits"].revision == 7
    assert moved.source != again.source


def test_the_snapshot_names_the_key_and_does_not_hold_it() -> None:
    content = encode(keyed())
    assert SECRET.encode() not in content
    assert AssignmentKey(SECRET)._key.hex().encode() not in content
    assert decode(content).assignment == AssignmentKey(SECRET).name
    assert SECRET not in repr(AssignmentKey(SECRET))


# ── How an installation gets its key ─────────────────────────────────────────────────────────────────────────────


def test_a_new_installation_makes_its_key_once_for_its_owner_alone(tmp_path: Path) -> None:
    key = begin(Gateway(), tmp_path, None)
    assert key is not None
    path = tmp_path / FILE
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(path.read_text().strip()) == 64
    again = begin(Gateway(), tmp_path, None)
    assert again is not None
    assert again.name == key.name


def test_an_older_installation_does_not_move_a_unit_when_it_is_upgraded(tmp_path: Path) -> None:
    path = tmp_path / SNAPSHOT
    path.write_bytes(as_of_30d391e(snapshot_of()))
    before = decode(path.read_bytes())
    assert begin(Gateway(), tmp_path, before) is None
    for text in (SMALL, SMALL.replace("share = 0.05", "share = 0.06")):
        found = ensure_snapshot(path, config_of(text), 2_000, begin(Gateway(), tmp_path, before))
        met_v2 = [n for n, variant in enumerate(met(found.routes["digits"], UNITS[:300])) if variant == "v2"]
        assert set(BEFORE_KEYS) <= set(met_v2)
    assert ensure_snapshot(path, config_of(), 3_000, None).assignment == ""
    assert met_v2_of(ensure_snapshot(path, config_of(), 3_000, None)) == BEFORE_KEYS
    assert not (tmp_path / FILE).exists()


def met_v2_of(snapshot: Snapshot) -> list[int]:
    return [n for n, variant in enumerate(met(snapshot.routes["digits"], UNITS[:300])) if variant == "v2"]


def test_a_store_that_knows_plans_is_an_older_installation_and_empty_tables_are_none(tmp_path: Path) -> None:
    """Its snapshot may be lost; and `turnout db migrate` may have run before the first start."""

    async def tables() -> None:
        await (await Store.open("sqlite", tmp_path)).close()

    asyncio.run(tables())
    assert not is_older(tmp_path)

    async def used() -> None:
        store = await Store.open("sqlite", tmp_path)
        async with store.begin() as connection:
            await plans.write_plans(connection, snapshot_of().routes.values(), 1)
        await store.close()

    asyncio.run(used())
    assert is_older(tmp_path)
    assert begin(Gateway(), tmp_path, None) is None


def test_a_key_that_was_in_use_and_is_gone_is_never_replaced(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    publish(tmp_path / SNAPSHOT, keyed())
    with pytest.raises(KeyUnusable, match="is gone"):
        begin(Gateway(), tmp_path, keyed())
    config = tmp_path / "turnout.toml"
    config.write_text(f'[gateway]\nlisten = "127.0.0.1:0"\nadmin = "127.0.0.1:0"\ndata_dir = "{tmp_path}"\n{SMALL}')
    assert serve(config) == EXIT_UNAVAILABLE
    assert "turnout assignment rotate" in capsys.readouterr().err
    assert not (tmp_path / FILE).exists()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot be read"),
        ("", "is empty"),
        ("short", "fewer than 32 characters"),
        (b"\xff" * 40, "is not UTF-8 text"),
    ],
)
def test_a_named_key_that_cannot_be_used_refuses_to_start(
    content: str | bytes | None, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    named = tmp_path / "named"
    if content is not None:
        named.write_bytes(content.encode() if isinstance(content, str) else content)
    config = tmp_path / "turnout.toml"
    config.write_text(f'[gateway]\ndata_dir = "{tmp_path}/data"\nassignment_key_file = "{named}"\n{SMALL}')
    assert run(["check", "-c", str(config)]) == PROBLEM
    told = capsys.readouterr().out
    assert said in told
    assert "gateway.assignment_key_file" in told
    assert serve(config) == EXIT_CONFIG
    assert not (tmp_path / "data").exists()


def test_a_reload_refuses_a_key_that_cannot_be_used_and_takes_over_another(tmp_path: Path) -> None:
    async def story() -> None:
        house = House(tmp_path)
        control = house.control()
        secret = (house.data / FILE).read_text().strip()
        first = control.in_force.snapshot
        named = tmp_path / "named"
        house.edit("schema_version = 1", f'schema_version = 1\n[gateway]\nassignment_key_file = "{named}"')
        refused = await control.in_force.reload()
        assert not refused.ok
        assert control.in_force.snapshot is first
        assert "named" in str(refused.problems[0])
        named.write_text(OTHER)
        assert (await control.in_force.reload()).ok
        assert control.in_force.snapshot.assignment == AssignmentKey(OTHER).name
        assert control.in_force.snapshot.routes["r"].period > first.routes["r"].period
        assert "assignment_changed" in kinds(control)
        said = " ".join(f"{event}" for event in control.event_log.newest)
        assert secret not in said
        assert OTHER not in said
        # No longer named in the file: the former key is used again.
        house.edit(f'assignment_key_file = "{named}"', "")
        assert (await control.in_force.reload()).ok
        assert control.in_force.snapshot.assignment == first.assignment
        (house.data / FILE).unlink()
        refused = await control.in_force.reload()
        assert (refused.ok, "is gone" in str(refused.problems[0])) == (False, True)

    asyncio.run(story())


def test_what_is_no_file_where_the_key_is_kept_keeps_nobody_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / FILE)
    with pytest.raises(KeyUnusable, match="no regular file"):
        begin(Gateway(), tmp_path, None)
    assert environment.assigned(Gateway(data_dir=str(tmp_path))).status == "problem"


def test_the_doctor_says_when_anybody_can_tell_who_meets_what(tmp_path: Path) -> None:
    gateway = Gateway(data_dir=str(tmp_path))
    assert environment.assigned(gateway).status == "ok"
    publish(tmp_path / SNAPSHOT, snapshot_of())
    assert environment.assigned(gateway).status == "note"
    keep(tmp_path, SECRET)
    assert environment.assigned(gateway).said == f"by the key {AssignmentKey(SECRET).name}"


# ── The fleet ────────────────────────────────────────────────────────────────────────────────────────────────────────


def fleet_config(path: Path, url: str) -> Path:
    path.mkdir(exist_ok=True)
    (path / "data").mkdir(exist_ok=True)
    file = path / "turnout.toml"
    file.write_text(f'[gateway]\nstore = "{url}"\ndata_dir = "{path}/data"\n{SMALL}')
    return file


def fetched(path: Path, url: str) -> str | None:
    asyncio.run(agreement.fetch(fleet_config(path, url), path / "data", 0))
    return assignment_key.kept_in(path / "data")


def test_the_first_node_of_a_fleet_makes_the_key_and_the_others_take_it(tmp_path: Path, postgresql_url: str) -> None:
    first = fetched(tmp_path / "a", postgresql_url)
    assert first is not None
    assert [fetched(tmp_path / name, postgresql_url) for name in "bc"] == [first, first]


def test_a_fleet_that_is_older_than_keys_goes_on_without_until_one_is_asked_for(
    tmp_path: Path, postgresql_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    async def used() -> None:
        store = await Store.open(postgresql_url, tmp_path)
        async with store.begin() as connection:
            await plans.write_plans(connection, snapshot_of().routes.values(), 1)
        await store.close()

    asyncio.run(used())
    assert fetched(tmp_path / "a", postgresql_url) is None
    assert run(["assignment", "rotate", "-c", str(fleet_config(tmp_path / "a", postgresql_url))]) == 0
    secret = fetched(tmp_path / "b", postgresql_url)
    assert secret is not None
    told = capsys.readouterr()
    assert secret not in told.out + told.err


def test_a_new_node_that_cannot_ask_its_fleet_for_the_key_does_not_serve(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With a key of its own it would assign units differently from the other nodes, and no number would show it."""
    url = "postgresql://turnout@127.0.0.1:9/turnout"
    file = fleet_config(tmp_path, url)
    with pytest.raises(StoreError):
        asyncio.run(agreement.fetch(file, tmp_path / "data", 0))
    monkeypatch.setattr(agreement, "WAIT_SECONDS", 0.0)
    monkeypatch.setattr(first_snapshot, "_fetch_key", lambda *arguments: agreement.main([*arguments]))
    assert serve(file) == EXIT_UNAVAILABLE
    assert "a new node needs the store once" in capsys.readouterr().err
    assert not (tmp_path / "data" / FILE).exists()
    assert not (tmp_path / "data" / SNAPSHOT).exists()
    # A node that has the key, or assigned without one before, starts without the store.
    keep(tmp_path / "data", SECRET)
    config = parse(file.read_text(), str(file))
    key = initial_key(file, config, tmp_path / "data")
    assert key is not None
    assert key.name == AssignmentKey(SECRET).name
    (tmp_path / "data" / FILE).unlink()
    publish(tmp_path / "data" / SNAPSHOT, snapshot_of())
    assert initial_key(file, config, tmp_path / "data") is None


def test_a_rotated_key_is_in_force_at_every_node_with_one_period(tmp_path: Path, postgresql_url: str) -> None:
    async def story() -> None:
        houses = []
        for name in "ab":
            fetched_key = await asyncio.to_thread(fetched, tmp_path / name, postgresql_url)
            assert fetched_key
            house = House(tmp_path / name)
            house.edit("schema_version = 1", f'schema_version = 1\n[gateway]\nstore = "{postgresql_url}"')
            houses.append(house)
        controls = [house.control() for house in houses]
        first = controls[0].in_force.snapshot.assignment
        assert {control.in_force.snapshot.assignment for control in controls} == {first}
        async with recording(controls[0]), recording(controls[1]):
            steps = [asyncio.create_task(control.in_force.keep_in_step()) for control in controls]
            await until(lambda: all(control.queries.ready for control in controls))
            await until(lambda: len({control.in_force.snapshot.revision for control in controls} - {0}) == 1)
            store = await Store.open(postgresql_url, tmp_path)
            held = await agreement.rotate(store)
            await store.close()
            name = AssignmentKey(held.secret).name

            def agree() -> bool:
                found = {(one.in_force.snapshot.source, one.in_force.snapshot.routes["r"].period) for one in controls}
                return len(found) == 1 and all(one.in_force.snapshot.assignment == name for one in controls)

            await until(agree)
            for step in steps:
                step.cancel()
            await asyncio.wait(steps)
        assert name != first
        assert find(Gateway(), houses[1].data, None) is not None

    asyncio.run(story())


def test_a_node_without_the_key_takes_it_when_the_store_is_back(tmp_path: Path, postgresql_url: str) -> None:
    """It was down while the key was made: it starts from its last snapshot, whose period is one without a key."""
    house = House(tmp_path)
    house.edit("schema_version = 1", f'schema_version = 1\n[gateway]\nstore = "{postgresql_url}"')
    unkeyed = snapshot_of(house.config.read_text())
    publish(house.data / SNAPSHOT, unkeyed)

    async def story() -> None:
        store = await Store.open(postgresql_url, tmp_path)
        held = await agreement.rotate(store)
        await store.close()
        control = house.control()
        assert control.in_force.snapshot.assignment == ""
        async with recording(control):
            step = asyncio.create_task(control.in_force.keep_in_step())
            await until(lambda: control.in_force.snapshot.assignment == AssignmentKey(held.secret).name)
            step.cancel()
            await asyncio.wait([step])
        assert control.in_force.snapshot.routes["r"].period > unkeyed.routes["r"].period

    asyncio.run(story())
