"""Where a route stands that moves by itself or by hand; what moves it; and what is known when it does.

Rule: values of JSON alone, so that a standing can be stored, published, compared and replayed. Nothing here decides.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Final, Literal

#: What is done to a variant: "out" gets nothing, "floor" the least share that its policy gives.
Held = Literal["out", "floor"]
State = Literal["running", "paused", "rolled_back", "done"]

#: What may follow from a broken guardrail.
Action = Literal["rollback", "pause", "floor", "warn"]

Verb = Literal["approve", "advance", "pause", "resume", "rollback", "restart", "promote"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Where a route stands. One that nothing ever moved is ``START``.

    ``number`` grows by one with each change: an act names the number that it saw. ``policy`` is the kind of the policy
    that this is about, and ``of`` the versions of its variants: with another one it begins anew. ``step`` counts from
    0; it is 0 where a policy has no steps. ``since_ms`` is when the step began, ``changed_ms`` when anything of this
    last changed. ``held`` is what was done to variants. ``detail`` is what else a policy has to remember.
    """

    number: int = 0
    policy: str = ""
    state: State = "running"
    step: int = 0
    since_ms: int = 0
    changed_ms: int = 0
    held: Mapping[str, Held] = field(default_factory=dict)
    of: Mapping[str, str] = field(default_factory=dict)
    detail: Mapping[str, Any] = field(default_factory=dict)


START: Final = Standing()


def evidence_since(standing: Standing) -> int:
    """Return since when guardrails are judged: what came before a restart does not count again. 0: from the first."""
    began: int = standing.detail.get("began_ms", 0)
    return began


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A guardrail's state for a variant; ``low`` and ``high`` are null where the interval has no such end.

    ``action`` is None where the file says none: then a rollout does what it does ``on_failure``, and others nothing.
    """

    metric: str
    variant: str
    state: Literal["broken", "undecided", "clean"]
    action: Action | None = None
    value: float | None = None
    baseline: float | None = None
    low: float | None = None
    high: float | None = None
    bound: float | None = None
    why: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """What is known of a route at one moment. Counts are of the present step, by variant.

    ``units`` have at least one call that counts, ``pairs`` are copies that were compared with the answer. ``last_ms``
    is the event time of a variant's newest call. ``agreement`` is (value, low, high) of copies and answers. ``burning``
    are variants that fail fast, each with a sentence; ``alone`` those that do while the baseline has no calls: it is
    not known whether it would fail as well; ``faltering`` those that fail most of their calls just now, for however
    short a time. ``errors`` are sentences about what cannot be measured now.
    ``failing`` says why the baseline itself fails; None if it does not. ``baseline`` is the route's, "" for the
    policy's own; ``versions`` are those that the variants have now, empty where they are not known.

    Guardrails are judged on what came since ``evidence_since(standing)``.
    """

    baseline: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    units: Mapping[str, int] = field(default_factory=dict)
    calls: Mapping[str, int] = field(default_factory=dict)
    pairs: Mapping[str, int] = field(default_factory=dict)
    last_ms: Mapping[str, int] = field(default_factory=dict)
    agreement: Mapping[str, tuple[float, float, float]] = field(default_factory=dict)
    guardrails: tuple[Judged, ...] = ()
    burning: Mapping[str, str] = field(default_factory=dict)
    alone: Mapping[str, str] = field(default_factory=dict)
    faltering: Mapping[str, str] = field(default_factory=dict)
    errors: tuple[str, ...] = ()
    failing: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """What a person, or a program for one, wants done; ``author`` wrote the candidate's setting, if that is known.

    ``known`` says whether ``who`` was proved, by a token or a proxy: where nobody is asked, it may be anybody.
    """

    verb: Verb
    who: str
    why: str = ""
    ticket: str = ""
    author: str | None = None
    known: bool = True


@dataclass(frozen=True, slots=True)
class Moved:
    """A new standing, and what happened: plain JSON values, each with ``kind``, ``at_ms`` and ``why``, a sentence."""

    standing: Standing
    events: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True, slots=True)
class Refused:
    """An act that does not apply, and why: a sentence that says what would do."""

    why: str


def encode_standing(standing: Standing) -> dict[str, Any]:
    """Return a standing as plain JSON values, without what is as at the start; ``decode_standing`` is the inverse.

    >>> encode_standing(Standing(number=2, held={"v2": "out"}))
    {'number': 2, 'held': {'v2': 'out'}}
    """
    return {name: value for name, value in asdict(standing).items() if value != getattr(START, name)}


def decode_standing(value: Mapping[str, Any]) -> Standing:
    """Return the standing that ``encode_standing`` wrote. What a newer program added is left out.

    Raises ValueError if it is not one.
    """
    try:
        known = {name: value[name] for name in _KINDS if name in value}
    except TypeError as error:
        raise ValueError(f"not a standing: {value!r}") from error
    for name, content in known.items():
        if not isinstance(content, _KINDS[name]) or isinstance(content, bool):
            raise ValueError(f"standing: {name}: expected {_KINDS[name].__name__}, got {content!r}")
    return Standing(**known)


_KINDS: Final = {one.name: type(getattr(START, one.name)) for one in fields(Standing)}
