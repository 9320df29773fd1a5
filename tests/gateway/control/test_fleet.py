"""Several nodes on one PostgreSQL: each line counts once, whichever holds the lease; an old holder writes nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import text

from gateway.control import membership
from gateway.control.membership import Member, name_of
from gateway.control.record import drain
from gateway.control.record.recorder import Recorder
from gateway.control.upkeep.erasure import NotDrained, Privacy
from gateway.journal import rolling
from gateway.journal.quarantine import QUARANTINE
from gateway.store import Store
from gateway.store.counts import positions, tallies
from gateway.store.counts.ledger import CALLS, Ledger
from gateway.store.fleet import lease, nodes, shipped
from gateway.store.fleet.lease import LeaseLost
from gateway.store.fleet.nodes import Superseded
from tests.gateway.control.builders import RUN, T0, Journal, call, event, metric, snapshot, statuses, sums

LABEL = metric("event", missing=0.0)


@pytest.fixture(autouse=True)
def _looking_at_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(membership, "LOOK_SECONDS", 0.0)


class Node:
    """A journal, a connection to the store and a recorder, as one controller has them."""

    def __init__(self, path: Path, name: str, store: Store) -> None:
        self.name = name
        self.journal = Journal(path / name / "journal")
        self.store = store
        self.restart()

    def restart(self, *, lines: int = 2_000) -> None:
        self.member = Member(self.store, self.name)
        self.recorder = Recorder(self.store, self.journal.path, run=RUN, lines=lines, member=self.member)
        self.recorder.adopt(snapshot(LABEL), T0)

    async def expire(self, since_ms: int = 1) -> None:
        """Let the lease expire."""
        now = "CAST(extract(epoch FROM clock_timestamp()) * 1000 AS BIGINT)"
        async with self.store.begin() as connection:
            await connection.execute(text(f"UPDATE lease SET expires_ms = {now} - {since_ms}"))

    async def ledger(self) -> Ledger:
        return await self.store.ledger("r", "e")


class Nodes:
    def __init__(self, path: Path, url: str) -> None:
        self.path, self.url = path, url
        self._held = AsyncExitStack()

    async def __aenter__(self) -> Nodes:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._held.aclose()

    async def node(self, name: str) -> Node:
        store = await Store.open(self.url, self.path)
        self._held.push_async_callback(store.close)
        return Node(self.path, name, store)


@pytest.fixture
def at_nodes(tmp_path: Path, postgresql_url: str) -> Callable[[Callable[[Nodes], Awaitable[None]]], None]:
    def run_story(story: Callable[[Nodes], Awaitable[None]]) -> None:
        async def run() -> None:
            async with Nodes(tmp_path, postgresql_url) as those:
                await story(those)

        asyncio.run(run())

    return run_story


AtNodes = Callable[[Callable[[Nodes], Awaitable[None]]], None]


async def rounds(*those: Node, times: int = 4) -> None:
    for _ in range(times):
        for node in those:
            await node.recorder.step()


async def calls(node: Node) -> float:
    return (await node.ledger()).pooled("a", "primary", CALLS, "live").d


def test_what_any_node_journals_is_counted_once(at_nodes: AtNodes) -> None:
    async def story(those: Nodes) -> None:
        a, b, c = [await those.node(name) for name in "abc"]
        for place, node in enumerate((a, b, c)):
            first = place * 10
            node.journal.calls(*(call(n, unit=f"u{n % 4}", by_unit=True) for n in range(first, first + 10)))
        # Feedback comes to whichever node the load balancer chose.
        for number in range(30):
            (a, b, c)[number % 3].journal.events(event(number, 1, at=number + 1))
        for node in (a, b, c):
            node.journal.beat(5_000)
        await rounds(a, b, c)
        assert [node.member.holds for node in (a, b, c)] == [True, False, False]
        ledger = await b.ledger()
        assert await calls(c) == 30
        assert sums(ledger) == {"a": (30.0, 30.0)}
        assert statuses(ledger) == {"joined": 30}
        assert [node.recorder.lag()[1] for node in (a, b, c)] == [0, 0, 0]

    at_nodes(story)


def test_a_node_that_takes_over_counts_on_and_nothing_twice(at_nodes: AtNodes) -> None:
    """The lease passes from node to node while lines are written; every step may be the last before a node restarts."""

    async def story(those: Nodes) -> None:
        both = [await those.node(name) for name in "ab"]
        number = 0
        for turn in range(12):
            for node in both:
                node.journal.calls(*(call(n, unit=f"u{n % 5}", by_unit=True) for n in range(number, number + 7)))
                both[turn % 2].journal.events(*(event(n, 1, at=n + 1) for n in range(number, number + 7)))
                number += 7
            await both[turn % 2].expire()
            for node in both:
                if turn % 3 == 2:
                    node.restart(lines=5)
                await node.recorder.step()
        for node in both:
            node.journal.beat(60_000)
        await rounds(*both, times=60)
        ledger = await both[0].ledger()
        assert await calls(both[0]) == number
        assert sums(ledger) == {"a": (float(number), float(number))}
        assert statuses(ledger) == {"joined": number}
        async with both[0].store.begin() as connection:
            assert await shipped.waiting_bytes(connection) == {}
            assert await tallies.counted(connection) == {}  # no row came twice

    at_nodes(story)


def test_a_holder_that_slept_beyond_its_expiry_writes_nothing(at_nodes: AtNodes) -> None:
    async def story(those: Nodes) -> None:
        old, new = [await those.node(name) for name in ("old", "new")]
        old.journal.calls(*(call(n) for n in range(5)))
        await old.recorder.step()
        # It has read the next lines and begins to write them: then the process is suspended.
        old.journal.calls(*(call(n) for n in range(5, 9)))
        await old.expire()
        assert await new.member.keep_lease()
        with pytest.raises(LeaseLost):
            async with old.store.begin() as connection:
                await old.member.fence(connection)
        attend = old.member.keep_lease
        old.member.keep_lease = _asleep  # type: ignore[method-assign]
        assert await old.recorder.step()
        assert await calls(new) == 5
        assert not old.member.holds
        old.member.keep_lease = attend  # type: ignore[method-assign]
        await rounds(old, new)
        assert await calls(new) == 9

    at_nodes(story)


async def _asleep() -> bool:
    """A holder that has not looked since, and believes that the lease is still its own."""
    return True


def test_the_lease_is_taken_only_when_its_time_is_up(at_nodes: AtNodes) -> None:
    async def story(those: Nodes) -> None:
        a, b = [await those.node(name) for name in "ab"]
        assert await a.member.keep_lease()
        assert not await b.member.keep_lease()
        await a.expire()
        assert await a.member.keep_lease()  # no other node took it: it is renewed
        assert not await b.member.keep_lease()
        await a.expire()
        assert await b.member.keep_lease()
        assert not await a.member.keep_lease()
        await b.member.yield_lease()
        assert await a.member.keep_lease()
        assert not await b.member.keep_lease()
        await b.member.leave()
        await a.member.keep_lease()
        assert a.member.alone

    at_nodes(story)


def test_a_node_with_another_config_than_most_takes_the_lease_last(at_nodes: AtNodes) -> None:
    """The holder plans for its own configuration: if it were the odd one, the others' bandits would stand still."""

    async def story(those: Nodes) -> None:
        a, b, odd = [await those.node(name) for name in ("a", "b", "odd")]
        for node in (a, b, odd):
            await node.member.keep_lease()
            async with node.store.begin() as connection:
                await node.member.report(connection, "two" if node is odd else "one", 1)
        await a.expire(since_ms=1_000)
        assert not await odd.member.keep_lease()
        assert await b.member.keep_lease()
        await b.expire(since_ms=1_000 + 2 * lease.LEASE_MS)
        assert await odd.member.keep_lease()  # no other node did

    at_nodes(story)


