"""When an epoch, a period and a revision begin, and which changes begin none."""

from __future__ import annotations

from dataclasses import replace

import pytest

from policies.rollouts.standing import Standing
from policies.types import Evidence, Tally
from router.compile import compile_snapshot, identity_of, is_step, replan
from router.snapshot import Route, Snapshot, decode, encode
from tests.router.builders import SMALL, changed, config_of, route_of, snapshot_of, with_policy

BANDIT = with_policy('{ kind = "thompson", variants = ["v1", "v2"], reward = "click" }')
SEEN = Evidence({("v2", "click"): Tally.of_units([(1, 1)] * 50), ("v1", "click"): Tally.of_units([(0, 1)] * 50)})


def edited(before: Snapshot, text: str, *, now_ms: int = 2_000) -> Route:
    """Return the route after the file was changed to ``text``."""
    return snapshot_of(text, before, now_ms=now_ms, revision=before.revision + 1).routes["digits"]


def test_a_first_snapshot_begins_everything() -> None:
    route = snapshot_of(now_ms=5_000, revision=7).routes["digits"]
    assert (route.period, route.revision) == (5_000, 7)
    assert (route.policy, route.variants, route.baseline, route.by_unit) == ("canary", ("v1", "v2"), "v1", True)
    assert route.plan.shares == {"v1": 0.95, "v2": 0.05}


def identity(text: str) -> str:
    return identity_of(snapshot_of(text))


OF_A_NODE = (
    'listen = "0.0.0.0:80"\nfeedback_token_file = "/t"',
    'admin = "127.0.0.1:1"',
    "workers = 3",
    'data_dir = "/elsewhere"',
    'store = "postgresql://db/turnout"\nstore_password_file = "/p"',
    "max_journal_bytes = 2_000_000\nmax_feedback_journal_bytes = 3_000_000",
)


@pytest.mark.parametrize("settings", OF_A_NODE)
def test_where_a_node_is_makes_no_other_configuration_of_it(settings: str) -> None:
    node = f"[gateway]\n{settings}\n{SMALL}"
    assert identity(node) == identity(SMALL)


@pytest.mark.parametrize(
    "text",
    [
        "[gateway]\nmax_body_bytes = 5\n" + SMALL,
        changed(SMALL, ("missing = 0", 'missing = 0\nwindow = "1h"')),
        changed(SMALL, ("9002", "9902")),
        changed(SMALL, ("0.05", "0.06")),
        changed(SMALL, ('"/digits"', '"/numbers"')),
    ],
    ids=range(5),
)
def test_what_nodes_must_have_in_common_makes_another_configuration(text: str) -> None:
    assert identity(text) != identity(SMALL)


def test_plans_and_their_numbers_make_no_other_configuration() -> None:
    before = snapshot_of(BANDIT)
    after = replan(before, config_of(BANDIT), "digits", SEEN, 9)
    assert after.routes["digits"].plan != before.routes["digits"].plan
    assert identity_of(after) == identity_of(before)


NO_CHANGE = [
    "# a comment\n" + SMALL.replace(" = ", "  =  "),
    changed(SMALL, ('metrics = ["correct", "click"]', 'metrics = ["correct", "click", "seconds"]')),
    changed(SMALL, ('metrics = ["correct", "click"]', 'metrics = ["correct", "click"]\nfallback = "v1"')),
    changed(SMALL, ('metrics = ["correct", "click"]', 'metrics = ["correct"]\nmirrors = [{ variant = "v3" }]')),
    changed(SMALL, ("9002", "9902")),
    changed(SMALL, ('version = "3"', 'version = "4"')),
    changed(SMALL, ('"/digits"', '"/numbers"')),
    changed(SMALL, ("missing = 0", 'missing = 0\nwindow = "1h"')),
    SMALL + 'sticky = true\nsalt = "digits"\n',
    SMALL + '[routes.other]\npath = "/other"\npolicy = { kind = "single", variant = "v1" }\n',
]


@pytest.mark.parametrize("text", NO_CHANGE, ids=range(len(NO_CHANGE)))
def test_an_edit_that_changes_no_decision_resets_nothing(text: str) -> None:
    before = snapshot_of()
    route, was = edited(before, text), before.routes["digits"]
    assert (route.epoch, route.period, route.revision) == (was.epoch, was.period, was.revision)


NEW_PERIOD = [
    changed(SMALL, ("0.05", "0.2")),
    changed(SMALL, ('version = "2"', 'version = "2.1"')),
    changed(SMALL, ('candidate = "v2"', 'candidate = "v3"')),
    changed(SMALL, ('unit = "header:x-user-id"', 'unit = "header:x-user-id"\nholdout = "all_year"')),
]


