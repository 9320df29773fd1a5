"""``python -m loadtests``: run the scenarios against the peers that are installed, and write the table.

Rule: a scenario that fails is reported in its place and the others still run; the exit code says whether one failed. A
missed target is a number in the table and not a failure, because machines are noisy.
"""

from __future__ import annotations

import argparse
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from loadtests import wrk
from loadtests.bench import Bench
from loadtests.machine import describe
from loadtests.peers import PEERS
from loadtests.peers.turnout import peer
from loadtests.scenarios import SCENARIOS, Scenario
from loadtests.table import Finding, as_json, markdown

RESULTS: Final = Path(__file__).parent / "results"


#: The scenarios open more connections at a time than most shells allow by default.
_DESCRIPTORS: Final = 8_192


def main(arguments: Sequence[str] | None = None) -> int:
    options = _options(arguments)
    lacking = wrk.absent()
    if lacking:
        print(f"nothing can be measured: {lacking}", file=sys.stderr)
        return 1
    _prepare()
    bench, machine, findings = _bench(options), describe(), list[Finding]()
    for scenario in SCENARIOS:
        if _wanted(scenario.name, options.only):
            findings.append(_measured(scenario, bench))
            _write(markdown(findings, bench.absent, machine), as_json(findings, bench.absent, machine))
    print(markdown(findings, bench.absent, machine))
    print(f"written to {RESULTS}/latest.md and latest.json", file=sys.stderr)
    return int(any(not finding.rows for finding in findings))


def _prepare() -> None:
    """On SIGTERM, end every child process before exiting; and raise the limit of open files."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(max(soft, _DESCRIPTORS), hard), hard))


def _bench(options: argparse.Namespace) -> Bench:
    absent = {p.name: reason for p in PEERS if (reason := p.absent())}
    peers = tuple(p for p in PEERS if p.name not in absent and _wanted(p.name, options.peers, "Turnout"))
    if options.against:
        peers = (*peers, peer("Turnout against", options.against))
    return Bench(
        directory=Path(),
        peers=peers,
        rounds=options.rounds or (2 if options.quick else 5),
        seconds=options.seconds or (2 if options.quick else 4),
        soak_minutes=options.soak if options.soak is not None else (0 if options.quick else 10),
        quick=options.quick,
        absent=absent,
    )


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m loadtests", description="What the gateway costs.")
    names = ", ".join(s.name for s in SCENARIOS)
    parser.add_argument("--only", action="append", metavar="SCENARIO", help=f"of {names}; may be repeated")
    parser.add_argument("--peers", action="append", metavar="PEER", help="beside Turnout, of those that are there")
    parser.add_argument(
        "--against", type=Path, metavar="PYTHON", help="another Turnout as a peer: the one this interpreter has"
    )
    parser.add_argument("--quick", action="store_true", help="short rounds, for a look; no soak")
    parser.add_argument("--rounds", type=int, help="rounds in which peers alternate (5)")
    parser.add_argument("--seconds", type=int, help="length of one turn (4)")
    parser.add_argument("--soak", type=float, metavar="MINUTES", help="length of the soak (10); 0: none")
    options = parser.parse_args(arguments)
    unknown = set(options.only or ()) - {s.name for s in SCENARIOS}
    if unknown:
        parser.error(f"no scenario is called {', '.join(sorted(unknown))}; there are {names}")
    if any(value is not None and value < 1 for value in (options.rounds, options.seconds)):
        parser.error("rounds and seconds must be 1 or more")
    return options


def _wanted(name: str, chosen: Sequence[str] | None, *always: str) -> bool:
    return not chosen or name in always or name.lower() in {one.lower() for one in chosen}


def _measured(scenario: Scenario, bench: Bench) -> Finding:
    print(f"{scenario.name}: {scenario.shows}", file=sys.stderr, flush=True)
    began = time.monotonic()
    try:
        with tempfile.TemporaryDirectory(prefix="turnout-bench-") as directory:
            finding = scenario.run(replace(bench, directory=Path(directory)))
    except Exception as error:
        finding = Finding(scenario.name, f"failed: {type(error).__name__}: {error}", ("peer",), ())
        print(f"  {finding.method}", file=sys.stderr, flush=True)
    return replace(finding, seconds=time.monotonic() - began)


def _write(page: str, numbers: str) -> None:
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "latest.md").write_text(page)
    (RESULTS / "latest.json").write_text(numbers)


if __name__ == "__main__":
    raise SystemExit(main())
