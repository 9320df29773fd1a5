"""A proxy as a team would write it with aiohttp: split by user, mirror, a log line in JSON. Not part of Turnout.

Run as a program with one argument, the job in JSON; see ``handmade``. It may import nothing of this project: it runs in
the environment of the peers.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
import zlib

import aiohttp
from aiohttp import web

JOB = json.loads(sys.argv[1])
LOG = open(JOB["log"], "a", buffering=65536)  # noqa: SIM115
COPIES = set()  # type: ignore[var-annotated]


async def proxy(request: web.Request) -> web.Response:
    began, body, unit = time.perf_counter(), await request.read(), request.headers.get("x-user-id", "")
    session, headers = request.app["session"], {k: v for k, v in request.headers.items() if k != "Host"}
    variant = JOB["variants"][zlib.crc32(unit.encode()) % len(JOB["variants"])]

    async def call(port: int) -> tuple[int, str, bytes]:
        url = f"http://127.0.0.1:{port}{request.path_qs}"
        async with session.request(request.method, url, headers=headers, data=body) as answer:
            return answer.status, answer.content_type, await answer.read()

    if JOB["mirror"] and random.random() < JOB["share"]:
        COPIES.add(copy := asyncio.create_task(call(JOB["mirror"])))
        copy.add_done_callback(COPIES.discard)
    status, kind, content = await call(variant)
    taken = 1000 * (time.perf_counter() - began)
    LOG.write(json.dumps({"at": time.time(), "unit": unit, "variant": variant, "status": status, "ms": taken}) + "\n")
    return web.Response(status=status, body=content, content_type=kind)


async def session(app: web.Application):  # type: ignore[no-untyped-def]
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as app["session"]:
        yield


if __name__ == "__main__":
    app = web.Application(client_max_size=2**24)
    app.cleanup_ctx.append(session)
    app.router.add_route("*", "/{path:.*}", proxy)
    web.run_app(app, host="127.0.0.1", port=JOB["port"], access_log=None, print=None)
