"""A rollout's tables: each mistake is named at its place, and a right one becomes the policy that it says."""

from __future__ import annotations

import pytest

from policies.rollouts.calendar import ChangeWindow
from policies.rollouts.ladder import Approval, Stage
from policies.rollouts.rollout import Rollout
from router.compile import policy_settings
from tests.router.builders import BACKENDS, ROUTE, changed, config_of, diagnostics_of, messages_of, with_policy
from tests.router.config.test_checks import only

POLICY = "routes.digits.policy"
STEPS = f"{POLICY}.steps"
LAST = "{ share = 1.0, hold = '1h' }"


def stepped(*steps: str, more: str = "", route: str = ROUTE) -> str:
    listed = ", ".join(steps)
    return with_policy(f'{{ kind = "rollout", stable = "v1", candidate = "v2", steps = [{listed}]{more} }}', route)


def guarded(guardrail: str, policy: str) -> str:
    return with_policy(policy, f'{ROUTE}guardrails = [{{ metric = "correct", worse_by = 0.1, {guardrail} }}]\n')


def test_it_is_read_as_it_is_written() -> None:
    text = f"""{BACKENDS}{ROUTE}
[[routes.digits.guardrails]]
metric = "correct"
worse_by = 0.02
action = "rollback"

[routes.digits.policy]
kind = "rollout"
stable = "v1"
candidate = "v2"
change_window = {{ days = "mon-thu", hours = "09:00-17:00", zone = "Europe/Berlin" }}
no_changes = ["2026-12-20/2027-01-03"]

[[routes.digits.policy.steps]]
shadow = 1.0
hold = "1h"
pairs = 500
agreement = 0.9

[[routes.digits.policy.steps]]
share = 0.5
hold = "7d"
at_most = "14d"
clean = ["correct"]
approve = {{ by = 2, not_author = true, ticket = true }}

[[routes.digits.policy.steps]]
share = 1.0
"""
    route = config_of(text).routes["digits"]
    assert diagnostics_of(text) == ()
    assert route.guardrails[0].action == "rollback"
    assert route.policy == Rollout(
        stable="v1",
        candidate="v2",
        steps=(
            Stage(shadow=1.0, hold=3_600_000, pairs=500, agreement=0.9),
            Stage(
                share=0.5,
                hold=7 * 86_400_000,
                at_most=14 * 86_400_000,
                clean=("correct",),
                approve=Approval(by=2, not_author=True, ticket=True),
            ),
            Stage(share=1.0),
        ),
        change_window=ChangeWindow(days="mon-thu", hours="09:00-17:00", zone="Europe/Berlin"),
        no_changes=("2026-12-20/2027-01-03",),
    )
    assert policy_settings(route.policy) == policy_settings(config_of(text).routes["digits"].policy)


