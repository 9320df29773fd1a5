"""The tables of the operator's file, derived from the classes that their content becomes.

Rule: a key and its default are declared once: in ``router.settings``, or for a policy as a field of its class. Declared
here is only what is written in the file in another form than the value has.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any, Final, Literal

from policies.types import Policy
from router import scores
from router.config import spellings
from router.config.kinds import Duration, Missing, Range, Text, mapping, type_of
from router.config.tables import Setting, Table, table_of
from router.scores import Better, Score
from router.settings.alert import Alert
from router.settings.backend import Backend, Url
from router.settings.declared import DeclaredTest, Guardrail, PositiveNumber
from router.settings.gateway import Gateway
from router.settings.route import Capture, RouteMirror, RouteSettings
from router.settings.sink import Sink
from router.settings.trigger import Trigger
from router.triggers.condition import Condition

GATEWAY: Final = table_of(
    Gateway, "The process itself. Relative files are looked for in the directory it is started in."
)

_URL: Final = Setting(
    type_of(Url),
    'Where it is, http or https, perhaps with a base path; or a socket, "unix:/run/model.sock" or '
    '"unix:/run/model.sock:/base".',
    None,
)
_BACKEND: Final = table_of(Backend, "A running model version.")
#: One replica is written as url, several as urls.
BACKEND: Final = replace(_BACKEND, settings={"url": _URL, **_BACKEND.settings})


def metric_table() -> Table:
    """Return the table of a metric, with the scores of ``SCORES``."""
    return _metric_table(scores.SCORES)


@cache
def _metric_table(known: tuple[Score, ...]) -> Table:
    each = " ".join(f"{score.name}: {_summary(type(score))}" for score in known)
    lower = " and ".join(score.name for score in known if score.better == "lower")
    return Table(
        {
            "kind": Setting(
                Literal["event", "value", "label"],
                "event: it happened or not, 0 or 1. value: a number. label: the truth, scored against the prediction.",
            ),
            "score": Setting(
                Literal[tuple(score.name for score in known)],
                f'How a label scores a prediction. {each} Default "{known[0].name}".',
                None,
            ),
            "better": Setting(Better, f'Which direction is good. Default "higher", for {lower} "lower".', None),
            "window": Setting(
                Duration,
                "How long after its prediction feedback still counts.",
                spellings.duration_ms("24h"),
                written="24h",
            ),
            "window_before": Setting(
                Duration,
                "How long before its prediction feedback may have happened. Without it, any time where it names the "
                "prediction's id (clocks differ), and never where it is looked up by key.",
                None,
            ),
            "mature": Setting(
                Literal["window", "arrival"],
                "When a value may be learned from: when its window has closed or, where the delay cannot depend on the "
                "outcome, on arrival.",
                "window",
            ),
            "missing": Setting(
                Missing, 'What a window that closes empty counts as: a number, or "exclude".', None, written="exclude"
            ),
            "fold": Setting(
                Literal["any", "first", "last", "sum", "mean", "max"],
                'How several events of one prediction become one value. Default "any" for events, else "last".',
                None,
            ),
            "range": Setting(Range, "The lowest and the highest value there is: makes intervals exact.", None),
            "cap": Setting(
                type_of(PositiveNumber),
                "The most that one prediction counts for: a larger value counts as this. So a few very large ones "
                "cannot hide a difference.",
                None,
            ),
        },
        "What feedback means.",
    )


MIRROR: Final = table_of(RouteMirror, "A backend that gets copies of a route's requests.")

TEST: Final = table_of(DeclaredTest, "How a route's comparison was planned, before there was data.")

GUARDRAIL: Final = table_of(Guardrail, "A bound on a metric that no variant may break.")

CAPTURE: Final = table_of(Capture, "What is kept of requests and answers, besides what is logged of every one.")

_POLICY: Final = Setting(dict[str, Any], "Which variant answers.")
_ROUTE: Final = table_of(RouteSettings, "What a path serves.")
ROUTE: Final = replace(_ROUTE, settings={**_ROUTE.settings, "policy": _POLICY})

SINK: Final = table_of(
    Sink,
    "A receiver of recorded events besides the store. It gets each at least once, in order where a request has many.",
)

TRIGGER: Final = table_of(Trigger, "What fires by itself: conditions of a route, and what follows when they are met.")

ALERT: Final = table_of(Alert, "What an alert of Alertmanager or Grafana with these labels does to routes.")

_SECTION: Final = mapping(str, Any)

FILE: Final = Table(
    {
        "schema_version": Setting(Literal[1], "The version of this format.", 1),
        "gateway": Setting(_SECTION, GATEWAY.description, {}),
        "backends": Setting(_SECTION, "The model versions, by name.", {}),
        "metrics": Setting(_SECTION, "What feedback means, by name.", {}),
        "routes": Setting(_SECTION, "What is served, by name.", {}),
        "sinks": Setting(_SECTION, "Receivers of recorded events, by name.", {}),
        "triggers": Setting(_SECTION, "What fires by itself, by name.", {}),
        "alerts": Setting(_SECTION, "What alerts from outside do, by name.", {}),
    },
    "The operator's file of Turnout.",
)

#: The keys that every policy has besides its own settings.
COMMON: Final = {
    "salt": Setting(
        Text, "What is hashed with the unit; routes with one salt assign alike. Default: the route's name.", None
    )
}


@cache
def policy_table(policy: type[Policy]) -> Table:
    """Return the table of a policy: its kind, the fields of its class, and the keys that every policy has."""
    own = table_of(policy, _summary(policy), every=True)
    kind = Setting(Literal[policy.kind], own.description)
    return Table({"kind": kind, **own.settings, **COMMON}, own.description)


@cache
def condition_table(condition: type[Condition]) -> Table:
    """Return the table of a condition: its kind, and the fields of its class."""
    own = table_of(condition, _summary(condition), every=True)
    return Table({"kind": Setting(Literal[condition.kind], own.description), **own.settings}, own.description)


def _summary(kind: type) -> str:
    """Return the first paragraph of a docstring as one line."""
    return " ".join((kind.__doc__ or "").split("\n\n")[0].split()).replace("``", "`")
