"""The model behind every measurement: it answers at once and always the same. ``python -m loadtests.backend``.

Rule: costs as little as a server can, so that what is measured is what stands in front of it. Takes a free port, says
which on its first line of output, and ends when its standard input closes.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from typing import cast

import httptools
import uvloop

CONTENT = b'{"model_name":"m","model_version":"1","outputs":[{"name":"y","shape":[1],"datatype":"INT64","data":[7]}]}'
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(CONTENT), CONTENT)


class Model(asyncio.Protocol):
    """One connection."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._parser = httptools.HttpRequestParser(self)
        self._write: Callable[[bytes], None] = cast(asyncio.Transport, transport).write

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_complete(self) -> None:
        self._write(ANSWER)


async def serve() -> None:
    loop = asyncio.get_running_loop()
    over = asyncio.Event()

    def look() -> None:
        if not os.read(sys.stdin.fileno(), 4096):
            loop.remove_reader(sys.stdin.fileno())
            over.set()

    loop.add_reader(sys.stdin.fileno(), look)
    server = await loop.create_server(Model, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await over.wait()


if __name__ == "__main__":
    uvloop.run(serve())
