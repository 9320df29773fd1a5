"""The demo's eight routes: what each is for, which backend is truly better there, and the config that runs them.

Rule: the routes are described here and nowhere else; traffic, view and findings read them. The config is one that an
operator could have written.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from gateway.demo.models import SHOWN, Model

#: Labels and clicks are sent 1 to 4 seconds after the answer, and a correction a second later; the rest is slack.
WINDOW_SECONDS: Final = 8
CANARY_SHARE: Final = 0.2


@dataclass(frozen=True, slots=True)
class Scene:
    """One route. ``better`` is compared with ``baseline`` and truly better, by its score on the held-out images.

    ``traffic`` is its share of all requests, in (0, 1]. ``secondary`` are metrics besides the one of the verdict, for
    which users send the same label; ``declared`` are the tables of its test and its guardrails. Where it ``fails``,
    ``better`` fails a tenth of its requests, and is not better in the end. Where it ``moves``, the route goes up, or
    back, by itself. Without ``by_user`` each request is drawn anew.
    """

    route: str
    task: Literal["digits", "search"]
    metric: Literal["correct", "click"]
    baseline: str
    better: str
    traffic: float
    summary: str
    policy: str
    secondary: tuple[str, ...] = ()
    declared: str = ""
    fails: bool = False
    moves: bool = False
    by_user: bool = True

    @property
    def target(self) -> str:
        """The path of its requests: to its users, each route is an inference server of its own."""
        return f"/{self.route}/v2/models/{self.task}/infer"


SCENES: Final = (
    Scene(
        "shadow",
        "digits",
        "correct",
        "digits_v2",
        "digits_v3",
        0.09,
        "version 2 answers, version 3 gets a copy of every request",
        'kind = "shadow"\nprimary = "digits_v2"\nshadows = { digits_v3 = 1.0 }',
    ),
    Scene(
        "canary",
        "digits",
        "correct",
        "digits_v1",
        "digits_v2",
        0.09,
        f"version 2 answers {CANARY_SHARE:.0%} of the users",
        f'kind = "canary"\nstable = "digits_v1"\ncandidate = "digits_v2"\nshare = {CANARY_SHARE}',
        declared='guardrails = [{ metric = "latency_ms.p95", worse_by = 100 }]',
    ),
    Scene(
        "ab",
        "digits",
        "correct",
        "digits_v1",
        "digits_v3",
        0.19,
        "versions 1 and 3 answer half of the users each",
        'kind = "ab"\nshares = { digits_v1 = 0.5, digits_v3 = 0.5 }',
        secondary=("off_by",),
        declared='test = { smallest_effect = 0.05 }\nguardrails = [{ metric = "off_by", worse_by = 0.5 }]',
    ),
    Scene(
        "search",
        "search",
        "click",
        "search_rows",
        "search_pixels",
        0.09,
        "two rankers share every list of results",
        'kind = "interleave"\nrankers = ["search_rows", "search_pixels"]\n'
        f'items = "/outputs/0/data"\nitem_id = ""\nlength = {SHOWN}',
    ),
    Scene(
        "bandit",
        "digits",
        "correct",
        "digits_v1",
        "digits_v3",
        0.12,
        "Thompson sampling moves the traffic to the better version",
        'kind = "thompson"\nvariants = ["digits_v1", "digits_v3"]\nreward = "correct"',
    ),
    Scene(
        "faulty",
        "digits",
        "correct",
        "digits_v1",
        "digits_v4",
        0.24,
        "version 4 is more often right, and fails a tenth of its requests",
        'kind = "ab"\nshares = { digits_v1 = 0.5, digits_v4 = 0.5 }\nsticky = false',
        fails=True,
        by_user=False,
    ),
    Scene(
        "rollout",
        "digits",
        "correct",
        "digits_v1",
        "digits_v3",
        0.08,
        "version 3 gets copies first, then a tenth, half and all of the users, by itself",
        """\
kind = "rollout"
stable = "digits_v1"
candidate = "digits_v3"
steps = [
  { shadow = 1.0, hold = "5s", pairs = 40, agreement = 0.5 },
  { share = 0.1, hold = "5s", units = 3 },
  { share = 0.5, hold = "8s", units = 20, whole_days = false },
  { share = 1.0, hold = "5s", whole_days = false },
]""",
        moves=True,
    ),
    Scene(
        "rollback",
        "digits",
        "correct",
        "digits_v1",
        "digits_v4",
        0.1,
        "version 4 may take over once it is shown not to fail, and is rolled back instead",
        """\
kind = "rollout"
stable = "digits_v1"
candidate = "digits_v4"
steps = [
  { share = 0.5, hold = "8s", whole_days = false, clean = ["failures"] },
  { share = 1.0, hold = "8s", whole_days = false },
]""",
        declared='guardrails = [{ metric = "failures", worse_by = 0.01, action = "rollback" }]',
        fails=True,
        moves=True,
    ),
)

_METRICS: Final = f"""\
# The truth about an image, sent back later; a prediction is right or wrong.
[metrics.correct]
kind = "label"
score = "match"
window = "{WINDOW_SECONDS}s"

# The same label, by how far the digit is off: a second opinion, and a guardrail.
[metrics.off_by]
kind = "label"
score = "absolute_error"
range = [0, 9]
window = "{WINDOW_SECONDS}s"

# A user clicked on an item of the list; a list that nobody clicked on counts as 0.
[metrics.click]
kind = "event"
missing = 0
window = "{WINDOW_SECONDS}s"
"""


def config(models: tuple[Model, ...], urls: Mapping[str, str], *, listen: str, admin: str, data_dir: Path) -> str:
    """Return the TOML file that puts Turnout in front of the models, whose servers are at ``urls``."""
    gateway = f'schema_version = 1\n\n[gateway]\nlisten = "{listen}"\nadmin = "{admin}"\ndata_dir = "{data_dir}"\n'
    backends = [_backend(model, urls[model.name]) for model in models]
    return "\n".join((gateway, *backends, _METRICS, *map(_route, SCENES)))


def _backend(model: Model, url: str) -> str:
    return (
        f"# {model.title}\n"
        f"[backends.{model.name}]\n"
        f'url = "{url}"\n'
        f'path = "/v2/models/{model.model}/infer"\n'
        f'model = "{model.model}"\n'
        f'version = "{model.version}"\n'
        'reported_version = "/model_version"\n'
    )


def _route(scene: Scene) -> str:
    lines = [
        f"# {scene.summary}",
        f"[routes.{scene.route}]",
        f'path = "{scene.target}"',
        'methods = ["POST"]',
        "expose_variant = true",
        f"metrics = {[scene.metric, *scene.secondary]}",
        *filter(None, [scene.declared]),
    ]
    if scene.by_user:
        lines.append('unit = "header:x-user-id"')
    if scene.task == "digits":
        lines.append('prediction = "/outputs/0/data/0"')
    if scene.policy.startswith('kind = "ab"'):
        lines.append(f'baseline = "{scene.baseline}"')
    return "\n".join((*lines, "", f"[routes.{scene.route}.policy]", scene.policy, ""))
