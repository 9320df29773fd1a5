"""What a path serves: a table of the file's ``[routes]``, without its policy."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Annotated, Any, Final, Literal

from router.settings.declared import DeclaredTest, Guardrail
from router.settings.keys import Bounds, Methods, PointerText, ReferenceText, Share, Text, described, setting

#: Which of the predictions that share a key an event is about.
KeyRule = Literal["latest", "first", "all"]

#: The share of units that a holdout keeps, unless the file says another.
HELD_OUT: Final = 0.05

RoutePath = Annotated[str, "route_path"]
Prefix = Annotated[str, "prefix"]
MatchedHeaders = Annotated[tuple[tuple[str, str], ...], "matched_headers"]
Features = Annotated[tuple[tuple[str, str], ...], "features"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteMirror:
    """A mirror declared on a route; an empty ``methods`` means every method."""

    variant: Text = field(metadata=described("The backend that gets copies and whose answers are thrown away."))
    share: Share = field(
        metadata=described("The share of requests that is copied, by unit when there is one.", default=1.0)
    )
    methods: Methods = setting((), "Methods that may be sent twice; without it, every one.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Capture:
    """What is kept of bodies: of a share of the requests, the fields that ``request`` and ``answer`` point at.

    ``redact`` points at values that are replaced in both first. A body that is longer than ``max_bytes`` is not kept.
    """

    share: Share = setting(1.0, "The share of requests of which bodies are kept.")
    max_bytes: Annotated[int, Bounds(1, 2**20)] = setting(16_384, "A longer body is not kept; at most 1 MiB.")
    request: tuple[PointerText, ...] = setting((), 'JSON Pointers to what is kept of a request; "" is all of it.')
    answer: tuple[PointerText, ...] = setting((), "JSON Pointers to what is kept of an answer.")
    redact: tuple[PointerText, ...] = setting((), "JSON Pointers to what is replaced in requests and answers before.")


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteSettings:
    """The settings of a route, without its policy and salt. The file's route and the snapshot's both derive from it.

    ``unit``, ``key`` and the values of ``features`` are references as written in the file ("header:x-user-id",
    "body:/user/id").
    """

    name: str
    path: RoutePath = field(metadata=described('An exact path, or a prefix that ends in "/*".'))
    baseline: Text = field(
        metadata=described("The variant that the others are compared with; without it the policy's own.", default=None)
    )
    methods: Methods = setting((), "Methods that it takes; without it, every one.")
    headers: MatchedHeaders = setting((), "Headers that a request must carry, with their values.")
    unit: ReferenceText | None = setting(
        None, "Who is randomised: header:NAME, cookie:NAME, query:NAME or body:/json/pointer."
    )
    key: ReferenceText | None = setting(None, "A key of the caller's own by which feedback may name the request.")
    key_rule: KeyRule = setting(
        "latest",
        "Which of several predictions with the key feedback is about: latest, the last one before it; first, the "
        "first one; all of them. Where there is none before it, the first after it within window_before.",
    )
    features: Features = setting(
        (), "Values logged with each prediction: a table of references by name, or a list of them."
    )
    prediction: PointerText | None = setting(None, "JSON Pointer to the prediction in an answer; labels need it.")
    metrics: tuple[Text, ...] = setting((), "The metrics that apply here.")
    primary_metric: Text | None = setting(None, "The metric of the verdict; without it the first.")
    mirrors: Annotated[tuple[RouteMirror, ...], "tables"] = setting(
        (), "Backends that get copies of this route's requests; only for requests that may be sent twice."
    )
    holdout: Text | None = setting(
        None,
        "The name of a holdout: some units always get the baseline, and are compared with all others as a whole. "
        "Routes that name the same one hold the same units out. It needs a unit.",
    )
    holdout_share: Share = setting(HELD_OUT, "The share of units that the holdout keeps, in [0, 1].")
    fallback: Text | None = setting(None, "The backend that answers when the chosen variant fails.")
    strip_prefix: Prefix | None = setting(
        None, "What the path begins with here and not at the backends: it is cut off before a request goes on."
    )
    expose_variant: bool = setting(False, "Whether answers name their variant in a turnout-variant header.")
    require_exposure: bool = setting(
        False, 'Whether a prediction counts only once an event of the metric "exposed" says that it was seen.'
    )
    allow_force: bool = setting(False, "Whether any client may choose the variant with turnout-force-variant.")
    capture: Annotated[Capture, "table"] | None = setting(None, "What is kept of bodies; without it, nothing.")
    test: Annotated[DeclaredTest, "table"] | None = setting(
        None, "How its comparison was planned; without it, for any effect, with no end."
    )
    guardrails: Annotated[tuple[Guardrail, ...], "tables"] = setting(
        (), "Bounds that no variant may break, besides that on failures, which every route has."
    )


def settings_of(route: RouteSettings) -> dict[str, Any]:
    """Return the settings of a route by name, without the other fields of its class."""
    return {f.name: getattr(route, f.name) for f in fields(RouteSettings)}
