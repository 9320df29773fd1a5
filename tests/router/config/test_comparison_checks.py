"""What a route compares: what is refused, what is doubtful, and what is neither."""

from __future__ import annotations

import pytest

from router.config.diagnostics import Diagnostic
from router.settings.declared import FAILURES, MEASURES, Guardrail, guardrails_in_force, in_milliseconds
from tests.router.builders import ROUTE, SMALL, changed, config_of, diagnostics_of, with_policy

TEST = "routes.digits.test"
GUARDRAIL = "routes.digits.guardrails[0]"
NAMES = '"correct", "click"'
CANARY = '{ kind = "canary", stable = "v1", candidate = "v2", share = 0.05 }'
SINGLE = '{ kind = "single", variant = "v1" }'
THOMPSON = '{ kind = "thompson", variants = ["v1", "v2"], reward = "click" }'
STICKY = changed(THOMPSON, (" }", ", sticky = true }"))
SHADOW = '{ kind = "shadow", primary = "v1", shadows = { v2 = 1.0 } }'


def the_one(text: str) -> Diagnostic:
    [found] = diagnostics_of(text)
    return found


def in_test(text: str, policy: str = CANARY) -> str:
    return with_policy(policy, f"{ROUTE}test = {{ {text} }}\n")


def guarded(*guardrails: str, policy: str = CANARY, names: str = NAMES) -> str:
    tables = ", ".join(f"{{ {guardrail} }}" for guardrail in guardrails)
    return with_policy(policy, f"{changed(ROUTE, (NAMES, names))}guardrails = [{tables}]\n")


def in_metric(text: str) -> str:
    return f"{SMALL}\n[metrics.more]\n{text}\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            in_test("smallest_effect = 0.02, units = 9000"),
            f"{TEST}.units and smallest_effect are both given: a test is planned for an effect, or for an end",
        ),
        (
            in_test('units = 9000, until = "2026-12-24"'),
            f"{TEST}.until and units are both given: both say when it ends",
        ),
        (
            in_test("units = 9000, expected_units = 500"),
            f"{TEST}.expected_units has no effect with units: the test is tuned to that already",
        ),
        (
            in_test("smallest_effect = 1"),
            f'{TEST}.smallest_effect must be less than 1, all that "correct" can differ, got 1',
        ),
        (
            in_test("smallest_effect = 0"),
            f"{TEST}.smallest_effect must be greater than 0, and at most 1e+15, got 0",
        ),
        (in_test("alpha = 0.3"), f"{TEST}.alpha must be greater than 0, and at most 0.2, got 0.3"),
        (
            in_test('until = "Christmas"'),
            f'{TEST}.until must be a date, "2026-03-31", or a time with its zone, "2026-03-31T12:00:00Z", '
            'got "Christmas"',
        ),
        (
            in_test("until = 2026-03-31T12:00:00"),
            f'{TEST}.until must be a date, "2026-03-31", or a time with its zone, "2026-03-31T12:00:00Z", '
            "got a date or time",
        ),
        (
            changed(in_test("smallest_effect = 5"), (NAMES, "")),
            f"{TEST}.smallest_effect has no effect: the route has no metric",
        ),
        (
            in_test("units = 9", SINGLE),
            f"{TEST} has no effect: the route has one variant, and nothing to compare it with",
        ),
        (
            guarded('metric = "clik", limit = 0.1'),
            f'{GUARDRAIL}.metric must be one of the route\'s metrics, or "failures", "client_errors", '
            '"latency_ms.p50", "latency_ms.p90", "latency_ms.p95" or "latency_ms.p99", got "clik"',
        ),
        (
            guarded('metric = "seconds", limit = 0.1'),
            f'{GUARDRAIL}.metric must be one of the route\'s metrics, or "failures", "client_errors", '
            '"latency_ms.p50", "latency_ms.p90", "latency_ms.p95" or "latency_ms.p99", got "seconds"',
        ),
        (
            guarded('metric = "correct"'),
            f"{GUARDRAIL} needs worse_by, against the baseline, or limit, for each variant alone",
        ),
        (
            guarded('metric = "correct", worse_by = 0.1, limit = 0.5'),
            f"{GUARDRAIL}.limit and worse_by are both given; two bounds are two guardrails",
        ),
        (
            guarded('metric = "correct", limit = 1.5'),
            f'{GUARDRAIL}.limit must lie in [0, 1], as "correct" does, got 1.5',
        ),
        (
            guarded('metric = "latency_ms.p95", limit = -1'),
            f'{GUARDRAIL}.limit must lie in [0, inf], as "latency_ms.p95" does, got -1',
        ),
        (
            guarded('metric = "failures", worse_by = 1'),
            f'{GUARDRAIL}.worse_by must be less than 1, all that "failures" can differ, got 1',
        ),
        (
            guarded('metric = "failures", worse_by = 0', 'metric = "failures", worse_by = 0.1'),
            'routes.digits.guardrails[1].metric has worse_by for "failures" again; each metric has one of it',
        ),
        (
            guarded('metric = "failures", limit = 0.1', policy=SINGLE),
            f"{GUARDRAIL} has no effect: the route has one variant, and nothing to compare it with",
        ),
        (
            in_metric('kind = "event"\nmissing = 0\nmature = "arrival"'),
            "metrics.more.mature would make a variant with slow feedback look other than it is: what has an event "
            "counts at once, what has none counts as 0 when its window closes",
        ),
        (
            in_metric('kind = "event"\ncap = 1'),
            'metrics.more.cap has no meaning for kind = "event": only values can be cut',
        ),
        (in_metric('kind = "value"\ncap = 0'), "metrics.more.cap must be greater than 0, and at most 1e+15, got 0"),
        (in_metric('kind = "value"\nrange = [0, 9]\ncap = 9'), "metrics.more.cap has no effect: range ends at 9"),
        (
            in_metric('kind = "value"\nrange = [5, 9]\ncap = 4'),
            "metrics.more.cap must be above 5, where range begins, got 4",
        ),
        (in_metric('kind = "value"\nmissing = 3\ncap = 2'), "metrics.more.missing must be at most cap, 2, got 3"),
        (
            in_metric('kind = "value"\nfold = "sum"\nrange = [-1, 9]\ncap = 4'),
            "metrics.more.range cannot be held by a sum of any number of events; leave it out",
        ),
    ],
)
def test_what_cannot_be_kept_is_refused(text: str, message: str) -> None:
    found = the_one(text)
    assert (found.severity, found.message) == ("error", message)


