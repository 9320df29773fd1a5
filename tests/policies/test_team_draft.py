"""Team draft and competitive pairs: exact distributions, where drafting stops, and that chance favours no ranker."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from fractions import Fraction
from itertools import combinations, permutations, product
from math import sqrt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.plans import CompetitivePairs, Slot, TeamDraft, competitive_pairs, team_draft
from policies.types import Occasion
from router.merge import placements

Lists = Sequence[Sequence[str]]
Outcome = tuple[str, str]  # the items shown, and the ranker credited per slot ("-" for none)


def outcome(lists: Lists, slots: Sequence[Slot]) -> Outcome:
    items = "".join(lists[slot.source][slot.position] for slot in slots)
    return items, "".join("-" if slot.credit is None else str(slot.credit) for slot in slots)


def distribution(lists: Lists, length: int) -> dict[Outcome, Fraction]:
    """Every outcome with its exact probability: all permutations of all turns, each as likely as any other."""
    turns = length + 1
    orders = list(permutations(range(len(lists))))
    found: dict[Outcome, Fraction] = {}
    for draw in product(orders, repeat=turns):
        seen = outcome(lists, team_draft(lists, length, draw.__getitem__))
        found[seen] = found.get(seen, Fraction(0)) + Fraction(1, len(orders) ** turns)
    return found


QUARTER, SIXTH, HALF = Fraction(1, 4), Fraction(1, 6), Fraction(1, 2)
ROWS: list[tuple[Lists, int, dict[Outcome, Fraction]]] = [
    (
        ["123", "231"],
        3,
        {("123", "010"): QUARTER, ("123", "011"): QUARTER, ("213", "100"): QUARTER, ("213", "101"): QUARTER},
    ),
    (
        ["12", "34"],
        3,
        {("132", "010"): QUARTER, ("134", "011"): QUARTER, ("312", "100"): QUARTER, ("314", "101"): QUARTER},
    ),
    # Ranker 0 has no items left after one round: the third slot is filled without credit.
    (["12", "23"], 3, {("123", "01-"): HALF, ("213", "10-"): HALF}),
    (
        ["12", "23", "34"],
        2,
        {
            ("12", "01"): SIXTH,
            ("13", "02"): SIXTH,
            ("21", "10"): SIXTH,
            ("23", "12"): SIXTH,
            ("31", "20"): SIXTH,
            ("32", "21"): SIXTH,
        },
    ),
]


@pytest.mark.parametrize(("lists", "length", "expected"), ROWS)
def test_every_outcome_has_its_exact_probability(lists: Lists, length: int, expected: dict[Outcome, Fraction]) -> None:
    """Radlinski, Kurup & Joachims 2008; by hand."""
    assert distribution(lists, length) == expected


@pytest.mark.parametrize(("lists", "length", "expected"), ROWS)
def test_hashed_coins_give_these_probabilities(lists: Lists, length: int, expected: dict[Outcome, Fraction]) -> None:
    plan = TeamDraft(("a", "b", "c")[: len(lists)], "", "", length)
    drafts = (plan.draft(lists, Occasion("route", "user", f"request-{i}")) for i in range(12_000))
    counts = Counter(outcome(lists, slots) for slots in drafts)
    assert set(counts) == set(expected)
    for seen, probability in expected.items():
        p = float(probability)
        assert abs(counts[seen] - 12_000 * p) < 4 * sqrt(12_000 * p * (1 - p))


CASES: list[tuple[Lists, int]] = [
    *((lists, length) for lists, length, _ in ROWS),
    (["abc", "cba"], 3),
    (["abcd", "bcda"], 3),
    (["ab", "abcdef"], 4),
    (["a", ""], 2),
    (["abc", "bca", "cab"], 3),
    (["a", "bcd", "efg"], 5),
    (["", "abc", "bcd"], 4),
    (["ab", "bcde", "abfg"], 6),
    (["abcd", "bad", "dc"], 5),
]


def rounds(slots: Sequence[Slot], ranker: int, other: int) -> list[tuple[int, int]]:
    """The places of two rankers' items in each round that both took part in."""
    ours, theirs = ([at for at, slot in enumerate(slots) if slot.credit == one] for one in (ranker, other))
    return list(zip(ours, theirs, strict=False))


