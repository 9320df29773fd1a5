"""split: two variants, half of the users each, a 10 % mirror, log and extraction on; all that a peer can carry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from loadtests.bench import Bench, Round, standing
from loadtests.figures import Spread, ratios, spread
from loadtests.origin import origins
from loadtests.peers import Job
from loadtests.peers.turnout import INTERPRETED
from loadtests.scenarios.carrying import COLUMNS, alternate, raw, rows, sampled_parity, warm
from loadtests.scenarios.scenario import Scenario
from loadtests.table import Finding, Target, in_turns, renamed
from loadtests.wrk import Load

#: Length and number of the turns in which the journal must keep up.
_LONG_SECONDS: Final = 60
_LONG_ROUNDS: Final = 2

#: The peers in these turns and in the close comparison (directly after each other, in many short turns). The cost of
#: the interpreted build is reported beside it.
_JUDGED: Final = ("Turnout", "Envoy")
_CLOSELY: Final = (*_JUDGED, INTERPRETED.name)


def _run(bench: Bench) -> Finding:
    directory, load, brief = bench.scratch("split"), Load(bench.seconds), Load(bench.shortest)
    long = Load(min(_LONG_SECONDS, 6 * bench.seconds) if bench.quick else _LONG_SECONDS)
    with origins(3, directory) as (one, two, copy):
        job = Job((one, two), mirror=copy)
        with standing(bench, [p for p in bench.peers if p.splits], job, directory) as gateways:
            warmed = warm(gateways, directory)
            found = alternate(bench, gateways, load, directory, times=bench.few)
            judged = {name: gateway for name, gateway in gateways.items() if name in _JUDGED}
            near = {name: gateway for name, gateway in gateways.items() if name in _CLOSELY}
            closely = alternate(bench, near, brief, directory, times=bench.many)
            held = alternate(bench, judged, long, directory, times=_LONG_ROUNDS)
            own = [warmed["Turnout"], *found["Turnout"], *closely["Turnout"], *held["Turnout"]]
            rows_kept = sampled_parity(gateways["Turnout"], own, load)
    lag = spread([r.lag_seconds for r in held["Turnout"]])
    return Finding(
        scenario="split",
        method=f"wrk, {load.connections} connections, {in_turns(bench.few, load.seconds)}; then those that are judged: "
        f"{in_turns(bench.many, brief.seconds)}, and {in_turns(_LONG_ROUNDS, long.seconds)}.",
        columns=COLUMNS,
        rows=(
            *rows(found),
            *renamed(rows(closely), f"{brief.seconds:g} s"),
            *renamed(rows(held), f"{long.seconds:g} s"),
        ),
        targets=(
            *_targets(closely, held, lag, long),
            Target("answers without their one row, and rows without an answer", spread([rows_kept.broken]), bound=0),
        ),
        notes=(
            f"journal lag when {long.seconds:g} s of load end: {lag} s until all of it is in the store",
            str(rows_kept),
            *_builds(closely),
            *(f"{peer.name}: {peer.note}" for peer in bench.peers if peer.splits),
        ),
        raw={"rounds": raw(found), "closely": raw(closely), "long": raw(held), "parity_holds": rows_kept.holds},
    )


def _targets(
    closely: Mapping[str, Sequence[Round]], held: Mapping[str, Sequence[Round]], lag: Spread, long: Load
) -> tuple[Target, ...]:
    own, seconds = closely["Turnout"], f"{long.seconds:g} s"
    behind = Target(f"journal lag at the end of {seconds}", lag, bound=5.0, unit=" s")
    if "Envoy" not in closely:
        return (behind,)
    envoy = [r.cpu_us for r in closely["Envoy"]]
    per_second = ratios([r.per_second for r in held["Turnout"]], [r.per_second for r in held["Envoy"]])
    return (
        Target("CPU per request of one worker ÷ Envoy's", ratios([r.cpu_us for r in own], envoy), bound=0.9),
        Target(
            "the same with the controller's CPU, counted until the journal's lag is 0",
            ratios([r.all_cpu_us for r in own], envoy),
            bound=1.8,
        ),
        Target(f"requests/s of one worker ÷ Envoy --concurrency 1, {seconds}", per_second, "at least", 1.0),
        behind,
    )


def _builds(closely: Mapping[str, Sequence[Round]]) -> tuple[str, ...]:
    """Report what a request costs a worker of the other build, by the same interpreter in the same turns."""
    if INTERPRETED.name not in closely:
        return ()
    cpu = {name: [r.cpu_us for r in own] for name, own in closely.items()}
    said = f"CPU per request of one worker, compiled ÷ interpreted: {ratios(cpu['Turnout'], cpu[INTERPRETED.name])}"
    beside = f"; interpreted ÷ Envoy's: {ratios(cpu[INTERPRETED.name], cpu['Envoy'])}" if "Envoy" in cpu else ""
    return (said + beside,)


SPLIT: Final = Scenario("split", "two variants by user, 10 % mirror, log and extraction: the cost of a request", _run)
