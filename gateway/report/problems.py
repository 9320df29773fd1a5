"""What is wrong with a route, in words: how many of how many, since when, and what would mend it.

Rule: a problem is one entry of ``PROBLEMS``, and nothing else names it: report, verdict, console, command line, series
and alert show whatever is found. Fewer than ``LEAST_SEEN`` cases are ignored: anything happens once or twice.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple

from gateway.moments import rfc3339
from gateway.report.account import ANSWERING, SHADOWING, Account, share_interval
from gateway.store.counts.ledger import Seen
from gateway.store.rows.feedback_status import UNKNOWN, Status
from router.outcomes import Inapplicable
from router.records import FROZEN, UNCOUNTED
from router.snapshot import Metric

#: Fewer cases are not reported.
LEAST_SEEN: Final = 10

#: A problem last seen longer ago than this, by the watermark, is reported as past and raises no alert.
ONGOING_MS: Final = 15 * 60_000

#: A share of 4xx that is always a problem; a smaller share is one only where it differs between variants.
MANY_CLIENT_ERRORS: Final = 0.1

#: Shares of variants that are closer than this count as equal.
LEAST_GAP: Final = 0.01

#: A metric that has values for a smaller share of the answers counts as unknown.
LEAST_COVERAGE: Final = 0.05

#: The share of all feedback from which on feedback that belongs to no route is a problem.
LEAST_LOST: Final = 0.01

_LOST: Final = {"orphaned": "name no prediction that is known", "rejected": "were refused"}


class Found(NamedTuple):
    """One thing that is wrong: ``n`` of ``of``. ``variant`` is None if it is the route's; ``seen`` None if not known.

    ``sentence`` says what is wrong, without the numbers; ``mend`` says how to end it.
    """

    variant: str | None
    n: float
    of: float
    seen: Seen | None
    sentence: str
    mend: str


class Problem(NamedTuple):
    """A kind of problem: ``find`` looks for it; a share below ``least`` is not reported."""

    name: str
    least: float
    find: Callable[[Account], Iterable[Found]]


def problems_of(account: Account) -> list[dict[str, Any]]:
    """Return everything that is wrong with a route, as plain JSON values, in the order of the registry."""
    shown = []
    for problem in PROBLEMS:
        for found in problem.find(account):
            of = max(found.n, found.of)
            if found.n >= LEAST_SEEN and found.n >= problem.least * of:
                shown.append(_shown(account, problem, found, of))
    return shown


def warning(found: list[dict[str, Any]]) -> str | None:
    """Return what a reader of the verdict must know first; None if nothing is wrong."""
    if not found:
        return None
    more = len(found) - 1
    first = str(found[0]["sentence"])
    return first + (f" And {more} more thing{'s are' if more > 1 else ' is'} wrong." if more else "")


def is_ongoing(last: str | None, watermark_ms: int | None) -> bool:
    """Return whether a problem that was last seen at this time is still a problem."""
    if last is None or watermark_ms is None:
        return True
    return last >= rfc3339(watermark_ms - ONGOING_MS)  # RFC 3339 times in UTC sort as strings


def of_no_route(ended: Mapping[tuple[str, str, str], int]) -> dict[str, Any] | None:
    """Return the problem of feedback that belongs to no route, as ``problems_of`` has it; None if there is none.

    ``ended`` counts all events by (route, metric, status).
    """
    lost = Counter(dict.fromkeys(_LOST, 0))
    for (route, _, status), n in ended.items():
        if route == UNKNOWN and status in lost:
            lost[status] += n
    n, of = lost.total(), sum(ended.values())
    if n < LEAST_SEEN or n < LEAST_LOST * of:
        return None
    by_status = ", ".join(f"{count:,} {_LOST[status]}" for status, count in lost.most_common() if count)
    return {
        "problem": "feedback_of_no_route",
        "variant": None,
        "n": n,
        "of": of,
        "share": n / of,
        "since": None,
        "last": None,
        "ongoing": True,
        "sentence": f"Feedback belongs to no route: {by_status} ({n:,} of {of:,}, {n / of:.1%}).",
        "mend": "`turnout feedback orphans` lists what names no prediction; a 422 says what was refused and why",
    }


def _shown(account: Account, problem: Problem, found: Found, of: float) -> dict[str, Any]:
    seen = found.seen
    last = None if seen is None else rfc3339(seen.last_ms)
    counted = f"{found.n:,.0f} of {of:,.0f}, {found.n / of:.1%}"
    return {
        "problem": problem.name,
        "variant": found.variant,
        "n": int(found.n),
        "of": int(of),
        "share": found.n / of,
        "since": None if seen is None else rfc3339(seen.first_ms),
        "last": last,
        "ongoing": is_ongoing(last, account.ledger.watermark_ms),
        "sentence": f"{found.sentence} ({counted}).",
        "mend": found.mend,
    }


def _failures(account: Account) -> Iterator[Found]:
    for variant in account.variants:
        if (seen := account.seen(variant, "failed")) is not None:
            what = f"{variant} fails, last with {seen.detail}"
            yield Found(
                variant, seen.n, account.checked(variant), seen, what, "its log says why; the faults below say how"
            )


def _client_errors(account: Account) -> Iterator[Found]:
    for variant in account.variants:
        seen = account.seen(variant, "client_error")
        if seen is None:
            continue
        calls = account.checked(variant)
        others = [other for other in account.variants if other != variant and account.calls(other, ANSWERING).d]
        theirs = sum(one.n for other in others if (one := account.seen(other, "client_error")) is not None)
        answered = sum(account.checked(other, ANSWERING) for other in others)
        if seen.n < MANY_CLIENT_ERRORS * calls and not _stands_out(account, variant, seen.n, others, theirs):
            continue
        beside = f"; of the others' answers {theirs / answered:.1%} are" if answered else ""
        what = f"{variant} answers with a 4xx, last {seen.detail}{beside}"
        mend = f"look at backends.{variant}: its url, path and request_headers; 4xx are no failures"
        if account.snapshot.backends[variant].client_errors == "fail":
            mend = f"look at backends.{variant}: its url, path and request_headers; 4xx count as its failures"
        yield Found(variant, seen.n, calls, seen, what, mend)


def _stands_out(account: Account, variant: str, n: float, others: list[str], theirs: float) -> bool:
    """Return whether a variant's share is above the others' by more than chance explains."""
    if not others:
        return False
    ours = share_interval(account, n, [variant], account.roles(variant))
    rest = share_interval(account, theirs, others, ANSWERING)
    return ours.low > rest.high + LEAST_GAP


def _dropped(account: Account) -> Iterator[Found]:
    for variant in account.variants:
        if (seen := account.seen(variant, "dropped", SHADOWING)) is not None:
            made = account.checked(variant, SHADOWING) + seen.n
            mend = "it is slower than what it shadows: a smaller share of copies, or a larger mirror_max_concurrency"
            yield Found(variant, seen.n, made, seen, f"copies for {variant} are dropped", mend)


def _no_unit(account: Account) -> Iterator[Found]:
    unit, mend = account.route.unit, "clients must send it, or unit must name what they do send"
    if unit is not None and (seen := account.seen_in_requests("no_unit")) is not None:
        as_what = ": each of these requests counts as a unit of its own" if account.route.by_unit else ""
        yield Found(None, seen.n, account.checked_requests, seen, f"requests carry no unit ({unit}){as_what}", mend)


def _no_key(account: Account) -> Iterator[Found]:
    key, mend = account.route.key, "feedback by key cannot find them: key must name what clients send"
    if key is not None and (seen := account.seen_in_requests("no_key")) is not None:
        yield Found(None, seen.n, account.checked_requests, seen, f"requests carry no key ({key})", mend)


def _no_feature(account: Account) -> Iterator[Found]:
    if account.route.features and (seen := account.seen_in_requests("no_feature")) is not None:
        reference = dict(account.route.features).get(seen.detail, "")
        what = f"requests lack a feature, last {seen.detail}" + (f" ({reference})" if reference else "")
        yield Found(None, seen.n, account.checked_requests, seen, what, "features must name what requests carry")


def _no_prediction(account: Account) -> Iterator[Found]:
    pointer = account.route.prediction
    if pointer is not None:
        mend = "prediction must point at what its answers hold; labels score nothing until it does"
        yield from _answers(account, "no_prediction", f'have nothing at prediction = "{pointer}"', mend)


def _no_version(account: Account) -> Iterator[Found]:
    mend = "reported_version of the backend must point at what its answers hold"
    yield from _answers(account, "no_version", "have nothing where reported_version points", mend)


def _other_version(account: Account) -> Iterator[Found]:
    mend = "deploy what is declared, or declare what runs: every number here is kept under the declared version"
    for variant in account.variants:
        if (seen := account.seen(variant, "other_version")) is not None:
            declared = account.snapshot.backends[variant].version
            what = f"{variant} is declared {declared}, and its answers say {seen.detail}"
            yield Found(variant, seen.n, _answered(account, variant), seen, what, mend)


def _unmerged(account: Account) -> Iterator[Found]:
    if (seen := account.seen_in_requests("unmerged")) is not None:
        what = f"lists are not merged, last because of {seen.detail}: one ranker's passed as it was"
        mend = "items must point at a list in every ranker's answer, and item_id at an id in each of its items"
        yield Found(None, seen.n, account.checked_requests, seen, what, mend)


def _late(account: Account) -> Iterator[Found]:
    yield from _events(account, "late", "feedback comes too late to count", "a longer window for its metric")


def _orphaned(account: Account) -> Iterator[Found]:
    mend = "a wrong key or a shed log is behind it: `turnout feedback orphans` lists them"
    yield from _events(account, "orphaned", "feedback finds no prediction", mend)


def _not_applicable(account: Account) -> Iterator[Found]:
    # Feedback about requests that are not counted is not at fault.
    apart = account.ledger.signs.get(("", "", UNCOUNTED))
    signs = account.ledger.signs
    found = sorted(((seen, why) for why in _INAPPLICABLE if (seen := signs.get(("", "", why)))), reverse=True)
    reasons = ", ".join(f"{seen.n:,} {_INAPPLICABLE[why][0]}" for seen, why in found)
    mend = _INAPPLICABLE[found[0][1]][1] if found else "the predictions it is about say why: GET /api/v1/predictions/ID"
    for one in _events(account, "not_applicable", f"feedback cannot count{f': {reasons}' if reasons else ''}", mend):
        yield one if apart is None else one._replace(n=max(0, one.n - apart.n))


#: For each reason: the events that have it, and how to end it.
_INAPPLICABLE: Final[dict[Inapplicable, tuple[str, str]]] = {
    "metric_not_listed": ("of a metric that the route does not list", "list it in the metrics of the route"),
    "not_merged": ("about lists that were not merged", "see why they were not: a ranker that failed, or its answer"),
    "no_item": ("without `item`, about a merged list", "the client must send the id of the item that was clicked"),
    "fallback_answered": ("about the answer of a fallback", "the variant that it answered for fails: its log says why"),
    "item_not_shown": ("of an `item` that was not shown", "the client must send the id that item_id points at"),
}


def _uncounted(account: Account) -> Iterator[Found]:
    seen = account.seen_in_requests(UNCOUNTED)
    if seen is not None:
        what = "requests are left out of every number, being of more new units than one client may bring"
        mend = (
            "a client invents units, or many users share an address: then raise max_new_units_per_client, "
            "or name the proxies between in trusted_proxies"
        )
        yield Found(None, seen.n, account.checked_requests + seen.n, seen, what, mend)


def _frozen(account: Account) -> Iterator[Found]:
    seen = account.seen_in_requests(FROZEN)
    if seen is not None and is_ongoing(rfc3339(seen.last_ms), account.ledger.watermark_ms):
        what = "requests are answered while the route is frozen, and count in no number"
        yield Found(None, seen.n, account.checked_requests + seen.n, seen, what, "`turnout unfreeze` ends it")


def _uncovered(account: Account) -> Iterator[Found]:
    for variant in account.variants:
        for metric in account.metrics:
            if not account.answers(variant) and metric.kind != "label":
                continue
            closed, valued = _coverage(account, variant, metric)
            if valued < LEAST_COVERAGE * closed:
                what = f"windows of {metric.name} close without a value for what {variant} answered"
                mend = "send feedback for it; orphans and rejected events say what was sent in vain"
                yield Found(variant, closed - valued, closed, None, what, mend)


def _coverage(account: Account, variant: str, metric: Metric) -> tuple[float, float]:
    """Return how many windows closed, and how many of them have a value."""
    return account.own(variant, metric, "closed").d, account.own(variant, metric, "mature").d


def _answers(account: Account, word: str, what: str, mend: str) -> Iterator[Found]:
    for variant in account.variants:
        if (seen := account.seen(variant, word)) is not None:
            yield Found(variant, seen.n, _answered(account, variant), seen, f"answers of {variant} {what}", mend)


def _events(account: Account, status: Status, what: str, mend: str) -> Iterator[Found]:
    """Count over all epochs of the route, because feedback may come long after its prediction."""
    ended = account.ledger.feedback
    n = sum(count for (_, one), count in ended.items() if one == status)
    seen = account.ledger.signs.get(("", "", status))
    yield Found(None, n, sum(ended.values()), seen, f"{what}, in all epochs", mend)


def _answered(account: Account, variant: str) -> float:
    """Return how many answers of a variant could be examined."""
    # Where 4xx count as failures, they are among the failed calls already.
    words = ("failed",) if account.snapshot.backends[variant].client_errors == "fail" else ("failed", "client_error")
    wrong = (account.seen(variant, word) for word in words)
    return account.checked(variant) - sum(seen.n for seen in wrong if seen is not None)


#: Every problem there is, the most important first.
PROBLEMS: tuple[Problem, ...] = (
    Problem("failures", 0.01, _failures),
    Problem("client_errors", 0.0, _client_errors),
    Problem("no_unit", 0.05, _no_unit),
    Problem("frozen", 0.0, _frozen),
    Problem("uncounted", 0.01, _uncounted),
    Problem("no_prediction", 0.01, _no_prediction),
    Problem("other_version", 0.01, _other_version),
    Problem("no_version", 0.01, _no_version),
    Problem("unmerged", 0.01, _unmerged),
    Problem("no_key", 0.05, _no_key),
    Problem("no_feature", 0.5, _no_feature),
    Problem("not_applicable", 0.01, _not_applicable),
    Problem("orphaned", 0.01, _orphaned),
    Problem("late", 0.01, _late),
    Problem("uncovered", 0.0, _uncovered),
    Problem("dropped_copies", 0.01, _dropped),
)