@pytest.mark.parametrize("text", NEW_PERIOD, ids=range(len(NEW_PERIOD)))
def test_an_edit_of_shares_versions_or_the_set_of_variants_begins_a_period_of_the_same_epoch(text: str) -> None:
    """Comparisons are stratified by period: a ramp would fake an effect otherwise, and each version has its own."""
    before = snapshot_of()
    route, was = edited(before, text), before.routes["digits"]
    assert route.epoch == was.epoch
    assert (route.period, route.revision) == (2_000, 2)


def test_a_variant_that_goes_and_comes_back_is_in_the_same_epoch() -> None:
    first = snapshot_of(now_ms=1_000, revision=1)
    second = snapshot_of(NEW_PERIOD[2], first, now_ms=2_000, revision=2)
    third = snapshot_of(SMALL, second, now_ms=3_000, revision=3)
    assert {one.routes["digits"].epoch for one in (first, second, third)} == {first.routes["digits"].epoch}
    assert third.routes["digits"].period == 3_000


NEW_EPOCH = [
    changed(SMALL, ("header:x-user-id", "cookie:user")),
    changed(SMALL, ('unit = "header:x-user-id"\n', "")),
    changed(SMALL, ("/answer", "/answers/0")),
    changed(SMALL, ('metrics = ["correct"', 'key = "body:/id"\nkey_rule = "first"\nmetrics = ["correct"')),
    changed(SMALL, ('metrics = ["correct"', 'require_exposure = true\nmetrics = ["correct"')),
    SMALL + 'salt = "again"\n',
    with_policy('{ kind = "ab", shares = { v1 = 0.95, v2 = 0.05 } }\nbaseline = "v1"'),
]


@pytest.mark.parametrize("text", NEW_EPOCH, ids=range(len(NEW_EPOCH)))
def test_an_edit_that_makes_numbers_incomparable_begins_an_epoch(text: str) -> None:
    before = snapshot_of()
    route, was = edited(before, text), before.routes["digits"]
    assert route.epoch != was.epoch
    assert (route.period, route.revision) == (2_000, 2)


def test_going_back_to_an_old_file_resumes_its_epoch_in_a_new_period() -> None:
    first = snapshot_of(now_ms=1_000, revision=1)
    second = snapshot_of(NEW_EPOCH[0], first, now_ms=2_000, revision=2)
    third = snapshot_of(SMALL, second, now_ms=3_000, revision=3)
    assert third.routes["digits"].epoch == first.routes["digits"].epoch
    assert third.routes["digits"].period == 3_000


def test_the_order_in_which_variants_are_named_is_no_difference() -> None:
    one = route_of(with_policy('{ kind = "ab", shares = { v1 = 0.9, v2 = 0.1 } }\nbaseline = "v1"'))
    other = route_of(with_policy('{ kind = "ab", shares = { v2 = 0.1, v1 = 0.9 } }\nbaseline = "v1"'))
    assert (one.epoch, one.settings) == (other.epoch, other.settings)


def test_a_period_is_never_one_that_was_even_when_the_clock_goes_back() -> None:
    before = snapshot_of(now_ms=5_000)
    assert edited(before, changed(SMALL, ("0.05", "0.2")), now_ms=1_000).period == 5_001
    assert edited(before, changed(SMALL, ("0.05", "0.2")), now_ms=5_000).period == 5_001


def test_an_epoch_is_the_same_in_every_process() -> None:
    """It is stored for years as a key: a change of this value would restart every experiment of every operator.

    (It changed once, with what an epoch is: then ``Route.carried`` let those in force go on under their names.)
    """
    assert route_of().epoch == "a49e9f89c9fb1872"


def of_before(snapshot: Snapshot, epoch: str = "0123456789abcdef") -> Snapshot:
    """The snapshot as the program before wrote it: its epochs were hashes of more, and it remembered none."""
    routes = {name: replace(route, epoch=epoch, carried=None) for name, route in snapshot.routes.items()}
    return replace(snapshot, routes=routes)


@pytest.mark.parametrize("text", [*NO_CHANGE, *NEW_PERIOD], ids=range(len(NO_CHANGE) + len(NEW_PERIOD)))
def test_the_epoch_in_force_at_an_upgrade_goes_on_under_its_name(text: str) -> None:
    before = of_before(snapshot_of())
    again = snapshot_of(text, before, now_ms=2_000, revision=2)
    assert again.routes["digits"].epoch == before.routes["digits"].epoch
    assert (again.routes["digits"].period == before.routes["digits"].period) == (text in NO_CHANGE)
    later = snapshot_of(SMALL, again, now_ms=3_000, revision=3)
    assert later.routes["digits"].epoch == before.routes["digits"].epoch


