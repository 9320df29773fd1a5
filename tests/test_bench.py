"""The bench measures what it says: its arithmetic, its table, and a real round against its own backend.

Nothing here is timed, and nothing needs wrk, nginx or Envoy.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from loadtests import awake, machine
from loadtests.__main__ import main
from loadtests.bench import rounds
from loadtests.client import ask
from loadtests.figures import brief, differences, percentile, ratios, spread
from loadtests.holders import holding
from loadtests.machine import GATEWAY_CORE, LOAD_CORE, Machine, children, cpu_seconds, rss_bytes, stolen_seconds
from loadtests.openloop import Latency, Schedule, Tally, open_loop, summary
from loadtests.origin import backends
from loadtests.parity import Parity, compare, parity
from loadtests.peers import PEERS, Job, envoy, haproxy, nginx, turnout
from loadtests.processes import until
from loadtests.request import BODY, REQUESTS
from loadtests.scenarios import SCENARIOS
from loadtests.scenarios.pacing import CALM, Calm, is_calm
from loadtests.streams import stream
from loadtests.table import Finding, Target, as_json, grid, markdown
from router.config.config import parse

MACHINE = Machine(cores=2, model="test", kernel="6.1", load_before=0.0)


def test_what_is_compared_is_compared_within_a_round() -> None:
    """The machine was four times slower in the second round; that must not look like a cost."""
    assert ratios([10.0, 40.0], [5.0, 20.0]) == spread([2.0, 2.0])
    assert differences([1.5, 5.5], [1.0, 5.0]) == spread([0.5, 0.5])


def test_a_ratio_to_nothing_is_infinite_and_no_crash() -> None:
    assert ratios([1.0], [0.0]).median == float("inf")


@pytest.mark.parametrize(("share", "found"), [(0.0, 1.0), (0.5, 50.0), (0.99, 99.0), (1.0, 100.0)])
def test_a_percentile_is_one_of_the_numbers(share: float, found: float) -> None:
    assert percentile([float(n) for n in range(100, 0, -1)], share) == found


def test_a_spread_shows_its_least_and_its_most() -> None:
    assert str(spread([3.0, 1.0, 2.0])) == "2.00 (1.00 to 3.00)"
    assert str(spread([250.0])) == brief(250.0) == "250"


def test_peers_alternate_and_change_who_goes_first() -> None:
    order: list[str] = []

    def turn(name: str) -> int:
        order.append(name)
        return len(order)

    found = rounds(3, {name: partial(turn, name) for name in "ab"})
    assert "".join(order) == "abbaab"
    assert found == {"a": [1, 4, 5], "b": [2, 3, 6]}


@pytest.mark.parametrize(
    ("target", "verdict"),
    [
        (Target("x", spread([0.8, 0.9, 5.0]), bound=0.9), "reached"),
        (Target("x", spread([0.91]), bound=0.9), "NOT REACHED"),
        (Target("x", spread([0.99]), "at least", 1.0), "NOT REACHED"),
        (Target("x", spread([1.0]), "at least", 1.0), "reached"),
        (Target("x", spread([7.0])), "report"),
    ],
)
def test_a_target_is_judged_by_the_median(target: Target, verdict: str) -> None:
    assert target.verdict == verdict


def test_the_table_lines_up_and_names_who_is_absent() -> None:
    assert grid(("peer", "µs"), [("Turnout", "26.4")]).splitlines() == [
        "| peer    | µs   |",
        "| ------- | ---- |",
        "| Turnout | 26.4 |",
    ]
    finding = Finding("split", "how", ("peer",), (("Turnout",),), (Target("cost", spread([0.5]), bound=0.9),), ("so",))
    page = markdown([finding], {"Envoy": "not installed"}, MACHINE)
    assert "| split    | cost | ≤ 0.9  | 0.50  | reached |" in page
    assert "- Envoy: not installed" in page
    assert json.loads(as_json([finding], {}, MACHINE))["targets"][0]["reached"] is True


def test_every_answer_has_its_row_or_parity_is_broken() -> None:
    """At most the requests in flight were answered and not read when a generator stopped."""
    rows = [("primary", None, 103), ("primary", "client_gone", 2), ("shadow", None, 10)]
    found = compare(100, 4, rows, ["a", "b"], Counter(a=1, b=1))
    assert found.holds
    assert (found.unread, found.further) == (3, {"primary (client_gone)": 2, "shadow": 10})
    assert compare(100, 2, rows, [], Counter()).broken == 1, "one more row than can have been in flight"
    assert compare(105, 4, rows, [], Counter()).broken == 2, "two answers without their row"
    assert not compare(100, 4, rows, ["a", "b"], Counter(a=1)).holds, "a sampled id without a row"
    assert not compare(100, 4, rows, ["a", "b"], Counter(a=1, b=2)).holds, "a sampled id with two"
    assert not compare(100, 4, rows, ["a", "a"], Counter(a=1)).holds, "an id given twice"


@pytest.mark.story
def test_what_a_real_gateway_answered_is_in_its_store(tmp_path: Path) -> None:
    """The steps of every scenario: backends, Turnout, answers, and waiting until the journal is drained."""
    with (
        backends([(), (), ()], tmp_path) as (one, two, copy),
        turnout.TURNOUT.serve(Job((one, two), mirror=copy, mirror_share=1.0), tmp_path) as gateway,
    ):
        asked = ask("127.0.0.1", gateway.port, REQUESTS, connections=4, seconds=30, most=200)
        assert gateway.settle() >= 0
        assert 0 < gateway.carrying_seconds() < gateway.all_seconds()
        data_dir = gateway.data_dir
        assert data_dir is not None

        def compared() -> Parity:
            return parity(data_dir, answers=len(asked.seconds), stops=0, ids=asked.ids)

        assert compared().holds, str(compared())
        assert compared().sampled == 200
        # A copy may end after the answer that it is a copy of.
        until(lambda: compared().further == {"shadow": 200}, "every copy has its row")


def test_without_a_generator_nothing_is_measured_and_it_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("loadtests.wrk.shutil.which", lambda _: None)
    assert main([]) == 1
    assert "wrk is not installed" in capsys.readouterr().err


def test_a_scenario_that_nobody_knows_is_refused_with_those_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--only", "spilt"])
    assert "split" in capsys.readouterr().err


def test_peers_and_scenarios_have_names_of_their_own() -> None:
    assert len({peer.name for peer in PEERS}) == len(PEERS)
    assert len({scenario.name for scenario in SCENARIOS}) == len(SCENARIOS)


def test_whoever_is_absent_says_why() -> None:
    assert all(reason is None or len(reason) > 10 for reason in (peer.absent() for peer in PEERS))


@pytest.mark.parametrize("job", [Job((1,)), Job((1, 2)), Job((1, 2), mirror=3)])
def test_every_job_can_be_said_to_every_peer(job: Job, tmp_path: Path) -> None:
    values = {"listen": 8080, "admin": 9090, "data_dir": "data", "workers": 1, "rest": turnout.config(job)}
    assert parse(turnout.CONFIG.format(**values), "turnout.toml").routes["infer"].path
    assert ":8080" in nginx.config(job, 8080, tmp_path)
    assert ":8080" in haproxy.config(job, 8080)
    assert json.dumps(envoy.config(job, 8080, tmp_path / "log")).count('"port_value"') == 1 + len(job.variants) + bool(
        job.mirror
    )


def test_an_open_loop_is_on_schedule_however_late_it_looks() -> None:
    """A generator that sends less when it is slow would hide exactly what it is to show."""
    schedule = Schedule(rate=4, seconds=1)
    assert schedule.count == 4
    assert schedule.due(0.3) == [0.0, 0.25]
    assert schedule.due(0.3) == []
    assert schedule.next_at == 0.5
    assert schedule.due(60.0) == [0.5, 0.75]
    assert schedule.next_at is None


def test_what_was_offered_is_answered_refused_broken_cancelled_or_unanswered() -> None:
    tally = Tally(answered=[0.001, 0.003], refused=[0.002], broken=1, cancelled=1)
    found = summary(10, tally)
    assert (found.answered, found.refused, found.broken, found.cancelled, found.unanswered) == (2, 1, 1, 1, 5)
    assert found.errors == 7
    assert (found.p50_ms, found.p99_ms) == (1.0, 3.0)


def test_an_open_loop_without_an_answer_has_no_latency_and_no_crash() -> None:
    assert summary(3, Tally()).p99_ms == 0.0


def _turns(*stolen: float) -> Iterator[Latency]:
    """Turns in which the host took these shares, identified by their p50: 0, 1, 2 ms."""
    return iter([replace(summary(0, Tally(), stolen=share), p50_ms=float(n)) for n, share in enumerate(stolen)])


def test_a_turn_the_host_disturbed_is_taken_again_until_one_is_calm_and_both_are_told() -> None:
    calm, turns = Calm(1), _turns(0.03, 0.01, CALM, 0.0)
    found = [calm.take("Turnout", partial(next, turns)) for _ in range(2)]
    assert [one.p50_ms for one in found] == [2.0, 3.0]
    assert [one.p50_ms for one in calm.first["Turnout"]] == [0.0, 3.0]
    assert calm.again == 2


def test_a_host_that_never_leaves_the_machine_alone_ends_the_bench_all_the_same() -> None:
    calm, turns = Calm(1), _turns(*[0.5] * 6)
    found = [calm.take("Turnout", partial(next, turns)) for _ in range(2)]
    assert [is_calm(one) for one in found] == [False, False]
    assert (calm.again, next(turns, None)) == (4, None)
    assert "2 of 2 turns were not calm" in calm.notes({"Turnout": found}, lambda _: ())[0]


def test_what_the_host_takes_is_what_the_kernel_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "stat").write_text("cpu  40 0 30 900 7 0 2 250 11 12\ncpu0 40 0 30 900 7 0 2 250 11 12\n")
    monkeypatch.setattr(machine, "_PROC", tmp_path)
    assert stolen_seconds() == 250 / os.sysconf("SC_CLK_TCK")


def _keeping_awake() -> list[int]:
    return [pid for pid, command in children(os.getpid()) if "loadtests.awake" in command]


def test_who_keeps_the_cores_awake_takes_only_what_nobody_wants_and_is_gone_afterwards(tmp_path: Path) -> None:
    with awake.awake(tmp_path):
        there = _keeping_awake()
        until(lambda: all(os.sched_getscheduler(pid) == os.SCHED_IDLE for pid in there), "they are in the idle class")
        assert [os.sched_getaffinity(pid) for pid in there] == [{core} for core in sorted({GATEWAY_CORE, LOAD_CORE})]
    assert _keeping_awake() == []


def test_who_keeps_a_core_awake_ends_with_whoever_asked_for_it() -> None:
    keeping = subprocess.Popen([sys.executable, "-m", "loadtests.awake"], stdin=subprocess.PIPE)
    keeping.communicate(timeout=30)
    assert keeping.returncode == 0


def test_a_stalled_backend_is_charged_for_everyone_who_came_meanwhile(tmp_path: Path) -> None:
    """One connection and 100 ms an answer: the fifth of five requests waits for four, and that counts as latency."""
    with backends([("--wait-ms", "100")], tmp_path) as (port,):
        found = open_loop(port, rate=1_000, seconds=0.005, connections=1)
    assert (found.offered, found.answered, found.errors) == (5, 5, 0)
    assert found.p99_ms > 400


def test_cancelled_requests_are_counted_and_others_go_on(tmp_path: Path) -> None:
    with backends([("--wait-ms", "500")], tmp_path) as (port,):
        found = open_loop(port, rate=100, seconds=0.2, connections=10, cancel_every=5)
    assert (found.answered, found.cancelled, found.errors) == (16, 4, 0)


def test_a_limited_backend_answers_everybody_in_the_end(tmp_path: Path) -> None:
    with backends([("--wait-ms", "20", "--at-a-time", "2")], tmp_path) as (port,):
        found = open_loop(port, rate=200, seconds=0.1, connections=20)
    assert (found.answered, found.errors) == (20, 0)


def test_streams_are_read_to_their_end(tmp_path: Path) -> None:
    with backends([("--wait-ms", "1", "--events", "10")], tmp_path) as (port,):
        found = stream(port, count=5, seconds=30)
    assert (found.whole, found.events) == (5, 50)


@pytest.mark.parametrize("kind", ["idle", "slow-header", "slow-body", "deaf"])
def test_a_connection_can_be_held(kind: str, tmp_path: Path) -> None:
    with backends([()], tmp_path) as (port,), holding(kind, 3, port, tmp_path):
        assert len(ask("127.0.0.1", port, REQUESTS, connections=1, seconds=10, most=10).seconds) == 10


def test_the_request_is_200_bytes_of_json() -> None:
    assert len(BODY) == 200
    assert json.loads(BODY)


def test_a_round_counts_what_was_answered_and_the_kernel_what_it_cost(tmp_path: Path) -> None:
    with backends([()], tmp_path) as (port,):
        found = ask("127.0.0.1", port, REQUESTS, connections=2, seconds=10, most=500)
    assert len(found.seconds) == 500
    assert found.ids == []


def test_the_kernel_says_what_a_process_used() -> None:
    before = cpu_seconds([os.getpid()])
    assert sum(range(1_000_000))
    assert cpu_seconds([os.getpid()]) > before > 0
    assert rss_bytes([os.getpid()]) > 2**20


def test_nobody_to_ask_is_an_error_and_no_number() -> None:
    with pytest.raises(ConnectionError):
        ask("127.0.0.1", 9, [b""], connections=1, seconds=0.1)
