"""Where a route stands, as it is shown."""

from __future__ import annotations

from dataclasses import replace

from gateway.control.steer.standing_view import stands
from policies.rollouts.standing import Findings, Standing
from tests.router.builders import config_of, snapshot_of, with_policy

DAY = 86_400_000
TEXT = with_policy(
    '{ kind = "rollout", stable = "v1", candidate = "v2", '
    'steps = [{ share = 0.1, hold = "30d" }, { share = 0.2, units = 100_000 }, { share = 1.0 }] }'
)


def test_a_sample_that_is_out_of_reach_is_said_with_the_days_it_would_take() -> None:
    """As soon as the present step has lasted an hour: then the route's traffic is known."""
    standing = Standing(number=1, policy="rollout", since_ms=DAY, of={"v1": "1", "v2": "2"})
    route, policy = (
        replace(snapshot_of(TEXT).routes["digits"], standing=standing),
        config_of(TEXT).routes["digits"].policy,
    )
    found = Findings(units={"v1": 1_800, "v2": 200}, calls={"v1": 9_000, "v2": 1_000})
    for after, said in (
        (DAY // 48, []),
        (2 * DAY, ["step 2 asks for 100,000 units, which take 500 days at 20 % of 1,000 units a day"]),
    ):
        shown = stands(route, policy, found, {}, [], DAY + after)
        assert shown is not None
        assert shown["out_of_reach"] == said