def test_a_metric_named_like_a_measure_is_refused_where_a_guardrail_names_it() -> None:
    named = changed(
        guarded('metric = "failures", limit = 0.5', names='"correct", "failures"'),
        ("metrics.click", "metrics.failures"),
    )
    assert "is both a metric of the route and built in" in the_one(named).message
    assert diagnostics_of(changed(SMALL, ("metrics.click", "metrics.failures"), ('"click"', '"failures"'))) == ()


@pytest.mark.parametrize(
    ("text", "path", "says", "hint"),
    [
        (
            changed(SMALL, ("missing = 0\n", "")),
            "routes.digits.metrics[1]",
            'of "click" only requests with an event count',
            "write missing = 0 in [metrics.click]",
        ),
        (
            changed(SMALL, ('"correct", "click"', '"seconds"')),
            "routes.digits.metrics[0]",
            'values of "seconds" have no bound',
            "write cap, the most that one prediction counts for, or range in [metrics.seconds]",
        ),
        (
            with_policy(STICKY),
            "routes.digits.policy",
            "keeps a unit with its variant while the shares move",
            "leave sticky out",
        ),
        (
            with_policy(SHADOW, changed(ROUTE, ('"correct", "click"', '"click"'))),
            "routes.digits.metrics",
            "copies are judged by labels alone",
            'add a metric with kind = "label"',
        ),
        (
            changed(
                guarded('metric = "seconds", limit = 5', names='"seconds"'),
                ('kind = "value"', 'kind = "value"\ncap = 9'),
            ),
            f"{GUARDRAIL}.metric",
            'bounds "seconds" from below',
            'write better = "lower", or "higher", in [metrics.seconds]',
        ),
        (
            in_test("units = 9000", THOMPSON),
            f"{TEST}.units",
            "has no effect: this policy is decided by an e-process",
            None,
        ),
    ],
)
def test_what_is_doubtful_is_said_with_the_key_that_mends_it(text: str, path: str, says: str, hint: str | None) -> None:
    found = the_one(text)
    assert (found.severity, found.path, found.hint) == ("warning", path, hint)
    assert says in found.message


@pytest.mark.parametrize(
    "text",
    [
        in_test("smallest_effect = 0.02, expected_units = 9000, alpha = 0.2"),
        in_test("until = 2026-12-24"),
        in_test("alpha = 0.01"),
        in_test("smallest_effect = 0.01", THOMPSON),
        guarded(
            'metric = "correct", worse_by = 0', 'metric = "correct", limit = 0.5', 'metric = "failures", limit = 1'
        ),
        guarded('metric = "latency_ms.p99", worse_by = 100', policy=SHADOW),
        in_metric('kind = "value"\nfold = "sum"\nmissing = 0\nrange = [0, 1000]\ncap = 200'),
        with_policy(SHADOW),
        with_policy(SINGLE, changed(ROUTE, ('"correct", "click"', '"seconds"'))),
    ],
)
def test_what_is_right_is_not_remarked_upon(text: str) -> None:
    assert diagnostics_of(text) == ()


@pytest.mark.parametrize(
    ("written", "ms"),
    [
        ("2026-12-24", 1_798_070_400_000),
        ('"2026-12-24"', 1_798_070_400_000),
        ('"2026-12-24T01:00:00+01:00"', 1_798_070_400_000),
        ("2026-12-24T00:00:00.5Z", 1_798_070_400_500),
    ],
)
def test_an_end_is_a_date_or_a_time_as_text_or_as_toml_writes_it(written: str, ms: int) -> None:
    test = config_of(in_test(f"until = {written}")).routes["digits"].test
    assert test is not None
    assert test.until == ms


def test_failures_are_guarded_everywhere_and_as_declared_where_they_are() -> None:
    slow, own = Guardrail(metric="latency_ms.p95", limit=9.0), Guardrail(metric="failures", limit=0.2)
    assert guardrails_in_force(()) == (FAILURES,)
    assert guardrails_in_force((slow,)) == (FAILURES, slow)
    assert guardrails_in_force((slow, own)) == (slow, own)


def test_only_the_built_in_measures_of_time_are_in_milliseconds() -> None:
    """A metric of one's own may be called "latency_score", and is shown as any other."""
    assert [name for name in (*MEASURES, "latency_score", "latency") if in_milliseconds(name)] == [
        "latency_ms.p50",
        "latency_ms.p90",
        "latency_ms.p95",
        "latency_ms.p99",
    ]
