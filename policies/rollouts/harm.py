"""Which variants are shown to do harm, and what follows from it by the file.

Rule: a guardrail that a person went on in spite of does not act again in the same run; a variant that fails fast does.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from policies.rollouts.history import Changes
from policies.rollouts.standing import Action, Findings, Judged, Standing

#: The guardrail that every route has, which a variant breaks that fails fast (``router.settings.declared``).
FAILURES: Final = "failures"

_STRONGEST: Final[tuple[Action, ...]] = ("rollback", "floor", "pause", "warn")


class Harm(NamedTuple):
    """A variant that does harm: what is to be done, by which guardrail, and why, in words that follow its name.

    ``shared`` says that the baseline breaks the same limit: there is no use in going back to it.
    """

    action: Action
    variant: str
    metric: str
    why: str
    shared: str | None = None


def harms(
    findings: Findings, variants: Sequence[str], baseline: str, standing: Standing, otherwise: Action | None
) -> list[Harm]:
    """Return what is to be done about these variants, the strongest action first.

    ``otherwise`` is the action of guardrails for which the file says none; None: nothing is done.
    """
    found = list[Harm]()
    for name in variants:
        if name in findings.burning:
            said = next(
                (one.action for one in findings.guardrails if (one.variant, one.metric) == (name, FAILURES)), None
            )
            if (action := said or otherwise) is not None:
                found.append(Harm(action, name, FAILURES, findings.burning[name]))
    accepted = standing.detail.get("accepted", ())
    for one in _broken(findings, variants):
        action = one.action or otherwise
        if action is not None and [one.variant, one.metric] not in accepted:
            found.append(Harm(action, one.variant, one.metric, described(one), _shared(findings, baseline, one)))
    return sorted(found, key=lambda harm: _STRONGEST.index(harm.action))


def no_way_back(findings: Findings, found: Sequence[Harm]) -> str | None:
    """Return why nothing is gained by going back to the baseline, in words that follow its name; None if it is.

    The baseline fails, or breaks each limit that is broken.
    """
    if findings.failing is not None:
        return findings.failing
    shared = [harm.shared for harm in found if harm.action in ("rollback", "floor")]
    return shared[0] if shared and all(one is not None for one in shared) else None


def broken_now(findings: Findings, variants: Sequence[str]) -> list[list[str]]:
    """Return the broken guardrails of these variants, as (variant, metric)."""
    return [[one.variant, one.metric] for one in _broken(findings, variants)]


def accepting(broken: Sequence[Sequence[str]]) -> str:
    """Return the words about guardrails that a person goes on in spite of; "" if there are none."""
    if not broken:
        return ""
    return f", although broken: {', '.join(dict.fromkeys(metric for _, metric in broken))}"


def described(judged: Judged) -> str:
    """Return what a broken guardrail found, in words that follow the variant's name.

    >>> described(Judged(metric="failures", variant="v2", state="broken", value=0.5, baseline=0.01, bound=0.01))
    'breaks the guardrail on failures: 0.5, and the baseline has 0.01 (bound 0.01)'
    """
    if judged.why:
        return judged.why
    words = f"breaks the guardrail on {judged.metric}"
    if judged.value is None:
        return words
    words += f": {judged.value:.4g}"
    if judged.baseline is not None:
        words += f", and the baseline has {judged.baseline:.4g}"
    return words if judged.bound is None else f"{words} (bound {judged.bound:.4g})"


def warn(changes: Changes, harm: Harm) -> None:
    """Say once in a run that a guardrail is broken for which the file asks for no more."""
    warned = changes.standing.detail.get("warned", [])
    if [harm.variant, harm.metric] not in warned:
        detail = changes.note(warned=[*warned, [harm.variant, harm.metric]])
        why = f"{harm.variant} {harm.why}"
        changes.make("guardrail_broken", why, "evidence", variant=harm.variant, detail=detail)


def _shared(findings: Findings, baseline: str, one: Judged) -> str | None:
    same = (other for other in _broken(findings, (baseline,)) if (other.metric, other.bound) == (one.metric, one.bound))
    return next(map(described, same), None)


def _broken(findings: Findings, variants: Sequence[str]) -> Iterator[Judged]:
    return (one for one in findings.guardrails if one.state == "broken" and one.variant in variants)