@pytest.mark.parametrize(("lists", "length"), CASES)
def test_a_click_at_any_place_favours_no_ranker(lists: Lists, length: int) -> None:
    """However clicks depend on the place: in the rounds of two rankers, each place is as often one's as the other's."""
    orders = list(permutations(range(len(lists))))
    held: Counter[tuple[int, int, int, int]] = Counter()
    for draw in product(orders, repeat=min(length, 4)):
        slots = team_draft(lists, length, [*draw, orders[0]].__getitem__)
        for one, other in combinations(range(len(lists)), 2):
            for mine, theirs in rounds(slots, one, other):
                held[one, other, mine, 0] += 1
                held[one, other, theirs, 1] += 1
    assert all(held[one, other, at, 0] == held[one, other, at, 1] for one, other, at, _ in list(held))


@pytest.mark.parametrize(("lists", "length"), CASES)
def test_what_must_be_even_of_a_draft_is(lists: Lists, length: int) -> None:
    """Over all orders the mean of every measure is 0, of team drafts and of pairs, and never beyond 1."""
    orders = list(permutations(range(len(lists))))
    drawn = [
        team_draft(lists, length, [*draw, orders[0]].__getitem__) for draw in product(orders, repeat=min(length, 4))
    ]
    pairs = [competitive_pairs(lists, length, order) for order in orders] if len(lists) == 2 else []
    for merged in (drawn, pairs):
        total: dict[tuple[str, str, str], list[float]] = {}
        for slots in merged:
            ids = [lists[slot.source][slot.position] for slot in slots]
            items = {
                str(one): [item for item, slot in zip(ids, slots, strict=True) if slot.credit == one]
                for one in range(len(lists))
            }
            for *place, value in placements(items, ids):
                total.setdefault(tuple(place), []).append(value)  # type: ignore[arg-type]
        assert all(abs(sum(values)) < 1e-9 and max(map(abs, values)) <= 1 for values in total.values())


@pytest.mark.parametrize(("lists", "length"), [case for case in CASES if len(case[0]) == 2])
def test_pairs_stand_together_and_either_item_may_be_first(lists: Lists, length: int) -> None:
    drawn = [rounds(competitive_pairs(lists, length, order), 0, 1) for order in ((0, 1), (1, 0))]
    assert all(theirs == mine + 1 for mine, theirs in drawn[0])
    assert drawn[1] == [(theirs, mine) for mine, theirs in drawn[0]]


def test_competitive_pairs_of_the_paper() -> None:
    """Zhang et al. 2025, section 3: control a b c d e, treatment b c a f g."""
    lists = ["abcde", "bcafg"]
    assert outcome(lists, competitive_pairs(lists, 5, (0, 1))) == ("abcdf", "01-01")
    assert outcome(lists, competitive_pairs(lists, 5, (1, 0))) == ("bacfd", "10-10")
    # Half a pair has room, then what is left of the longer list: nobody's.
    assert outcome(lists, competitive_pairs(lists, 4, (0, 1))) == ("abcd", "01--")
    assert outcome(["ab", "cdefg"], competitive_pairs(["ab", "cdefg"], 6, (1, 0))) == ("cadbef", "1010--")


def test_equal_lists_make_no_pair() -> None:
    assert outcome(["abc", "abc"], competitive_pairs(["abc", "abc"], 3, (1, 0))) == ("abc", "---")


def test_the_first_of_each_pair_is_one_fair_coin_per_request() -> None:
    plan = CompetitivePairs(("a", "b"), "", "", 4)
    shown = Counter(
        outcome(["12", "34"], plan.draft(["12", "34"], Occasion("s", "user", f"{i}")))[0] for i in range(2_000)
    )
    assert set(shown) == {"1324", "3142"}
    assert abs(shown["1324"] - 1_000) < 4 * sqrt(500)


id_lists = st.lists(st.lists(st.sampled_from("abcdefgh"), max_size=10), min_size=2, max_size=4)


