"""``turnout demo --loop``: a trigger has a model retrained on the labels that came in, a rollout brings it to everyone.

Rule: what an operator would have built stands here as a pipeline: it takes the trigger's webhook, exports the labelled
rows through the API, fits a model, serves it and registers its version. Turnout does the rest by itself.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import secrets
import socket
import tempfile
import time
from pathlib import Path
from random import Random
from typing import Any, Final

import httpx
import numpy as np
import orjson
import uvicorn
from rich.console import Console
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route

from gateway.demo.model_server import create
from gateway.demo.models import Classifier, Digits, held_out_score, load
from gateway.demo.processes import Children, StartFailed, free_ports
from gateway.sinks.signature import signed, signing_keys

#: Requests a second.
RATE: Final = 20.0
START_SECONDS: Final = 60.0
#: So many labelled rows make the trigger fire; so few images the first model has seen.
LABELS: Final = 200
FEW: Final = 40
#: A label comes so many seconds after its answer.
LABEL_SECONDS: Final = 1.5

_SHOWN: Final = frozenset({"rollout", "act", "trigger", "slot_filled"})

_CONFIG: Final = """\
schema_version = 1

[gateway]
listen = "{listen}"
admin = "{admin}"
data_dir = "{data_dir}"

[backends.digits_now]
url = "http://127.0.0.1:{port}/1"
path = "/v2/models/digits/infer"
model = "digits"
version = "1"

# The pipeline registers new versions here.
[backends.digits_next]
url = "http://127.0.0.1:{port}/1"
path = "/v2/models/digits/infer"
model = "digits"
version = "1"
slot = {{ url = "http://127.0.0.1:{port}/{{version}}", hosts = ["127.0.0.1"] }}

[metrics.correct]
kind = "label"
window = "6s"

# The label itself, for the export.
[metrics.digit]
kind = "value"
range = [0, 9]
window = "6s"

[routes.digits]
path = "/digits"
unit = "header:x-user-id"
features = {{ image = "body:/image" }}
prediction = "/outputs/0/data/0"
expose_variant = true
metrics = ["correct", "digit"]
guardrails = [{{ metric = "correct", worse_by = 0.1, action = "rollback" }}]

[routes.digits.policy]
kind = "rollout"
stable = "digits_now"
candidate = "digits_next"
steps = [
  {{ shadow = 1.0, hold = "8s", pairs = 60 }},
  {{ share = 0.1, hold = "6s", units = 5 }},
  {{ share = 0.5, hold = "10s", units = 40, whole_days = false }},
  {{ share = 1.0, hold = "6s", whole_days = false }},
]

[triggers.retrain]
route = "digits"
any = [{{ kind = "labels", metric = "digit", at_least = {labels} }}]
once_per_version = true
webhook = "pipeline"