def test_a_takers_look_does_not_wait_for_the_holders_transaction(at_nodes: AtNodes) -> None:
    async def story(those: Nodes) -> None:
        a, b = [await those.node(name) for name in "ab"]
        await a.member.keep_lease()
        async with a.store.begin() as connection:
            await a.member.fence(connection)
            async with asyncio.timeout(5):
                assert not await b.member.keep_lease()

    at_nodes(story)


def test_a_holder_that_fell_asleep_in_the_middle_of_a_copy_does_not_keep_its_place(
    at_nodes: AtNodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server waits for the rest of a COPY for ever, and its transaction has locked the lease's row."""
    monkeypatch.setattr(lease, "ASLEEP_SECONDS", 0.0)

    async def story(those: Nodes) -> None:
        a, b = [await those.node(name) for name in "ab"]
        await a.member.keep_lease()
        await b.member.keep_lease()
        await b.expire()
        with pytest.raises(psycopg.OperationalError):
            await sleeping(a, b)

    async def sleeping(a: Node, b: Node) -> None:
        async with a.store.begin() as connection:
            await a.member.fence(connection)
            driver = (await connection.get_raw_connection()).driver_connection
            assert driver is not None
            async with driver.cursor() as cursor, cursor.copy("COPY counts FROM STDIN"), asyncio.timeout(20):
                assert await b.member.keep_lease()

    at_nodes(story)


def test_an_older_life_of_a_node_ships_nothing(at_nodes: AtNodes) -> None:
    """A copied machine, or a process whose end was not noticed: two controllers would ship the same lines."""

    async def story(those: Nodes) -> None:
        holder, node = await those.node("holder"), await those.node("node")
        await holder.recorder.step()
        node.journal.calls(call(1))
        await node.recorder.step()
        other = await Store.open(those.url, those.path)
        try:
            assert not await Member(other, "node").keep_lease()
            node.journal.calls(call(2))
            with pytest.raises(Superseded, match="data_dir of its own"):
                await node.recorder.step()
        finally:
            await other.close()
        await holder.recorder.step()
        assert await calls(holder) == 1

    at_nodes(story)


def test_the_watermark_waits_for_every_node_that_is_there(at_nodes: AtNodes) -> None:
    async def story(those: Nodes) -> None:
        a, b = [await those.node(name) for name in "ab"]
        for node in (a, b):
            node.journal.calls(call(1 if node is a else 2))
        await rounds(a, b)
        a.journal.beat(9_000)
        b.journal.beat(500)
        await rounds(b, a)
        assert (await a.ledger()).watermark_ms == T0 + 500
        async with b.store.begin() as connection:  # its machine is gone
            await connection.execute(
                text(f"UPDATE nodes SET seen_ms = seen_ms - {nodes.ABSENT_MS + 1} WHERE node = 'b'")
            )
        a.journal.beat(9_500)
        await rounds(a)
        ledger = await a.ledger()
        assert ledger.watermark_ms == T0 + 9_500
        assert sums(ledger) == {"a": (0.0, 2.0)}  # both windows are closed, and empty
        # It comes back with the lines that it could not ship: they are late, and counted.
        b.journal.calls(call(3))
        b.journal.events(event(3, 1, at=600))
        await rounds(b, a)
        assert sums(await a.ledger()) == {"a": (1.0, 3.0)}

    at_nodes(story)


def test_a_stream_whose_worker_died_is_counted_though_its_node_does_not_hold_the_lease(at_nodes: AtNodes) -> None:
    async def story(those: Nodes) -> None:
        holder, node = await those.node("holder"), await those.node("node")
        await holder.recorder.step()
        successor = f"{RUN}-00-{T0 + 1_000:012x}"
        node.journal.opens(call(1, fault="incomplete"))
        await rounds(node, holder)
        assert await calls(holder) == 0
        node.journal.write("predictions", [], successor)
        await rounds(node, holder)
        assert (await holder.ledger()).faults == {("a@1", "primary", "incomplete"): 1}
        node.journal.beat(5_000, successor)
        holder.journal.beat(5_000)
        await rounds(node, holder)
        assert (await holder.ledger()).watermark_ms == T0 + 5_000

    at_nodes(story)


def test_a_line_that_cannot_be_recorded_is_left_out_and_those_beside_it_are_not(at_nodes: AtNodes) -> None:
    async def story(those: Nodes) -> None:
        holder, node = await those.node("holder"), await those.node("node")
        await holder.recorder.step()
        async with holder.store.begin() as connection:
            await connection.execute(text("ALTER TABLE calls ADD CHECK (unit <> 'poison')"))
        node.journal.calls(*(call(n, unit="poison" if n == 7 else "u") for n in range(20)))
        holder.journal.calls(*(call(n, unit="u") for n in range(20, 30)))
        await rounds(node, holder, times=30)
        assert await calls(holder) == 29
        async with holder.store.begin() as connection:
            assert await tallies.counted(connection) == {"unrecordable_lines": 1}

    at_nodes(story)


def test_what_is_damaged_at_a_node_is_put_aside_there_and_counted_with_the_rest(at_nodes: AtNodes) -> None:
    async def story(those: Nodes) -> None:
        holder, node = await those.node("holder"), await those.node("node")
        await holder.recorder.step()
        node.journal.calls(call(1))
        node.journal.put("predictions", b"\x1e12 no line\n")
        node.journal.calls(call(2))
        await rounds(node, holder)
        assert await calls(holder) == 2
        async with holder.store.begin() as connection:
            assert await tallies.counted(connection) == {"corrupt_lines": 1}
        assert "no line" in (node.journal.path.parent / QUARANTINE).read_text()
        assert not (holder.journal.path.parent / QUARANTINE).exists()

    at_nodes(story)


def test_a_unit_is_erased_by_the_holder_after_the_others_have_seen_to_their_journals(at_nodes: AtNodes) -> None:
    async def roll(node: Node, asked: rolling.Rolling) -> None:
        while True:
            if asked.wanted():
                node.journal.roll()
            await asyncio.sleep(0.01)

    async def story(those: Nodes) -> None:
        holder, node = await those.node("holder"), await those.node("node")
        await holder.recorder.step()
        rolls = [asyncio.create_task(roll(one, rolling.Rolling(one.journal.path))) for one in (holder, node)]
        for place, one in enumerate((holder, node)):
            one.journal.calls(*(call(10 * place + n, unit="zeus" if n % 2 else "hera", by_unit=True) for n in range(6)))
        with pytest.raises(NotDrained, match=r"holder of the lease \(holder\)"):
            await Privacy(node.store, node.recorder, node.journal.path, node.member).erase(["zeus"])
        assert b"zeus" not in b"".join(path.read_bytes() for path in node.journal.path.rglob("*.jsonl"))
        erased = await Privacy(holder.store, holder.recorder, holder.journal.path, holder.member).erase(["zeus"])
        assert erased["calls"] == 6
        async with holder.store.begin() as connection:
            assert (await connection.execute(text("SELECT count(*) FROM calls"))).scalar() == 6
            assert (await connection.execute(text("SELECT count(*) FROM units WHERE unit = 'zeus'"))).scalar() == 0
        assert await calls(holder) == 12  # no number changes
        for task in rolls:
            task.cancel()

    at_nodes(story)


def test_no_node_takes_anothers_offsets_for_its_own(at_nodes: AtNodes) -> None:
    """Workers of two nodes may have been started in the same millisecond."""

    async def story(those: Nodes) -> None:
        a, b = [await those.node(name) for name in ("node", "node_2")]
        a.journal.calls(*(call(n) for n in range(10)))
        b.journal.calls(*(call(n) for n in range(10, 13)))
        await rounds(a, b)
        async with a.store.begin() as connection:
            own, others = [await positions.read_offsets(connection, f"{node.name}/") for node in (a, b)]
        assert own.keys() == others.keys()
        assert own != others
        assert await calls(a) == 13

    at_nodes(story)


def test_a_nodes_name_is_made_once(tmp_path: Path) -> None:
    name = name_of(tmp_path)
    assert name_of(tmp_path) == name
    (tmp_path / "other").mkdir()
    assert name_of(tmp_path / "other") != name


def test_what_a_node_may_leave_in_the_store_is_bounded(at_nodes: AtNodes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shipped, "MOST_BYTES", 1_000)

    async def story(those: Nodes) -> None:
        holder, node = await those.node("holder"), await those.node("node")
        await holder.recorder.step()
        for n in range(40):
            node.journal.calls(call(n))
            await node.recorder.step()
        async with node.store.begin() as connection:
            waiting = (await shipped.waiting_bytes(connection))["node"]
        assert 1_000 < waiting < 2_000
        assert node.recorder.lag()[1] > 0  # the rest waits in its journal
        await rounds(holder, node, times=3)
        assert await calls(holder) == 40

    at_nodes(story)


def test_a_node_that_has_read_all_it_may_at_once_does_not_think_it_has_shipped_all(
    at_nodes: AtNodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drain, "CHUNK_BYTES", 1_000)

    async def story(those: Nodes) -> None:
        holder, node = await those.node("holder"), await those.node("node")
        await holder.recorder.step()
        node.journal.calls(*(call(n) for n in range(40)))
        steps = 1
        while await node.recorder.step():
            steps += 1
        assert steps > 5
        assert node.recorder.lag() == (0.0, 0)
        await rounds(holder, times=3)
        assert await calls(holder) == 40

    at_nodes(story)


def test_looking_says_who_holds_the_lease(at_nodes: AtNodes) -> None:
    async def story(those: Nodes) -> None:
        a, b = [await those.node(name) for name in "ab"]
        await rounds(a, b)
        async with b.store.begin() as connection:
            found = await lease.read(connection)
        assert (found.holder, found.fencing) == ("a", 1)
        assert 0 < found.left_ms <= lease.LEASE_MS
        assert b.member.view("c").holder == "a"
        assert [node.name for node in b.member.view("c").nodes] == ["a", "b"]

    at_nodes(story)
