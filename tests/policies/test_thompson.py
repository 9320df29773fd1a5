"""Thompson: shares are exact probabilities of being best, never below the floor."""

from __future__ import annotations

from math import fsum, inf, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies import Thompson
from policies.types import Evidence, Path, StretchTallies, Tally
from tests.policies.examples import rate_tally

COUNTS = st.integers(0, 2_000).flatmap(lambda trials: st.tuples(st.integers(0, trials), st.just(trials)))


def thompson(
    variants: tuple[str, ...] = ("a", "b", "c"),
    reward: str = "click",
    floor: float = 0.02,
    prior: tuple[float, float] = (1.0, 1.0),
) -> Thompson:
    return Thompson(variants=variants, reward=reward, floor=floor, prior=prior)


def learned(**counts: tuple[int, int]) -> Evidence:
    """Evidence of (successes, trials) per variant."""
    return Evidence({(variant, "click"): rate_tally(*pair) for variant, pair in counts.items()})


def test_without_evidence_everyone_gets_the_same() -> None:
    assert thompson().plan(Evidence()).shares == pytest.approx(dict.fromkeys("abc", 1 / 3), abs=1e-12)


def test_the_floor_is_mixed_in_by_hand() -> None:
    """Beta(21,81), Beta(26,76), Beta(16,86): P(best) in exact rationals, then (1 − 3ε)π + ε."""
    shares = thompson(floor=0.05).plan(learned(a=(20, 100), b=(25, 100), c=(15, 100))).shares
    best = {"a": 0.193728320983, "b": 0.782656150058, "c": 0.0236155289592}
    assert shares == pytest.approx({name: 0.85 * p + 0.05 for name, p in best.items()}, abs=1e-9)


@given(a=COUNTS, b=COUNTS, c=COUNTS, floor=st.floats(0, 1 / 3))
def test_the_floor_holds_the_order_stays_and_shares_sum_to_1(
    a: tuple[int, int], b: tuple[int, int], c: tuple[int, int], floor: float
) -> None:
    """Clipping and renormalising falls below the floor: (1, 0, 0) with 0.01 would give 0.0098."""
    evidence = learned(a=a, b=b, c=c)
    shares = thompson(floor=floor).plan(evidence).shares
    best = thompson(floor=0.0).plan(evidence).shares
    assert min(shares.values()) >= floor - 1e-15
    assert fsum(shares.values()) == pytest.approx(1, abs=1e-12)
    assert all(shares[x] <= shares[y] + 1e-12 for x in "abc" for y in "abc" if best[x] <= best[y])


def test_the_better_variant_gets_more_as_evidence_grows() -> None:
    shares = [thompson().plan(learned(a=(n, 10 * n), b=(2 * n, 10 * n), c=(n, 10 * n))).shares["b"] for n in (0, 5, 50)]
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(1 - 2 * 0.02, abs=1e-3)


def stretch(share: float, a: tuple[int, int], b: tuple[int, int]) -> StretchTallies:
    """A stretch in which "a" had this share, with (successes, trials) of both."""
    tallies = {("a", "click"): rate_tally(*a), ("b", "click"): rate_tally(*b)}
    return StretchTallies({"a": share, "b": 1 - share}, tallies)


def of(*stretches: StretchTallies) -> Evidence:
    pooled = {
        key: sum((one.tallies[key] for one in stretches), Tally()) for one in stretches[:1] for key in one.tallies
    }
    return Evidence(pooled, stretches)


def test_a_cycle_is_not_taken_for_quality() -> None:
    """Both have 10 % at first and 40 % later, when "b" has most of the traffic."""
    cycle = of(stretch(0.9, (90, 900), (10, 100)), stretch(0.1, (40, 100), (360, 900)))
    policy = thompson(("a", "b"))
    assert policy.plan(cycle).shares == pytest.approx({"a": 0.5, "b": 0.5}, abs=0.05)
    assert policy.plan(Evidence(cycle.tallies)).shares["b"] > 0.97


def test_at_constant_shares_stretches_teach_what_their_sum_does() -> None:
    parts = of(stretch(0.3, (9, 90), (30, 210)), stretch(0.3, (50, 120), (100, 280)))
    policy = thompson(("a", "b"))
    assert policy.plan(parts).shares == pytest.approx(policy.plan(Evidence(parts.tallies)).shares, abs=1e-12)


