"""A webhook's receiver that is down for a while, then answers 500 half the time: what arrives, and how often.

    python -m loadtests.webhooks --minutes 10

Rule: the program's own store, outbox and courier on a real socket. Every event must arrive, each repeat with its id.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from collections import Counter
from functools import partial
from pathlib import Path
from time import monotonic, time_ns

from gateway.control.record.transaction import queue_events
from gateway.sinks.courier import Courier
from gateway.sinks.webhook import Webhook
from gateway.store import Store
from gateway.store.rows import deliveries, outbox
from gateway.store.rows.recorded import Announced, Recorded
from router.snapshot import Sink

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


class Pipeline:
    """The receiver: the ids of what it took, and how often each came."""

    def __init__(self) -> None:
        self.asked, self.taken = Counter[str](), Counter[str]()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := (await reader.readuntil(b"\r\n\r\n")).decode():
                fields = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:] if line)
                await reader.readexactly(int(fields["content-length"]))
                name = fields["webhook-id"]
                self.asked[name] += 1
                fails = self.asked[name] == 1 and sum(self.asked.values()) % 2
                if not fails:
                    self.taken[name] += 1
                status = "500 No" if fails else "204 Yes"
                writer.write(f"HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n".encode())
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()


async def outage(minutes: float, each_seconds: float) -> bool:
    """Run it; return whether everything arrived."""
    pipeline = Pipeline()
    server = await asyncio.start_server(pipeline.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "secret").write_text(SECRET)
        sink = Sink(
            name="hook",
            kind="webhook",
            url=f"http://127.0.0.1:{port}/",
            allow_private=True,
            secret=f"${{file:{folder}/secret}}",
            events=("trigger",),
        )
        store = await Store.open("sqlite", Path(folder))
        sending = asyncio.create_task(Courier(store, sink, partial(Webhook, sink)).run())
        made, began = 0, monotonic()
        while monotonic() - began < 60 * minutes:
            made += 1
            told = Announced("trigger", time_ns() // 1_000_000, f"retrain.{made}", "digits", {"why": "drift"})
            async with store.change() as connection:
                await queue_events(connection, Recorded(announced=[told]), {"hook": sink})
            await asyncio.sleep(each_seconds)
        async with store.read() as connection:
            tried = len(await deliveries.tries(connection, "hook"))
        server = await asyncio.start_server(pipeline.serve, "127.0.0.1", port)
        back = monotonic()
        while (waiting := await _pending(store)) and monotonic() - back < 400:
            await asyncio.sleep(0.2)
        took = monotonic() - back
        sending.cancel()
        await asyncio.wait([sending])
        server.close()
        await store.close()
    repeated = sum(n - 1 for n in pipeline.taken.values())
    print(f"{made} events in {minutes:g} minutes without a receiver ({tried} of the last tries are kept)")
    print(f"{len(pipeline.taken)} arrived within {took:.1f} s of its return, {repeated} of them again; {waiting} wait")
    return len(pipeline.taken) == made and not waiting


async def _pending(store: Store) -> int:
    async with store.read() as connection:
        return (await outbox.counted(connection)).get("hook", Counter())["pending"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--each-seconds", type=float, default=5.0)
    given = parser.parse_args()
    raise SystemExit(0 if asyncio.run(outage(given.minutes, given.each_seconds)) else 1)


if __name__ == "__main__":
    main()