@pytest.mark.parametrize("text", [text for text in NEW_EPOCH if "again" not in text], ids=range(len(NEW_EPOCH) - 1))
def test_an_epoch_that_was_carried_on_ends_with_its_identity_and_is_resumed_under_its_name(text: str) -> None:
    before = of_before(snapshot_of())
    other = snapshot_of(text, before, now_ms=2_000, revision=2)
    assert other.routes["digits"].epoch == route_of(text).epoch
    back = snapshot_of(SMALL, decode(encode(other)), now_ms=3_000, revision=3)
    assert back.routes["digits"].epoch == before.routes["digits"].epoch


def test_another_epoch_is_not_carried_on() -> None:
    """An edit that begins an epoch may come with the upgrade: what the file says now was never in force before."""
    before = of_before(snapshot_of(NEW_EPOCH[0]))
    assert snapshot_of(SMALL, before).routes["digits"].epoch == route_of().epoch


def test_nodes_agree_whether_they_carried_an_epoch_on_or_began() -> None:
    carried, began = snapshot_of(SMALL, of_before(snapshot_of())), snapshot_of()
    assert carried.routes["digits"].epoch != began.routes["digits"].epoch
    assert identity_of(carried) == identity_of(began)
    assert identity_of(of_before(snapshot_of())) == identity_of(began)


def test_a_route_is_counted_by_unit_when_the_policy_keeps_units_and_the_route_names_one() -> None:
    assert route_of().by_unit
    assert not route_of(SMALL + "sticky = false\n").by_unit
    assert not route_of(changed(SMALL, ('unit = "header:x-user-id"\n', ""))).by_unit


def test_evidence_is_asked_for_by_route_and_epoch() -> None:
    asked: list[tuple[str, str]] = []

    def evidence(route: str, epoch: str) -> Evidence:
        asked.append((route, epoch))
        return SEEN

    snapshot = compile_snapshot(config_of(BANDIT), previous=None, evidence=evidence, now_ms=1, revision=1)
    assert asked == [("digits", snapshot.routes["digits"].epoch)]
    assert snapshot.routes["digits"].plan.shares["v2"] > 0.9


def test_new_evidence_moves_the_plan_and_begins_no_period() -> None:
    before = snapshot_of(BANDIT, revision=3)
    after = replan(before, config_of(BANDIT), "digits", SEEN, 4)
    was, now = before.routes["digits"], after.routes["digits"]
    assert now.plan.shares["v2"] > 0.9 > was.plan.shares["v2"]
    assert (after.revision, now.revision) == (4, 4)
    assert (now.epoch, now.period) == (was.epoch, was.period)


def test_a_reload_of_an_adaptive_route_goes_on_in_its_period() -> None:
    before = replan(snapshot_of(BANDIT, revision=3), config_of(BANDIT), "digits", SEEN, 4)
    after = compile_snapshot(
        config_of("\n" + BANDIT), previous=before, evidence=lambda route, epoch: SEEN, now_ms=9_000, revision=5
    )
    assert after.revision == 5
    assert after.routes["digits"] == before.routes["digits"]


def test_evidence_that_moves_nothing_leaves_the_very_same_snapshot() -> None:
    before = snapshot_of()
    assert replan(before, config_of(), "digits", SEEN, 2) is before


def test_shares_move_in_steps() -> None:
    """Each plan is a stretch whose evidence is kept for itself: there is none for every label."""

    def seen(successes: int) -> Evidence:
        of = {"v1": 500, "v2": successes}
        return Evidence({(v, "click"): Tally.of_units([(1, 1)] * k + [(0, 1)] * 500) for v, k in of.items()})

    config, before = config_of(BANDIT), snapshot_of(BANDIT)
    assert replan(before, config, "digits", seen(501), 2) is before
    after = replan(before, config, "digits", seen(520), 2)
    assert after.routes["digits"].plan.shares["v2"] > 0.525
    assert replan(after, config, "digits", seen(521), 3) is after
    assert replan(after, config, "digits", seen(500), 3).routes["digits"].plan == before.routes["digits"].plan
    again = compile_snapshot(config, previous=after, evidence=lambda _, __: seen(521), now_ms=9, revision=3)
    assert again.routes["digits"] == after.routes["digits"]


def test_steps_grow_so_that_stretches_stay_bounded() -> None:
    """However the evidence turns, a route that learns for ever has less than 1,600 stretches."""
    low, high = {"a": 0.0, "b": 1.0}, {"a": 1.0, "b": 0.0}
    assert is_step(low, high, 1_000)
    assert not is_step(low, high, 1_600)
    assert is_step({"a": 1.0}, {"a": 0.5, "b": 0.5}, 10**9)


def test_replanning_one_route_leaves_the_others_alone() -> None:
    text = BANDIT + '[routes.other]\npath = "/other"\npolicy = { kind = "single", variant = "v1" }\n'
    before = snapshot_of(text)
    after = replan(before, config_of(text), "digits", SEEN, 2)
    assert after.routes["other"] is before.routes["other"]
    assert replace(after, revision=1, routes=before.routes) == before