@given(lists=id_lists, length=st.integers(1, 10), request=st.text(max_size=5))
def test_a_merged_list_is_full_free_of_repeats_and_true_to_its_sources(
    lists: list[list[str]], length: int, request: str
) -> None:
    plan = TeamDraft(tuple("wxyz"[: len(lists)]), "", "", length)
    slots = plan.draft(lists, Occasion("route", None, request))
    items = [lists[slot.source][slot.position] for slot in slots]
    assert len(items) == len(set(items)) == min(length, len(set().union(*lists)))
    assert all(lists[s.source].index(item) == s.position for s, item in zip(slots, items, strict=True))
    assert all(slot.credit in (slot.source, None) for slot in slots)


@given(lists=id_lists, length=st.integers(1, 10), request=st.text(max_size=5))
def test_every_item_of_a_draft_has_a_competitor_until_filling_begins(
    lists: list[list[str]], length: int, request: str
) -> None:
    """Only the last round, where the list is full, may leave one ranker alone."""
    plan = TeamDraft(tuple("wxyz"[: len(lists)]), "", "", length)
    teams = [slot.credit for slot in plan.draft(lists, Occasion("route", None, request))]
    owned = sorted((teams.count(ranker) for ranker in range(len(lists))), reverse=True)
    assert owned[0] - owned[1] <= 1
    drafted = len(teams) - teams.count(None)
    assert None not in teams[:drafted]


@given(both=st.lists(st.permutations("abcdefgh"), min_size=2, max_size=2), more=id_lists, request=st.text(max_size=5))
def test_a_draft_goes_on_while_two_rankers_have_items(
    both: list[list[str]], more: list[list[str]], request: str
) -> None:
    plan = TeamDraft(tuple("uvwxyz"[: 2 + len(more)]), "", "", 6)
    assert all(slot.credit is not None for slot in plan.draft([*both, *more], Occasion("route", None, request)))


def test_two_rankers_of_the_same_list_share_every_pair_of_slots() -> None:
    for i in range(50):
        teams = [s.credit for s in TeamDraft(("a", "b"), "", "", 4).draft(["1234"] * 2, Occasion("s", None, f"{i}"))]
        assert sorted(filter(lambda t: t is not None, teams[:2])) == [0, 1]  # type: ignore[type-var]
        assert sorted(filter(lambda t: t is not None, teams[2:])) == [0, 1]  # type: ignore[type-var]


def test_filling_alternates_and_either_ranker_may_begin() -> None:
    lists = ["", "abc", "efgh"]
    plan = TeamDraft(("dry", "one", "two"), "", "", 6)
    shown = {outcome(lists, plan.draft(lists, Occasion("s", None, f"{i}"))) for i in range(100)}
    assert {items for items, _ in shown} == {
        "".join(turns) for turns in product(("ae", "ea"), ("bf", "fb"), ("cg", "gc"))
    }
    assert all(teams[4:] == "--" and "-" not in teams[:4] for _, teams in shown)


def test_a_repeated_id_counts_where_it_stands_first() -> None:
    slots = TeamDraft(("a", "b"), "", "", 4).draft(["1121", "3434"], Occasion("s", None, "r"))
    assert {(s.source, s.position) for s in slots} == {(0, 0), (0, 2), (1, 0), (1, 1)}


def test_one_unit_gets_fresh_coins_with_every_request() -> None:
    plan = TeamDraft(("a", "b"), "", "", 2)
    first = {plan.draft(["12", "34"], Occasion("s", "user", f"{i}"))[0].credit for i in range(20)}
    assert first == {0, 1}


def test_the_same_request_is_drafted_the_same_again() -> None:
    plan = TeamDraft(("a", "b"), "", "", 6)
    occasion = Occasion("s", "user", "request")
    assert plan.draft(["123456", "654321"], occasion) == plan.draft(["123456", "654321"], occasion)


def test_a_list_too_few_is_the_callers_mistake() -> None:
    with pytest.raises(ValueError, match="3 rankers needs as many lists, got 2"):
        TeamDraft(("a", "b", "c"), "", "", 2).draft(["1", "2"], Occasion("s", None, "r"))
