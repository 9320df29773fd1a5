"""Where new units are bounded, one client that invents units does not change the verdict of an experiment."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway.proxy.limits.new_units import NewUnits
from gateway.report import report
from policies.decision import Occasion
from router.records import UNCOUNTED, Feedback, Prediction
from router.snapshot import Backend, Gateway
from tests.gateway.control.builders import Desk, call, event, metric
from tests.gateway.proxy.limits.test_new_units import Clock, from_

USERS, INVENTED = 3_000, 1_200
#: How often real users click, by variant: b is better.
RATES = {"a": 0.30, "b": 0.38}


def requests(bound: int, *, attacked: bool) -> Iterator[tuple[Prediction, Feedback]]:
    """The requests of users, each from its own address, and amid them those of one client, with what was clicked.

    The client recognises the variants by their answers, and sends good feedback for a alone.
    """
    new_units = NewUnits(Gateway(max_new_units_per_client=bound), Clock())
    plan = Desk(Path(), metric("event")).snapshot.routes["r"].plan
    number = 0

    def one(unit: str, address: str, clicked: Any) -> tuple[Prediction, Feedback]:
        nonlocal number
        number += 1
        variant = plan.decide(Occasion("secret", unit, "request")).answering[0]
        reason = "unit" if not bound or new_units.counts(unit, from_(address)) else UNCOUNTED
        made = call(number, variant, unit=unit, by_unit=True, reason=reason)
        return made, event(number, clicked(variant), at=number + 1)

    clicks = {"a": 0.0, "b": 0.0}

    def as_users_do(variant: str) -> int:
        clicks[variant] += RATES[variant]
        clicked = int(clicks[variant] >= 1)
        clicks[variant] -= clicked
        return clicked

    for user in range(USERS):
        yield one(f"user-{user}", f"198.18.{user // 250}.{user % 250}", as_users_do)
        if user == USERS // 2 and attacked:
            for invented in range(INVENTED):
                yield one(f"invented-{invented}", "192.0.2.66", lambda variant: int(variant == "a"))


def reported(path: Path, bound: int, *, attacked: bool) -> dict[str, Any]:
    async def run() -> dict[str, Any]:
        async with Desk(path, metric("event", missing=0.0), by_unit=True, lines=20_000) as desk:
            made = list(requests(bound, attacked=attacked))
            desk.journal.calls(*(prediction for prediction, _ in made))
            desk.journal.events(*(one for _, one in made))
            desk.journal.beat(20_000)
            ledger = await desk.record()
            backends = {name: Backend(name=name, urls=(), version="1", model="m") for name in "ab"}
            return report(replace(desk.snapshot, backends=backends), ledger)

    return asyncio.run(run())


@pytest.mark.parametrize(("bound", "verdict"), [(0, "worse"), (60, "better")])
def test_invented_units_decide_nothing_where_new_ones_have_a_bound(tmp_path: Path, bound: int, verdict: str) -> None:
    attacked = reported(tmp_path / "attacked", bound, attacked=True)
    assert attacked["verdict"]["status"] == verdict
    if not bound:
        assert attacked["uncounted"] == 0
        return
    alone = reported(tmp_path / "alone", bound, attacked=False)
    assert (alone["verdict"]["status"], alone["uncounted"]) == ("better", 0)
    assert attacked["uncounted"] == INVENTED - bound
    assert attacked["feedback"]["not_applicable"] == INVENTED - bound
    assert sum(attacked["feedback"].values()) == USERS + INVENTED
    told = {problem["problem"]: problem["sentence"] for problem in attacked["problems"]}
    assert "1,140 of 4,200" in told["uncounted"]
    assert "not_applicable" not in told  # it is no fault of the feedback's
    shift = attacked["verdict"]["comparisons"][0]["difference"] - alone["verdict"]["comparisons"][0]["difference"]
    assert abs(shift) < 0.03