[sinks.pipeline]
kind = "webhook"
url = "http://127.0.0.1:{port}/retrain"
allow_private = true
secret = "${{file:{secret}}}"
"""


class Pipeline:
    """What retrains: it serves each version of the model under its number, and takes the trigger's webhook."""

    def __init__(self, digits: Digits, admin: str, secret: str, say: Any) -> None:
        self._digits = digits
        self._admin = admin
        self._keys = signing_keys(secret)
        self._say = say
        self._seen: set[str] = set()
        self._fitting: set[asyncio.Task[None]] = set()
        self.scores: dict[str, float] = {}
        self.app = Starlette(routes=[Route("/retrain", self.retrain, methods=["POST"])])

    def serve(self, version: str, pixels: Any, labels: Any) -> None:
        """Fit a version of the model, and serve it."""
        from sklearn.linear_model import LogisticRegression

        estimator = LogisticRegression(max_iter=500).fit(pixels, labels)
        model = Classifier("digits", "digits", version, f"regression on {len(pixels)} images", estimator)
        self.scores[version] = held_out_score(model, self._digits)
        self.app.router.routes.append(Mount(f"/{version}", create(model)))

    async def retrain(self, request: Request) -> Response:
        """Take the webhook: verify it, ignore what came before, and answer before the work begins."""
        body, head = await request.body(), request.headers
        name, at = head.get("webhook-id", ""), head.get("webhook-timestamp", "0")
        right = at.isdigit() and signed(self._keys, name, int(at), body) == head.get("webhook-signature")
        if not right or abs(time.time() - int(at)) > 300:
            return Response(status_code=401)
        if name not in self._seen:
            self._seen.add(name)
            task = asyncio.create_task(self._fit(orjson.loads(body)["data"]["why"]))
            self._fitting.add(task)
            task.add_done_callback(self._fitting.discard)
        return Response(status_code=204)

    async def _fit(self, why: str) -> None:
        """Export the labelled rows, fit the next version on them, serve it, and register it."""
        version = str(len(self.scores) + 1)
        async with httpx.AsyncClient(base_url=f"http://{self._admin}", timeout=30) as admin:
            exported = await admin.get("/api/v1/export", params={"route": "digits"})
            rows = [orjson.loads(line) for line in exported.raise_for_status().content.splitlines()]
            labelled = dict(pair for row in rows if (pair := _labelled(row)) is not None)
            self._say(f"the webhook came ({why}); {len(labelled)} images with labels are exported")
            pixels = self._digits.train_pixels[list(labelled)]
            await asyncio.to_thread(self.serve, version, pixels, np.array(list(labelled.values())))
            self._say(f"version {version} is right on {self.scores[version]:.1%} of the held-out images, and served")
            registered = await admin.post(
                "/api/v1/backends/digits_next/version", json={"version": version, "why": f"retrained: {why}"}
            )
            registered.raise_for_status()
            self._say(f"registered: {registered.json()['results'][0]['why']}")


def _labelled(row: dict[str, Any]) -> tuple[int, int] | None:
    """Return the image and the label of an exported row; None if it has no label."""
    found = [one["live"] for one in row["outcomes"] if one["metric"] == "digit" and one["live"] is not None]
    return (int(row["features"]["image"]), int(found[0])) if found and row["features"] else None


async def loop(console: Console, seconds: float, rate: float, seed: int) -> int:
    """Run it; return 0 if the retrained version answers everyone in the end, else 1."""
    began = time.monotonic()

    def say(text: str) -> None:
        console.print(f"{time.monotonic() - began:6.1f} s  {text}", highlight=False, markup=False)

    digits, secret = load(), f"whsec_{base64.b64encode(secrets.token_bytes(32)).decode()}"
    listen, admin = (f"127.0.0.1:{port}" for port in free_ports(2))
    pipeline = Pipeline(digits, admin, secret, say)
    pipeline.serve("1", digits.train_pixels[:FEW], digits.train_labels[:FEW])
    say(f"version 1 has seen {FEW} images, and is right on {pipeline.scores['1']:.1%} of the held-out ones")
    with tempfile.TemporaryDirectory(prefix="turnout-loop-") as folder, socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        config = _CONFIG.format(
            listen=listen,
            admin=admin,
            data_dir=Path(folder) / "data",
            port=sock.getsockname()[1],
            labels=LABELS,
            secret=Path(folder) / "secret",
        )
        (Path(folder) / "turnout.toml").write_text(config)
        (Path(folder) / "secret").touch(mode=0o600)
        (Path(folder) / "secret").write_text(secret)
        server = uvicorn.Server(uvicorn.Config(pipeline.app, log_level="error", access_log=False, lifespan="off"))
        serving = asyncio.create_task(server._serve([sock]))
        try:
            async with Children(Path(folder)) as children:
                await _start(children, Path(folder), listen, admin)
                say(f"Turnout answers at http://{listen}, its console at http://{admin}/routes/digits")
                return await _watch(digits, listen, admin, seconds, rate, Random(seed), say)
        except StartFailed as failure:
            console.print(f"The demo failed: {failure}", style="red", markup=False, highlight=False)
            return 1
        finally:
            server.should_exit = True
            await asyncio.wait([serving], timeout=5)


