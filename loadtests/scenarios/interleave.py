"""interleave: two rankers asked at once and their lists merged. No peer does this, so none is compared."""

from __future__ import annotations

from typing import Final

from loadtests.bench import Bench
from loadtests.origin import backends
from loadtests.peers import turnout
from loadtests.peers.turnout import reading, serving
from loadtests.scenarios.carrying import COLUMNS, alternate, raw, rows, warm
from loadtests.scenarios.scenario import Scenario
from loadtests.table import Finding
from loadtests.wrk import Load

_POLICY: Final = (
    'policy = { kind = "interleave", rankers = ["one", "two"], items = "/items", item_id = "/id", length = 10 }'
)


def _run(bench: Bench) -> Finding:
    directory, load = bench.scratch("interleave"), Load(bench.short)
    with backends([("--ranking", "0"), ("--ranking", "1")], directory) as (one, two):
        settings = turnout.backends({"one": one, "two": two}) + turnout.route(_POLICY, metrics='"click"')
        with serving(settings, directory) as gateway:
            alone = {"Turnout": gateway}
            warmed = warm(alone, directory)["Turnout"]
            found = alternate(bench, alone, load, directory, times=3)
            assert gateway.data_dir is not None
            with reading(gateway.data_dir) as store:
                drafts, ids = store.execute(
                    "SELECT count(*), count(DISTINCT id) FROM predictions WHERE role = 'draft' AND fault IS NULL"
                ).fetchone()
    answers = sum(r.answers for r in (warmed, *found["Turnout"]))
    return Finding(
        scenario="interleave",
        method=f"wrk, {load.connections} connections, 3 rounds of {load.seconds:g} s; two lists of 20, merged to 10.",
        columns=COLUMNS,
        rows=rows(found),
        notes=(f"{answers:,} answers read, {drafts:,} draft rows of {ids:,} requests (two each)",),
        raw={"rounds": raw(found), "answers": answers, "drafts": drafts, "ids": ids},
    )


INTERLEAVE: Final = Scenario("interleave", "two rankers' lists merged into one", _run)
