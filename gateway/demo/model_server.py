"""One model served over HTTP by the Open Inference Protocol: ``python -m gateway.demo.model_server MODEL_FILE``.

Rule: one process, one model. It takes a free port, prints it as the first line of its output, and ends on SIGTERM or
when its standard input closes, so it cannot outlive the process that started it.

Source: Open Inference Protocol V2, https://github.com/kserve/open-inference-protocol.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import socket
import sys
from pathlib import Path
from typing import Any

import orjson
import uvicorn
import uvloop
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.demo.models import Classifier, Model, read, rows


def create(model: Model) -> Starlette:
    """Return the app that serves one model."""

    def named(request: Request, value: object) -> Response:
        name = request.path_params["name"]
        return _json(value) if name == model.model else _json({"error": f"no model {name!r} here"}, 404)

    async def ready(request: Request) -> Response:
        return _json({"ready": True})

    async def model_ready(request: Request) -> Response:
        return named(request, {"name": model.model, "ready": True})

    async def metadata(request: Request) -> Response:
        return named(request, {"name": model.model, "versions": [model.version], "platform": "sklearn"})

    asked_for = itertools.count(1)

    async def infer(request: Request) -> Response:
        if isinstance(model, Classifier) and model.fails_every and next(asked_for) % model.fails_every == 0:
            return _json({"error": "this one fails, so that there is something to find"}, 502)
        try:
            asked = orjson.loads(await request.body())
            pixels = rows(asked["inputs"][0]["data"])
        except (ValueError, TypeError, LookupError) as error:
            return _json({"error": f"not an inference request for 8 × 8 images: {error}"}, 400)
        # Predicting on the event loop is intended: it takes a fraction of a millisecond, and answers are in order.
        answer = model.answer(pixels)
        output = {"name": answer.name, "shape": [len(answer.data)], "datatype": answer.datatype, "data": answer.data}
        found: dict[str, Any] = {"model_name": model.model, "model_version": model.version, "outputs": [output]}
        if isinstance(asked.get("id"), str):
            found["id"] = asked["id"]
        return named(request, found)

    return Starlette(
        routes=[
            Route("/v2/health/live", ready),
            Route("/v2/health/ready", ready),
            Route("/v2/models/{name}", metadata),
            Route("/v2/models/{name}/ready", model_ready),
            Route("/v2/models/{name}/infer", infer, methods=["POST"]),
        ]
    )


def _json(value: object, status: int = 200) -> Response:
    return Response(orjson.dumps(value), status, media_type="application/json")


async def serve(model: Model, sock: socket.socket) -> None:
    """Serve until SIGTERM, SIGINT or the end of standard input."""
    server = uvicorn.Server(uvicorn.Config(create(model), log_level="warning", access_log=False, lifespan="off"))
    loop, stdin = asyncio.get_running_loop(), sys.stdin.fileno()

    def leave() -> None:
        if not os.read(stdin, 4096):
            loop.remove_reader(stdin)
            server.should_exit = True

    loop.add_reader(stdin, leave)
    await server.serve(sockets=[sock])


def main() -> None:
    """Read the model named on the command line, print the port, serve."""
    model = read(Path(sys.argv[1]))
    # IPPROTO_TCP is given because asyncio turns Nagle's algorithm off only for sockets made with it. With Nagle's
    # algorithm every answer, written as head and body, would wait 40 ms for the client to acknowledge the head.
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen(256)
        sys.stdout.write(f"{sock.getsockname()[1]}\n")
        sys.stdout.flush()
        uvloop.run(serve(model, sock))


if __name__ == "__main__":
    main()
