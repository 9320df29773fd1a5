"""A request becomes a decision with everything that the caller needs."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest

from policies.types import Decision
from router.extract import UNREADABLE
from router.router import Router, Routing, needs_body
from router.snapshot import Route, RouteMirror
from tests.router.builders import CANARY, ROUTE, SMALL, changed, request, route_of, snapshot_of, with_policy


@cache
def router() -> Router:
    """A router of the small file; what it routes by is in the route that it is given."""
    return Router(snapshot_of())


def routed(
    route: Route, request_id: str = "r1", body: object = None, force: str | None = None, **headers: str
) -> Routing:
    return router().route(route, request(**headers), request_id, body, force)


def test_a_request_is_routed_by_the_snapshot_in_force() -> None:
    router = Router(snapshot_of())
    assert router.match(request("/other")) is None
    router.swap(snapshot_of(changed(SMALL, ('"/digits"', '"/other"'))))
    assert router.match(request("/digits")) is None
    assert (route := router.match(request("/other"))) is not None
    assert route.name == "digits"


def test_a_request_keeps_the_route_it_began_with_through_a_swap() -> None:
    router = Router(snapshot_of())
    route = router.match(request())
    assert route is not None
    router.swap(snapshot_of(changed(SMALL, ("[routes.digits", "[routes.other"), ("share = 0.05", "share = 1.0"))))
    assert router.route(route, request(x_user_id="u"), "r1").route is route


def test_a_unit_meets_the_same_variant_on_every_request() -> None:
    route = route_of(changed(SMALL, ("0.05", "0.5")))
    for unit in ("u1", "u2", "u3", "u4"):
        decisions = {routed(route, str(number), x_user_id=unit).decision for number in range(20)}
        assert len(decisions) == 1
        assert decisions.pop().reason == "unit"


def test_without_a_unit_the_request_stands_in_and_says_so() -> None:
    routing = routed(route_of())
    assert (routing.unit_missing, routing.occasion.unit, routing.decision.reason) == (True, None, "request")


def test_a_route_that_names_no_unit_misses_none() -> None:
    assert not routed(route_of(changed(SMALL, ('unit = "header:x-user-id"', "")))).unit_missing


def test_the_salt_is_the_routes_name_unless_the_policy_says_another() -> None:
    assert routed(route_of()).occasion.salt == "digits"
    assert routed(route_of(SMALL + 'salt = "s"\n')).occasion.salt == "s"


MORE = """
key = "body:/id"
features = { size = "body:/n", who = "query:who" }
"""
BODY = ROUTE.replace("header:x-user-id", "body:/user") + MORE


def test_unit_key_and_features_come_out_of_the_body() -> None:
    route = route_of(changed(SMALL, (ROUTE, BODY)))
    routing = routed(route, body={"user": 7, "id": "k", "n": [1]})
    assert (routing.occasion.unit, routing.key, routing.occasion.features) == ("7", "k", {"size": [1]})


def test_a_body_that_is_not_json_leaves_the_request_without_a_unit() -> None:
    routing = routed(route_of(changed(SMALL, (ROUTE, BODY))), body=UNREADABLE)
    assert (routing.unit_missing, routing.key, routing.occasion.features) == (True, None, {})


@pytest.mark.parametrize(
    ("more", "needed"),
    [
        ("", False),
        ('key = "body:/id"\n', True),
        ('features = ["body:/a"]\n', True),
        ('features = ["query:a"]\n', False),
    ],
)
def test_the_body_is_needed_only_where_something_is_read_from_it(more: str, needed: bool) -> None:
    assert needs_body(route_of(changed(SMALL, (ROUTE, ROUTE + more)))) is needed


def test_a_forced_variant_answers_alone_and_is_marked() -> None:
    route = replace(route_of(), mirrors=(RouteMirror(variant="v3", share=1.0),))
    routing = routed(route, force="v2")
    assert routing.decision == Decision(("v2",), (), 1.0, "forced")
    assert (routing.forced, routing.mirrored) == (True, ())


def test_forcing_another_variant_is_refused_with_their_names_where_answers_say_them() -> None:
    with pytest.raises(ValueError, match='"v1", "v2"'):
        routed(replace(route_of(), expose_variant=True), force="v3")
    with pytest.raises(ValueError, match=r"^the route has no such variant$"):
        routed(route_of(), force="v3")


INTERLEAVE = with_policy('{ kind = "interleave", rankers = ["v1", "v2"], items = "/hits", length = 3 }')


def test_a_merging_route_says_how_unless_a_variant_is_forced() -> None:
    route = route_of(INTERLEAVE)
    assert routed(route).draft is route.plan
    assert routed(route).decision.answering == ("v1", "v2")
    assert routed(route, force="v2").draft is None
    assert routed(route_of()).draft is None


def mirrored(route: Route, method: str = "POST", request_id: str = "r1") -> tuple[str, ...]:
    return router().route(route, request(method=method, x_user_id="u"), request_id).mirrored


def test_a_mirror_gets_copies_of_the_methods_it_names() -> None:
    route = replace(route_of(), mirrors=(RouteMirror(variant="v3", share=1.0, methods=("GET",)),))
    assert mirrored(route, "GET") == ("v3",)
    assert mirrored(route, "POST") == ()


def test_a_mirror_gets_its_share_and_by_unit() -> None:
    route = replace(route_of(), mirrors=(RouteMirror(variant="v3", share=0.25),))
    router = Router(snapshot_of())
    copies = [router.route(route, request(x_user_id=str(unit)), "r").mirrored for unit in range(4_000)]
    assert abs(sum(map(len, copies)) - 1_000) < 4 * (4_000 * 0.25 * 0.75) ** 0.5
    assert len({mirrored(route, request_id=str(number)) for number in range(20)}) == 1


def test_who_answers_gets_no_copy_and_nobody_gets_two() -> None:
    shadow = route_of(with_policy('{ kind = "shadow", primary = "v1", shadows = { v2 = 1.0 } }'))
    route = replace(shadow, mirrors=tuple(RouteMirror(variant=name, share=1.0) for name in ("v1", "v2", "v3")))
    assert mirrored(route) == ("v2", "v3")


def test_canary_is_what_the_small_file_serves() -> None:
    assert CANARY in SMALL
    assert routed(route_of(), x_user_id="u").decision.propensity in (0.05, 0.95)


HELD = changed(SMALL, ('unit = "header:x-user-id"', 'unit = "header:x-user-id"\nholdout = "q4"\nholdout_share = 0.2'))
UNITS = [f"u{number}" for number in range(2_000)]


def held(route: Route) -> set[str]:
    return {unit for unit in UNITS if routed(route, x_user_id=unit).decision.reason == "holdout"}


def test_a_holdout_keeps_its_share_of_units_on_the_baseline() -> None:
    route = replace(route_of(HELD), mirrors=(RouteMirror(variant="v3", share=1.0),))
    kept = held(route)
    assert abs(len(kept) - 400) < 4 * (2_000 * 0.2 * 0.8) ** 0.5
    routing = routed(route, "another request", x_user_id=min(kept))
    assert (routing.decision.answering, routing.mirrored, routing.role) == ((route.baseline,), (), "holdout")
    assert routed(route, x_user_id=min(set(UNITS) - kept)).role == "primary"


def test_routes_of_one_holdout_hold_the_same_units_out_and_chance_of_the_policy_is_another() -> None:
    kept = held(route_of(HELD))
    assert held(route_of(HELD + 'salt = "s"\n')) == kept
    assert held(replace(route_of(HELD), holdout_share=0.3)) > kept
    assert held(route_of(changed(HELD, ('"q4"', '"q5"')))) != kept
    holding, other = route_of(HELD), route_of()
    treated = [routed(holding, x_user_id=unit).decision.answering for unit in UNITS if unit not in kept]
    assert treated == [routed(other, x_user_id=unit).decision.answering for unit in UNITS if unit not in kept]


def test_a_request_without_a_unit_and_a_forced_one_are_not_held_out() -> None:
    route = replace(route_of(HELD), holdout_share=1.0)
    assert routed(route).decision.reason == "request"
    assert routed(route, force="v2", x_user_id="u").decision.reason == "forced"


# Frozen by a person.


def test_a_frozen_route_has_one_variant_whatever_plan_holdout_mirror_and_client_say() -> None:
    held_out = (
        ROUTE + 'holdout = "h"\nholdout_share = 0.5\nmirrors = [{ variant = "v3", share = 1.0 }]\nallow_force = true\n'
    )
    router = Router(snapshot_of(changed(SMALL, (ROUTE, held_out))))
    [route] = router.snapshot.routes.values()
    assert router.freeze({"digits": "v2"}) == []
    for number in range(20):
        for force in (None, "v1", "nonsense"):
            routing = router.route(route, request(x_user_id=f"u{number}"), f"p{number}", force=force)
            assert routing.decision == Decision(("v2",), (), 1.0, "frozen")
            assert (routing.mirrored, routing.forced, routing.role, routing.draft) == ((), True, "primary", None)
    router.freeze({})
    decisions = {router.route(route, request(x_user_id=f"u{n}"), f"p{n}").decision.reason for n in range(20)}
    assert decisions == {"unit", "holdout"}


@pytest.mark.parametrize(
    "policy",
    [
        '{ kind = "single", variant = "v1" }',
        '{ kind = "shadow", primary = "v1", shadows = { v2 = 1.0 } }',
        '{ kind = "ab", shares = { v1 = 0.5, v2 = 0.5 } }',
        '{ kind = "interleave", rankers = ["v1", "v2"], items = "/i", length = 3 }',
        '{ kind = "thompson", variants = ["v1", "v2"], reward = "click" }',
    ],
)
def test_under_every_policy_each_variant_can_be_frozen_and_answers_alone(policy: str) -> None:
    router = Router(
        snapshot_of(with_policy(policy, changed(ROUTE, ('["correct", "click"]', '["click"]')) + 'baseline = "v1"\n'))
    )
    [route] = router.snapshot.routes.values()
    for variant in route.variants:
        assert router.freeze({"digits": variant}) == []
        routing = router.route(route, request(x_user_id="u"), "p")
        assert (routing.decision.answering, routing.mirrored, routing.draft) == ((variant,), (), None)


def test_a_freeze_of_what_is_not_there_changes_nothing_and_is_told() -> None:
    router = Router(snapshot_of())
    assert router.freeze({"digits": "v9", "nowhere": "v1"}) == ["digits", "nowhere"]
    [route] = router.snapshot.routes.values()
    assert router.route(route, request(x_user_id="u"), "p").decision.reason == "unit"


def test_a_freeze_holds_through_a_swap_and_takes_hold_of_what_comes_with_it() -> None:
    router = Router(snapshot_of())
    [before] = router.snapshot.routes.values()
    router.freeze({"digits": "v3"})
    router.swap(snapshot_of(changed(SMALL, ('candidate = "v2"', 'candidate = "v3"'))))
    [after] = router.snapshot.routes.values()
    assert router.route(after, request(x_user_id="u"), "p").decision.answering == ("v3",)
    # A request that was matched before has no such variant.
    assert router.route(before, request(x_user_id="u"), "p").decision.reason == "unit"


def test_a_frozen_route_falls_back_on_no_variant_that_it_was_frozen_away_from() -> None:
    for fallback, expected in (("v2", None), ("v3", "v3")):
        router = Router(snapshot_of(changed(SMALL, (ROUTE, ROUTE + f'fallback = "{fallback}"\n'))))
        [route] = router.snapshot.routes.values()
        assert router.route(route, request(x_user_id="u"), "p").fallback == fallback
        router.freeze({"digits": "v1"})
        assert router.route(route, request(x_user_id="u"), "p").fallback == expected
