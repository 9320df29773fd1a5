"""``python -m loadtests.rollouts``: play the rollouts and print the table."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor

from loadtests.honesty.__main__ import RESULTS
from loadtests.honesty.cases import Measured
from loadtests.rollouts.cases import CASES
from loadtests.table import grid


def main(arguments: Sequence[str] | None = None) -> int:
    options = _options(arguments)
    cases = [at for at, case in enumerate(CASES) if not options.only or case.group in options.only]
    began = time.monotonic()
    with ProcessPoolExecutor(options.workers) as pool:
        waiting = [(at, pool.submit(found, at, options.runs)) for at in cases]
        rows = []
        for at, promise in waiting:
            case, (measured, seconds) = CASES[at], promise.result()
            figure = f"{measured.value:.3g} ± {measured.error:.2g}"
            rows.append((case.what, case.setting, case.target, figure, str(measured.runs), case.judged(measured)))
            print(f"{seconds:6.1f} s  {' | '.join(rows[-1])}", file=sys.stderr, flush=True)
    page = grid(("what", "setting", "target", "measured ± SE", "runs", "ok"), rows)
    print(page)
    print(f"{len(cases)} cases in {time.monotonic() - began:.0f} s", file=sys.stderr)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "rollouts.md").write_text(page + "\n")
    return int(any(cells[-1] == "NO" for cells in rows))


def found(number: int, runs: int | None) -> tuple[Measured, float]:
    """Return what a case found, and how many seconds of CPU it took."""
    began = time.process_time()
    return CASES[number].found(runs), time.process_time() - began


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m loadtests.rollouts", description=__doc__)
    groups = list(dict.fromkeys(case.group for case in CASES))
    parser.add_argument("--only", action="append", choices=groups, help="only this group; may be repeated")
    parser.add_argument("--runs", type=int, help="rollouts per line, instead of each line's own number")
    parser.add_argument("--workers", type=int, default=2, help="processes (2)")
    options = parser.parse_args(arguments)
    if any(number is not None and number < 1 for number in (options.runs, options.workers)):
        parser.error("runs and workers must be 1 or more")
    return options


if __name__ == "__main__":
    raise SystemExit(main())
