"""``python -m loadtests.browser``: a browser's EventSource through Turnout, one event at a time.

Rule: the model sends the next event only after the page has confirmed the previous one with a request of its own; so a
gateway that held anything back would stop the stream. Needs Chromium (Debian: chromium), which is too large to install
for every run of the tests.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from loadtests.conformance import TURNOUT, Server, free_ports, running
from tests.gateway.proxy.faults import Wire, backend

PAGE: Final = b"""<!doctype html><title>events</title><script>
const source = new EventSource("/events");
source.onmessage = (event) => {
  fetch("/heard", {method: "POST", body: event.data});
  if (event.data === "last") source.close();
};
</script>"""
_SECONDS: Final = 60.0


@dataclass
class Dictation:
    """A model that serves the page, and sends each event once the page has confirmed the previous one."""

    events: int
    heard: list[str] = field(default_factory=list)
    change: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def __call__(self, wire: Wire) -> None:
        while (request := await wire.request()) is not None:
            target = request.line.split()[1]
            if target == b"/events":
                await self._speak(wire)
            elif target == b"/heard":
                async with self.change:
                    self.heard.append(request.body.decode())
                    self.change.notify_all()
                await wire.send(b"HTTP/1.1 204 No Content\r\n\r\n")
            elif target == b"/":
                head = b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: %d\r\n\r\n" % len(PAGE)
                await wire.send(head + PAGE)
            else:
                await wire.send(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n")

    async def _speak(self, wire: Wire) -> None:
        await wire.send(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        for number in range(self.events):
            async with self.change:
                while len(self.heard) < number:
                    await self.change.wait()
            word = b"last" if number == self.events - 1 else b"%d" % number
            event = b"data: %b\n\n" % word
            await wire.send(b"%x\r\n%b\r\n" % (len(event), event))
        await wire.send(b"0\r\n\r\n")

    async def whole(self) -> None:
        """Return when the page has confirmed the last event."""
        async with self.change:
            await self.change.wait_for(lambda: "last" in self.heard)


async def listen(browser: str, events: int) -> list[str]:
    """Let the browser read events through Turnout; return the events that its page reports."""
    with tempfile.TemporaryDirectory(prefix="turnout-browser-") as name:
        directory = Path(name)
        model = Dictation(events)
        async with backend(model) as behind:
            listening, admin = free_ports(2)
            file = directory / "turnout.toml"
            file.write_text(TURNOUT.format(directory=directory, listen=listening, admin=admin, backend=behind.port))
            command = (sys.executable, "-m", "gateway.cli", "serve", "-c", str(file))
            async with running(Server("Turnout", "", command, listening), directory / "turnout.log"):
                process = await asyncio.create_subprocess_exec(
                    browser,
                    "--headless=new",
                    "--no-sandbox",  # Chromium started by root needs it
                    "--disable-gpu",
                    f"--user-data-dir={directory / 'profile'}",
                    f"http://127.0.0.1:{listening}/",
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                )
                try:
                    await asyncio.wait_for(model.whole(), _SECONDS)
                finally:
                    process.terminate()
                    await process.wait()
        return model.heard


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m loadtests.browser", description="EventSource through Turnout.")
    parser.add_argument("--events", type=int, default=100, help="how many events (100)")
    options = parser.parse_args()
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        raise SystemExit("no Chromium is installed (Debian: chromium)")
    heard = asyncio.run(listen(browser, options.events))
    expected = [*map(str, range(options.events - 1)), "last"]
    if heard != expected:
        raise SystemExit(f"not in step: {heard}")
    print(f"a browser received {len(heard)} events, one by one and in order")


if __name__ == "__main__":
    main()
