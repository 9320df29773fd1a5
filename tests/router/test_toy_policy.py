"""Adding a policy is one class and one name in POLICIES: file, schema, snapshot and decision follow."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import pytest

import policies
from policies.plans import Weighted
from policies.rollouts.standing import START, Standing
from policies.types import Evidence, Path, Plan, Policy, SettingProblem
from router.config.schema import json_schema
from router.router import Router
from router.snapshot import decode, encode
from tests.router.builders import messages_of, request, snapshot_of, with_policy


@dataclass(frozen=True, slots=True, kw_only=True)
class Weekday(Policy):
    """Give ``spare`` what is left of ``keep``."""

    kind: ClassVar[str] = "weekday"
    randomised: ClassVar[bool] = True

    main: str
    spare: str = field(metadata={"description": "Who gets the rest."})
    keep: float = 0.75
    days: tuple[int, ...] = (1, 2)

    def references(self) -> tuple[tuple[Path, str], ...]:
        return ((("main",), self.main), (("spare",), self.spare))

    def problems(self) -> tuple[SettingProblem, ...]:
        return () if self.keep > 0 else (SettingProblem(("keep",), f"must be positive, got {self.keep}"),)

    def plan(self, evidence: Evidence, standing: Standing = START) -> Plan:
        return Weighted(((self.main, self.keep), (self.spare, 1 - self.keep)))


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policies, "POLICIES", (*policies.POLICIES, Weekday))


def test_its_settings_are_read_with_their_defaults() -> None:
    route = snapshot_of(with_policy('{ kind = "weekday", main = "v1", spare = "v2", days = [3] }')).routes["digits"]
    assert (route.policy, route.variants, route.baseline) == ("weekday", ("v1", "v2"), "v1")
    assert route.plan.shares == {"v1": 0.75, "v2": 0.25}


def test_its_mistakes_are_reported_like_any_others() -> None:
    path = "routes.digits.policy"
    text = with_policy('{ kind = "weekday", main = "v9", spar = "v2", keep = 0, days = ["mo"] }')
    assert messages_of(text) == [
        f'{path}.main: unknown backend "v9"',
        f'{path}: unknown setting "spar"',
        f"{path}.keep must be positive, got 0.0",
        f'{path}.days[0] must be a whole number, got "mo"',
    ]


def test_it_is_in_the_schema() -> None:
    table = json_schema()["$defs"]["policy_weekday"]
    assert table["required"] == ["kind", "main", "spare"]
    assert table["properties"]["keep"]["default"] == 0.75
    assert table["properties"]["spare"]["description"] == "Who gets the rest."
    assert table["description"] == "Give `spare` what is left of `keep`."


def test_it_decides_for_requests_out_of_a_published_snapshot() -> None:
    snapshot = decode(encode(snapshot_of(with_policy('{ kind = "weekday", main = "v1", spare = "v2" }'))))
    router = Router(snapshot)
    route = router.match(request())
    assert route is not None
    assert router.route(route, request(x_user_id="u"), "r").decision.reason == "unit"
