"""What somebody wants done to a route, who it is, and what came of it.

Rule: plain values, and JSON of them: an ask travels through the store to the node that performs it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Literal, get_args

from policies.rollouts.standing import Verb

Via = Literal["api", "console", "alert", "trigger", "registry"]

#: What freezes and ends that, beside the verbs of a policy (``Verb``).
FREEZE: Final = "freeze"
UNFREEZE: Final = "unfreeze"
STEERING: Final[tuple[str, ...]] = get_args(Verb)
VERBS: Final = (*STEERING, FREEZE, UNFREEZE)

#: A reason or a ticket is cut to so many characters.
_MOST_CHARACTERS: Final = 1_000


@dataclass(frozen=True, slots=True)
class Asker:
    """Who asks: ``who`` names a user or a token, ``sentence`` says all that is known, such as from where.

    ``known`` says whether ``who`` was proved.
    """

    who: str
    via: Via
    sentence: str = ""
    known: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """What is asked for. ``route`` is None for every route. ``saw`` is the number of the standing that the asker saw.

    ``to`` is the variant to freeze to; None where it is not asked for, or where each route has its baseline.
    """

    verb: str
    route: str | None
    why: str = ""
    saw: int | None = None
    to: str | None = None
    dry_run: bool = False
    ticket: str = ""


@dataclass(frozen=True, slots=True)
class Done:
    """What was done, or with a dry run would be: ``said`` are sentences, ``more`` plain JSON."""

    verb: str
    dry_run: bool
    said: tuple[str, ...]
    more: Mapping[str, Any] = field(default_factory=dict)

    @property
    def shown(self) -> dict[str, Any]:
        """The same as plain JSON values."""
        return {"verb": self.verb, "dry_run": self.dry_run, "said": list(self.said), **self.more}


class NotDone(Exception):
    """Nothing was done; the message says why and what would do. ``status`` is that of HTTP, ``more`` plain JSON."""

    def __init__(self, status: int, why: str, **more: Any) -> None:
        super().__init__(why)
        self.status = status
        self.why = why
        self.more = more


def read_ask(body: Any, route: str | None) -> Ask:
    """Return what a request's body asks for. Raises NotDone (422) that says what is wrong with it."""
    if not isinstance(body, Mapping):
        raise NotDone(422, 'the body must be an object, as in {"verb": "pause", "why": "it looks odd"}')
    known = ("verb", "why", "saw", "to", "dry_run", "ticket", "all")
    for name in body:
        if name not in known:
            raise NotDone(422, f'unknown member "{str(name)[:50]}"; there are {", ".join(known)}')
    verb = body.get("verb")
    if verb not in VERBS:
        raise NotDone(422, f"verb must be one of {', '.join(VERBS)}, got {str(verb)[:50]!r}")
    texts = {name: body.get(name) for name in ("why", "ticket", "to")}
    for name, text in texts.items():
        if not isinstance(text, str | None):
            raise NotDone(422, f"{name} must be a text, got {str(text)[:50]!r}")
    saw, dry_run = body.get("saw"), body.get("dry_run", False)
    if isinstance(saw, bool) or not isinstance(saw, int | None) or (saw is not None and not 0 <= saw < 2**53):
        raise NotDone(422, f"saw must be the number of a standing, or null, got {str(saw)[:50]!r}")
    if not isinstance(dry_run, bool):
        raise NotDone(422, f"dry_run must be true or false, got {str(dry_run)[:50]!r}")
    _about(verb, route, body.get("all", False), texts["to"])
    why, ticket = ((texts[name] or "")[:_MOST_CHARACTERS] for name in ("why", "ticket"))
    return Ask(verb=verb, route=route, why=why, saw=saw, to=texts["to"], dry_run=dry_run, ticket=ticket)


def _about(verb: str, route: str | None, everything: Any, to: str | None) -> None:
    """Check that it is said what an act is about."""
    if route is None and not (everything is True and verb in (FREEZE, UNFREEZE)):
        said = '{"verb": "freeze", "all": true} and "unfreeze" are about every route'
        raise NotDone(422, f"{said}; anything else is asked for at /api/v1/routes/ROUTE/acts")
    if route is not None and everything:
        raise NotDone(422, "all is for /api/v1/acts; here it is about one route")
    if (to is not None) is not (verb == FREEZE and route is not None):
        said = "to is missing: the variant that answers everything" if to is None else "to names a variant to freeze to"
        raise NotDone(422, f"{said}; with all, each route is frozen to its baseline")


def encode(ask: Ask, asker: Asker) -> dict[str, Any]:
    """Return both as plain JSON values; ``decode`` is the inverse."""
    return {"ask": asdict(ask), "asker": asdict(asker)}


def decode(value: Mapping[str, Any]) -> tuple[Ask, Asker]:
    """Return what ``encode`` wrote. Raises KeyError or TypeError if it is something else."""
    return Ask(**value["ask"]), Asker(**value["asker"])