async def _start(children: Children, folder: Path, listen: str, admin: str) -> None:
    turnout = await children.start("turnout", ("-m", "gateway.cli", "serve", "-c", str(folder / "turnout.toml")))
    deadline = time.monotonic() + START_SECONDS
    async with httpx.AsyncClient(timeout=2, trust_env=False) as client:
        for url in (f"http://{listen}/-/readyz", f"http://{admin}/readyz"):
            while True:
                with contextlib.suppress(httpx.TransportError):
                    if (await client.get(url)).status_code == 200:
                        break
                if children.ended or time.monotonic() > deadline:
                    raise StartFailed(f"Turnout did not come up\n{turnout.log_end()}")
                await asyncio.sleep(0.1)


async def _watch(digits: Digits, listen: str, admin: str, seconds: float, rate: float, chance: Random, say: Any) -> int:
    """Send users' requests and labels, and say what the route does, until the rollout is done or the time is up."""
    limits = httpx.Limits(max_connections=50)
    async with (
        httpx.AsyncClient(base_url=f"http://{listen}", timeout=10, trust_env=False, limits=limits) as users,
        httpx.AsyncClient(base_url=f"http://{admin}", timeout=10, trust_env=False) as api,
    ):
        pause = {"verb": "pause", "why": "nothing is retrained yet"}
        (await api.post("/api/v1/routes/digits/acts", json=pause)).raise_for_status()
        traffic = asyncio.create_task(_send(digits, users, rate, chance))
        said, deadline = set[str](), time.monotonic() + seconds
        try:
            while time.monotonic() < deadline:
                if traffic.done():
                    traffic.result()
                with contextlib.suppress(httpx.HTTPError):  # a busy controller is asked again
                    for event in reversed((await api.get("/api/v1/events")).raise_for_status().json()["events"]):
                        line = f"{event['kind']}: {event['detail']}"
                        if event["kind"] in _SHOWN and line not in said:
                            said.add(line)
                            say(line)
                    backends = (await api.get("/api/v1/config")).raise_for_status().json()["backends"]
                    version = backends["digits_next"]["version"]
                    standing = (await api.get("/api/v1/routes/digits/standing")).raise_for_status().json()
                    if version != "1" and standing["standing"].get("state") == "done":
                        say(f"version {version} answers everyone; nobody did anything")
                        return 0
                await asyncio.sleep(1.0)
        finally:
            traffic.cancel()
            await asyncio.wait([traffic])
    say("the time is up, and the rollout is not done")
    return 1


async def _send(digits: Digits, users: httpx.AsyncClient, rate: float, chance: Random) -> None:
    """Send requests of users who each ask four times, and labels later, until cancelled."""
    async with asyncio.TaskGroup() as group:
        for number in range(2**31):
            group.create_task(_ask(digits, users, f"u{number // 4}", chance.randrange(len(digits.train_pixels))))
            await asyncio.sleep(1 / rate)


async def _ask(digits: Digits, users: httpx.AsyncClient, user: str, image: int) -> None:
    tensor = {"name": "image", "shape": [1, 64], "datatype": "FP64", "data": digits.train_pixels[image].tolist()}
    with contextlib.suppress(httpx.TransportError):
        answer = await users.post("/digits", json={"inputs": [tensor], "image": image}, headers={"x-user-id": user})
        name = answer.headers.get("turnout-prediction-id")
        if answer.status_code == 200 and name is not None:
            await asyncio.sleep(LABEL_SECONDS)
            label = int(digits.train_labels[image])
            events = [{"prediction_id": name, "metric": metric, "value": label} for metric in ("correct", "digit")]
            await users.post("/-/feedback", json=events)