OUT = Standing(number=1, policy="canary", held={"v2": "out"}, of={"v2": "2"})


def test_a_standing_that_moves_shares_begins_a_period_and_one_that_moves_none_does_not() -> None:
    before, config = snapshot_of(), config_of()
    after = replan(before, config, "digits", Evidence(), 2, OUT, 5_000)
    assert (after.routes["digits"].plan.shares, after.routes["digits"].period) == ({"v1": 1.0, "v2": 0.0}, 5_000)
    noted = replan(after, config, "digits", Evidence(), 3, replace(OUT, number=2, detail={"seen": 1}), 6_000)
    assert noted.routes["digits"] == replace(after.routes["digits"], standing=noted.routes["digits"].standing)
    assert replan(noted, config, "digits", Evidence(), 4) is noted


def test_a_reload_keeps_what_is_held_whether_the_store_is_known_or_not() -> None:
    """An edit of another route must not bring back a variant that was taken out."""
    before = replan(snapshot_of(), config_of(), "digits", Evidence(), 2, OUT, 5_000)
    for standings in (None, {"digits": OUT}):
        after = compile_snapshot(
            config_of(),
            previous=before,
            evidence=lambda *_: Evidence(),
            now_ms=9_000,
            revision=3,
            standings=standings,
        )
        assert after.routes == before.routes


def test_what_is_held_of_another_kind_of_policy_is_not_held_here() -> None:
    before = replan(snapshot_of(), config_of(), "digits", Evidence(), 2, replace(OUT, policy="ab"), 5_000)
    assert before.routes["digits"].plan.shares == {"v1": 0.95, "v2": 0.05}


def test_what_is_held_of_one_version_is_not_held_of_the_next() -> None:
    """From the first request after the edit, not from when the controller has noted it."""
    before = replan(snapshot_of(), config_of(), "digits", Evidence(), 2, OUT, 5_000)
    newer = config_of(changed(SMALL, ('version = "2"', 'version = "2.1"')))
    after = compile_snapshot(newer, previous=before, evidence=lambda *_: Evidence(), now_ms=9_000, revision=3)
    assert after.routes["digits"].plan.shares == {"v1": 0.95, "v2": 0.05}


ROLLOUT = with_policy(
    '{ kind = "rollout", stable = "v1", candidate = "v2", steps = [{ share = 0.1, hold = "1h" }, { share = 1.0 }] }'
)


def test_a_step_of_a_rollout_begins_a_period_and_another_version_begins_at_the_first_step() -> None:
    """Counts of a step are those of its periods, so the first step begins one too."""
    before, config = snapshot_of(ROLLOUT), config_of(ROLLOUT)
    of = {"v1": "1", "v2": "2"}
    began = Standing(number=1, policy="rollout", since_ms=5_000, of=of)
    first = replan(before, config, "digits", Evidence(), 2, began, 5_000)
    assert (first.routes["digits"].period, first.routes["digits"].plan) == (5_000, before.routes["digits"].plan)
    second = replan(first, config, "digits", Evidence(), 3, replace(began, number=2, step=1, since_ms=6_000), 5_900)
    assert (second.routes["digits"].period, second.routes["digits"].plan.shares) == (6_000, {"v2": 1.0})
    newer = config_of(changed(ROLLOUT, ('version = "2"', 'version = "2.1"')))
    after = compile_snapshot(newer, previous=second, evidence=lambda *_: Evidence(), now_ms=9_000, revision=4)
    assert after.routes["digits"].plan.shares == {"v1": 0.9, "v2": 0.1}
    assert after.routes["digits"].period == 9_000


def test_an_edit_of_later_steps_begins_no_period_and_one_of_the_present_step_does() -> None:
    config = config_of(ROLLOUT)
    began = Standing(number=1, policy="rollout", since_ms=5_000, of={"v1": "1", "v2": "2"})
    before = replan(snapshot_of(ROLLOUT), config, "digits", Evidence(), 2, began, 5_000)
    later = edited(before, changed(ROLLOUT, ("{ share = 1.0 }", '{ share = 0.5, hold = "1h" }, { share = 1.0 }')))
    assert (later.period, later.revision) == (before.routes["digits"].period, before.routes["digits"].revision)
    present = edited(before, changed(ROLLOUT, ("share = 0.1", "share = 0.2")), now_ms=9_000)
    assert (present.period, present.plan.shares["v2"]) == (9_000, 0.2)


def test_a_bandit_that_is_paused_keeps_its_plan() -> None:
    before, paused = snapshot_of(BANDIT), Standing(number=1, policy="thompson", state="paused")
    after = replan(before, config_of(BANDIT), "digits", SEEN, 2, paused, 5_000)
    assert after.routes["digits"].plan == before.routes["digits"].plan
    assert after.routes["digits"].period == before.routes["digits"].period