MISTAKES = [
    (
        stepped(LAST, route=f'{ROUTE}baseline = ‹"v2"›\n'),
        'routes.digits.baseline must be what it goes back to, "v1", got "v2"',
    ),
    (stepped("{ share = 0.1, ‹hld› = '30m' }", LAST), f'{STEPS}[0]: unknown setting "hld"'),
    (stepped("{ share = 0.1, hold = ‹3› }", LAST), f"{STEPS}[0].hold must be text in quotes, got 3"),
    (
        stepped("{ share = 0.1, approve = ‹'yes'› }", LAST),
        f'{STEPS}[0].approve must be true, false or a table, got "yes"',
    ),
    (stepped("{ share = 0.1, approve = { by = ‹0› } }", LAST), f"{STEPS}[0].approve.by must be at least 1, got 0"),
    (stepped("{ share = 0.1, units = ‹0› }", LAST), f"{STEPS}[0].units must be at least 1, got 0"),
    (stepped("‹1›"), f"{STEPS}[0] must be a table, got 1"),
    (
        stepped("{ share = 0.5, hold = '1h' }", "{ share = ‹0.1›, hold = '1h' }", LAST),
        f"{STEPS}[1].share must be more than that of step 1, 0.5, got 0.1: a rollout sends no unit back",
    ),
    (
        stepped("{ share = 0.1, hold = '1h' }", "{ share = ‹0.0›, hold = '1h' }", LAST),
        f"{STEPS}[1].share must be more than 0, and at most 1, got 0.0",
    ),
    (
        stepped("{ share = 0.1, hold = '1h' }", "{ share = ‹0.5›, hold = '1h' }"),
        f"{STEPS}[1].share is that of the last step, which must be share = 1.0: done means that all get the candidate",
    ),
    (
        stepped("‹{ share = 0.1 }›", LAST),
        f"{STEPS}[0] has no condition, so it is passed at once; write hold, units, pairs, agreement, clean or approve",
    ),
    (
        stepped("‹{ hold = '1h' }›", LAST),
        f"{STEPS}[0] needs share, which the candidate answers, or shadow, of which it gets copies: one of them",
    ),
    (
        stepped("{ share = 0.1, hold = '1h' }", "{ shadow = ‹0.5›, hold = '1h' }", LAST),
        f"{STEPS}[1].shadow comes after step 1, in which the candidate answers already",
    ),
    (
        stepped("{ share = 0.1, pairs = ‹5› }", LAST),
        f"{STEPS}[0].pairs has no meaning here: a step with share has no copies to compare",
    ),
    (
        stepped("{ shadow = 0.1, units = ‹5› }", LAST),
        f"{STEPS}[0].units has no meaning here: a step with shadow has copies, which are counted in pairs",
    ),
    (
        stepped("{ share = 0.5, hold = '30h', at_most = ‹'2d'› }", LAST),
        f"{STEPS}[0].at_most must be longer than the step lasts at least (hold, in whole days from a share of 0.25 on)",
    ),
    (
        stepped("{ share = 0.1, clean = [‹'seconds'›] }", LAST),
        f'{STEPS}[0].clean[0] names no guardrail of the route, got "seconds": it would wait for ever',
    ),
    (
        stepped(
            "{ shadow = 1.0, agreement = ‹0.9› }",
            LAST,
            route=changed(ROUTE, ('prediction = "/answer"\n', ""), ('"correct", ', "")),
        ),
        f"{STEPS}[0].agreement compares predictions, and the route does not say where they stand in an answer",
    ),
    (
        stepped(LAST, more=', no_changes = [‹"soon"›]'),
        f'{POLICY}.no_changes[0] must be a first and a last day, as in "2026-12-20/2027-01-03", got "soon"',
    ),
    (
        stepped(LAST, more=', change_window = { zone = ‹"Mars"› }'),
        f'{POLICY}.change_window.zone must be a time zone that this machine knows, as in "Europe/Berlin", got "Mars"',
    ),
    (
        stepped(LAST, more=', change_window = { days = ‹"mo-th"› }'),
        f'{POLICY}.change_window.days must be days such as "mon-thu" or "mon,wed,fri", got "mo-th"',
    ),
    (
        stepped(LAST, more=', change_window = { hours = ‹"9-17"› }'),
        f'{POLICY}.change_window.hours must be hours such as "09:00-17:00", got "9-17"',
    ),
    (
        with_policy('{ kind = "rollout", stable = "v1", candidate = "v2", steps = ‹[]› }'),
        f"{STEPS} has no step; write at least one, as in [{{ share = 1.0 }}]",
    ),
    (
        with_policy('{ kind = "rollout", stable = "v1", candidate = ‹"v1"›, steps = [{ share = 1.0 }] }'),
        f'{POLICY}.candidate must differ from stable, got "v1" for both; name the new variant',
    ),
    (
        guarded('action = ‹"floor"›', '{ kind = "canary", stable = "v1", candidate = "v2", share = 0.1 }'),
        'routes.digits.guardrails[0].action "floor" is for policies that learn, '
        'and "canary" gives each variant the share that the file says',
    ),
    (
        guarded('action = ‹"pause"›', '{ kind = "canary", stable = "v1", candidate = "v2", share = 0.1 }'),
        'routes.digits.guardrails[0].action "pause" has no effect: the shares of "canary" do not move by themselves',
    ),
    (
        guarded('action = ‹"rolback"›', '{ kind = "canary", stable = "v1", candidate = "v2", share = 0.1 }'),
        'routes.digits.guardrails[0].action must be "rollback", "pause", "floor" or "warn", got "rolback"',
    ),
]


@pytest.mark.parametrize(("text", "message"), MISTAKES, ids=[message for _, message in MISTAKES])
def test_a_mistake_is_refused_alone_and_at_its_place(text: str, message: str) -> None:
    diagnostic, place = only(text)
    assert (diagnostic.severity, diagnostic.message) == ("error", message)
    assert (diagnostic.line, diagnostic.column, diagnostic.width) == place


def test_mistakes_of_several_steps_are_all_named() -> None:
    text = stepped("{ share = 2, hold = 1 }", "{ shar = 0.5 }", "{ share = 1.0, approve = { by = 'two', who = 1 } }")
    assert messages_of(text) == [
        f"{STEPS}[0].share must lie in [0, 1], got 2",
        f"{STEPS}[0].hold must be text in quotes, got 1",
        f'{STEPS}[1]: unknown setting "shar"',
        f'{STEPS}[2].approve.by must be a whole number, got "two"',
        f'{STEPS}[2].approve: unknown setting "who"',
    ]


def test_a_step_that_cannot_be_read_hides_no_mistake_of_another() -> None:
    steps = (
        "{ share = 0.5, hold = '1h' }",
        "{ shar = 0.7, hold = '1h' }",
        "{ share = 0.1, hold = '1h' }",
        "{ share = 0.9 }",
    )
    assert messages_of(stepped(*steps)) == [
        f'{STEPS}[1]: unknown setting "shar"',
        f"{STEPS}[2].share must be more than that of step 1, 0.5, got 0.1: a rollout sends no unit back",
        f"{STEPS}[3].share is that of the last step, which must be share = 1.0: done means that all get the candidate",
    ]


@pytest.mark.parametrize("action", ["rollback", "pause", "floor", "warn"])
def test_a_bandit_takes_every_action(action: str) -> None:
    policy = '{ kind = "thompson", variants = ["v1", "v2"], reward = "click" }'
    assert messages_of(guarded(f'action = "{action}"', policy)) == []


@pytest.mark.parametrize("action", ["rollback", "pause", "warn"])
def test_a_rollout_rolls_back_pauses_or_warns(action: str) -> None:
    policy = '{ kind = "rollout", stable = "v1", candidate = "v2", steps = [{ share = 1.0 }] }'
    assert messages_of(guarded(f'action = "{action}"', policy)) == []


def test_failures_can_be_waited_for_on_every_route() -> None:
    assert messages_of(stepped("{ share = 0.1, clean = ['failures'] }", LAST)) == []


def test_a_fallback_to_the_stable_variant_has_an_effect_in_later_steps() -> None:
    route = f'{ROUTE}fallback = "v1"\n'
    assert messages_of(stepped("{ shadow = 1.0, hold = '1h' }", LAST, route=route)) == []
