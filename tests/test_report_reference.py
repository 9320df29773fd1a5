"""The reference of a report's JSON names every field that a report can have, and no other."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from gateway.admin.api.reports import freeze
from gateway.control.steer.standing_view import stands
from gateway.files.overrides import Override
from gateway.report import report
from gateway.store.counts.ledger import CALLS, TallyKey
from policies.plans import Mirror, Weighted
from policies.rollouts.ladder import Stage
from policies.rollouts.rollout import Rollout
from policies.rollouts.standing import Findings, Standing
from policies.statistics.sample_ratio import Cause
from policies.types import Tally
from router.snapshot import DeclaredTest, Guardrail, Snapshot
from tests.gateway.admin.samples import POLICIES, filled_control
from tests.gateway.ledgers import Book, draft_route, route, shadow_route, snapshot

PAGE = (Path(__file__).parent.parent / "docs" / "reference" / "report.md").read_text()


def fields(value: Any, path: str = "") -> Iterator[str]:
    """The path of every value that is neither an object nor a list; of an empty one there is none."""
    if isinstance(value, dict):
        for key, one in value.items():
            yield from fields(one, f"{path}.{key}" if path else key)
    elif isinstance(value, list):
        for one in value:
            yield from fields(one, f"{path}[]")
    else:
        yield path


def reports() -> Iterator[dict[str, Any]]:
    """Reports that together have every field."""
    fake = filled_control()
    for name, book in fake.books.items():
        yield report(fake.snapshot, book, POLICIES.get(name))
    held = Book().rate("old", "correct", 500, 1_000).rate("new", "correct", 510, 1_000)
    held.rate("old", "correct", 300, 1_000, role="holdout").stretch({"old": 900, "new": 100}, {"old": 0.5, "new": 0.5})
    held.faults = {("new", "primary", "timeout"): 3}
    held.tallies[TallyKey(1_000, "old", "1.2.0", "primary", "", CALLS, "", "live", 0)] = Tally.of_units([(0, 1)] * 9)
    bound, test = Guardrail(metric="correct", worse_by=0.05), DeclaredTest(smallest_effect=0.02)
    given = snapshot(route(holdout="q4", holdout_share=0.1, holdout_salt="h", test=test, guardrails=(bound,)))
    yield report(given, held.ledger(), None, Cause("region", "eu", {"old": 9}, {"old": 5.0}))
    drafts = Book("search").votes("new", "click", 300, 200)
    drafts.put("new", "@first", Tally.of_units([(1, 1), (-1, 1)]), phase="live", role="draft", against="old")
    yield report(snapshot(draft_route()), drafts.ledger())
    yield report(with_a_second_copy(), copies().ledger())
    yield {"rollout": moved(), "freeze": freeze(Override(to="old", at_ms=1, who="ann", why="it is bad"))}


def moved() -> dict[str, Any] | None:
    """Where a route stands of which everything can be said."""
    policy = Rollout(stable="old", candidate="new", steps=(Stage(share=0.5, units=9), Stage(share=1.0)))
    detail = {"because": "it is bad", "by_hand": {"verb": "pause", "who": "ann", "at_ms": 1}}
    now = Standing(
        number=3, state="paused", since_ms=1, changed_ms=2, held={"new": "out"}, of={"new": "1"}, detail=detail
    )
    seen = {"new": 3}
    event = {
        "at_ms": 1,
        "number": 3,
        "change": "paused",
        "detail": "why",
        "variant": "new",
        "author": "ann",
        "via": "api",
    }
    given = replace(route(), standing=now)
    events = [{"route": given.name, "move": {}, **event}]
    year = 365 * 86_400_000  # three units in a year: nine are out of reach
    return stands(given, policy, Findings(units=seen, calls=seen, pairs=seen), seen, events, year)


def with_a_second_copy() -> Snapshot:
    plan = Weighted((("old", 1.0),), mirrors=(Mirror("new", 1.0), Mirror("third", 1.0)))
    one = route("shadow", plan, variants=("old", "new", "third"))
    given = snapshot(replace(shadow_route(), plan=one.plan, variants=one.variants))
    backends = {**given.backends, "third": replace(given.backends["old"], name="third")}
    return replace(given, backends=backends)


def copies() -> Book:
    book = Book().rate("old", "correct", 80, 100)
    for name in ("new", "third"):
        book.calls(name, 100, role="shadow")
        for measure in ("@agreement", "@distance"):
            book.put(name, measure, Tally.of_units([(1, 1)] * 9 + [(0, 1)]), phase="live", role="shadow")
    moved = {key: tally for key, tally in book.tallies.items() if key.variant == "third"}
    book.tallies |= {key._replace(version="1.3.0"): tally for key, tally in moved.items()}
    return book


def test_the_reference_names_every_field_of_a_report_and_no_other() -> None:
    rows = re.findall(r"^\| (`.+?) \|", PAGE, re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"`([^`]+)`", row)}
    patterns = {name: re.compile(re.escape(name).replace(r"\*", "[^.]+")) for name in named}
    found = {path for one in reports() for path in fields(one) if not path.startswith("verdict.comparisons[]")}
    # What an object may be null instead of is named by the fields of the object.
    objects = {name.rsplit(".", depth)[0] for name in named for depth in range(1, name.count(".") + 1)}
    known = [re.compile(re.escape(name).replace(r"\*", "[^.]+")) for name in objects]
    assert sorted(path for path in found if not any(one.fullmatch(path) for one in (*patterns.values(), *known))) == []
    assert sorted(name for name, one in patterns.items() if not any(map(one.fullmatch, found))) == []
