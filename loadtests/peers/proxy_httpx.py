"""A proxy as a team would write it with Starlette and httpx: split by user, mirror, a log line in JSON.

Not part of Turnout. Run as a program with one argument, the job in JSON; see ``handmade``.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
import zlib
from typing import Any

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

JOB = json.loads(sys.argv[1]) if __name__ == "__main__" else {}
LOG = open(JOB["log"] if JOB else "/dev/null", "a", buffering=65536)  # noqa: SIM115
COPIES = set[asyncio.Task[Any]]()
CLIENT = httpx.AsyncClient(limits=httpx.Limits(max_connections=1000, max_keepalive_connections=1000))


async def proxy(request: Request) -> Response:
    began, body, unit = time.perf_counter(), await request.body(), request.headers.get("x-user-id", "")
    headers = {k: v for k, v in request.headers.items() if k != "host"}
    variant = JOB["variants"][zlib.crc32(unit.encode()) % len(JOB["variants"])]

    async def call(port: int) -> httpx.Response:
        return await CLIENT.request(
            request.method, f"http://127.0.0.1:{port}{request.url.path}", headers=headers, content=body
        )

    if JOB["mirror"] and random.random() < JOB["share"]:
        COPIES.add(copy := asyncio.create_task(call(JOB["mirror"])))
        copy.add_done_callback(COPIES.discard)
    answer = await call(variant)
    taken, status = 1000 * (time.perf_counter() - began), answer.status_code
    LOG.write(json.dumps({"at": time.time(), "unit": unit, "variant": variant, "status": status, "ms": taken}) + "\n")
    return Response(answer.content, status, media_type=answer.headers.get("content-type"))


if __name__ == "__main__":
    app = Starlette(routes=[Route("/{path:path}", proxy, methods=["GET", "POST"])])
    uvicorn.run(app, host="127.0.0.1", port=JOB["port"], access_log=False, log_level="error")
