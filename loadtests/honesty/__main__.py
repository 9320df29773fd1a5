"""``python -m loadtests.honesty``: make the experiments and print the table."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Final

from loadtests.honesty.before import BEFORE
from loadtests.honesty.cases import Case, Measured
from loadtests.honesty.registry import CASES
from loadtests.table import grid

RESULTS: Final = Path(__file__).parent.parent / "results"


def main(arguments: Sequence[str] | None = None) -> int:
    options = _options(arguments)
    cases = [case for case in CASES if not options.only or case.group in options.only]
    began = time.monotonic()
    with ProcessPoolExecutor(options.workers) as pool:
        # By number: what a case draws from cannot be sent to another process, but is there as well.
        waiting = [(case, pool.submit(timed, CASES.index(case), _runs(case, options))) for case in cases]
        rows = []
        for case, promise in waiting:
            found, seconds = promise.result()
            rows.append(row(case, found))
            print(f"{seconds:6.1f} s  {' | '.join(rows[-1])}", file=sys.stderr, flush=True)
    page = grid(("", "what", "setting", "target", "measured ± SE", "runs", "before", "ok"), rows)
    print(page)
    print(f"{len(cases)} cases in {time.monotonic() - began:.0f} s", file=sys.stderr)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "honesty.md").write_text(page + "\n")
    return int(any(cells[-1] == "NO" for cells in rows))


def timed(number: int, runs: int) -> tuple[Measured, float]:
    """Return what a case found, and how many seconds of CPU it took."""
    began = time.process_time()
    return CASES[number].found(runs), time.process_time() - began


def row(case: Case, found: Measured) -> tuple[str, ...]:
    """Return the line of a case."""
    figure = f"{found.value:.3g} ± {found.error:.2g}"
    return (
        case.group,
        case.what,
        case.setting,
        case.target,
        figure,
        str(found.runs),
        BEFORE.get(case.name, ""),
        case.judged(found),
    )


def _runs(case: Case, options: argparse.Namespace) -> int:
    return options.runs or (max(case.runs // 20, 10) if options.quick else case.runs)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m loadtests.honesty", description=__doc__)
    groups = ", ".join(dict.fromkeys(case.group for case in CASES))
    parser.add_argument("--only", action="append", metavar="GROUP", help=f"of {groups}; may be repeated")
    parser.add_argument("--runs", type=int, help="experiments per line, instead of each line's own number")
    parser.add_argument("--quick", action="store_true", help="a twentieth of the experiments, for a look")
    parser.add_argument("--workers", type=int, default=2, help="processes (2)")
    options = parser.parse_args(arguments)
    unknown = set(options.only or ()) - {case.group for case in CASES}
    if unknown:
        parser.error(f"there is no group {', '.join(sorted(unknown))}; there are {groups}")
    if any(number is not None and number < 1 for number in (options.runs, options.workers)):
        parser.error("runs and workers must be 1 or more")
    return options


if __name__ == "__main__":
    raise SystemExit(main())