def test_a_newcomer_keeps_its_prior() -> None:
    """Nothing is known of it, whatever the others did before."""
    parts = of(stretch(0.3, (9, 90), (30, 210)), stretch(0.6, (50, 120), (40, 80)))
    assert thompson(("a", "b", "c")).posteriors(parts)[2] == (1, 1)


def test_only_the_reward_teaches() -> None:
    evidence = Evidence({("b", "purchase"): rate_tally(900, 1_000)})
    assert thompson().plan(evidence).shares == thompson().plan(Evidence()).shares


def test_the_names_of_the_variants_do_not_matter() -> None:
    one = thompson(("a", "b")).plan(learned(a=(10, 50), b=(20, 50))).shares
    other = thompson(("b", "a")).plan(learned(b=(10, 50), a=(20, 50))).shares
    assert one["a"] == pytest.approx(other["b"], abs=1e-12)


def test_a_strong_prior_is_moved_less() -> None:
    evidence = learned(a=(10, 50), b=(20, 50))
    weak = thompson(("a", "b")).plan(evidence).shares["b"]
    strong = thompson(("a", "b"), prior=(100.0, 200.0)).plan(evidence).shares["b"]
    assert 0.5 < strong < weak


def test_values_of_a_unit_count_one_by_one() -> None:
    of_units = Tally.of_units([(5, 20), (3, 10)])
    assert thompson().posterior(of_units) == (9, 23)


@pytest.mark.parametrize(
    ("tally", "posterior"),
    [
        (rate_tally(5, 3), (4, 1)),
        (rate_tally(-2, 3), (1, 4)),
        (rate_tally(2, -3), (1, 1)),
        (Tally(n=1, m=nan, d=3), (1, 1)),
        (Tally(n=1, m=1, d=inf), (1, 1)),
    ],
)
def test_impossible_evidence_is_clamped_or_ignored(tally: Tally, posterior: tuple[float, float]) -> None:
    assert thompson().posterior(tally) == posterior


def test_it_adapts_is_randomised_and_its_first_variant_is_the_baseline() -> None:
    policy = thompson()
    assert (policy.adaptive, policy.randomised, policy.baseline, policy.by_unit) == (True, True, "a", False)
    assert Thompson(variants=("a", "b"), reward="click", sticky=True).by_unit


def test_variants_and_reward_are_required() -> None:
    """A member of Policy has the same name as each, and must not become its default."""
    with pytest.raises(TypeError, match="missing 2 required keyword-only arguments: 'variants' and 'reward'"):
        Thompson()  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("policy", "path", "message"),
    [
        (thompson(variants=("a",)), ("variants",), 'needs at least two different variants, got "a"'),
        (thompson(variants=("a", "b", "b")), ("variants", 2), '"b" is named twice; name each of the variants once'),
        (thompson(reward=""), ("reward",), 'names no metric, got ""; name one that is scored 0/1'),
        (thompson(floor=0.34), ("floor",), "must lie in [0, 0.3333] (1 / 3 variants), got 0.34"),
        (thompson(floor=-0.1), ("floor",), "must lie in [0, 0.3333] (1 / 3 variants), got -0.1"),
        (thompson(floor=nan), ("floor",), "must lie in [0, 0.3333] (1 / 3 variants), got nan"),
        (thompson(prior=(0.0, 1.0)), ("prior", 0), "must be a positive finite number, got 0.0"),
        (thompson(prior=(1.0, inf)), ("prior", 1), "must be a positive finite number, got inf"),
        (thompson(prior=(1.0, nan)), ("prior", 1), "must be a positive finite number, got nan"),
    ],
)
def test_a_wrong_setting_is_named(policy: Thompson, path: Path, message: str) -> None:
    (problem,) = policy.problems()
    assert (problem.path, problem.message) == (path, message)


def test_a_floor_of_one_in_k_is_the_uniform_share() -> None:
    policy = thompson(floor=1 / 3)
    assert policy.problems() == ()
    assert policy.plan(learned(a=(9, 10), b=(0, 10), c=(0, 10))).shares == pytest.approx(dict.fromkeys("abc", 1 / 3))
