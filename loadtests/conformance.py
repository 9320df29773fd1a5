"""``python -m loadtests.conformance``: the payloads of the conformance tests, sent through nginx, HAProxy and Turnout.

Rule: each server gets the same bytes, on a connection of their own, has the simplest possible proxy configuration, and
stands in front of the same recording backend. The table says what each answered and how many requests reached the
backend; it is a record of what was measured, not a claim. A server that is not installed is left out, and the output
says so.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.gateway.proxy.faults import OK, Backend, Wire, backend
from tests.gateway.proxy.payloads import PAYLOADS, Payload

TABLE: Final = Path(__file__).parent / "CONFORMANCE.md"
#: Seconds without a byte after which an answer is taken as complete; each server's timeout for a client is one second.
_QUIET_SECONDS: Final = 2.5
_START_SECONDS: Final = 20.0
#: Bytes sent at once. Larger payloads go in pieces, as a server may close before it has read all.
_PIECE: Final = 16_384

NGINX: Final = """
daemon off; master_process off; worker_processes 1; user root; pid {directory}/nginx.pid;
error_log {directory}/error.log; events {{ worker_connections 256; }}
http {{
  access_log off; client_header_timeout 1s; client_body_timeout 1s; keepalive_timeout 1s; client_max_body_size 10m;
  client_body_temp_path {directory}/body; proxy_temp_path {directory}/proxy; fastcgi_temp_path {directory}/fastcgi;
  uwsgi_temp_path {directory}/uwsgi; scgi_temp_path {directory}/scgi;
  server {{
    listen 127.0.0.1:{listen};
    location / {{
      proxy_pass http://127.0.0.1:{backend}; proxy_http_version 1.1;
      proxy_set_header Connection ""; proxy_set_header Host $host;
    }}
  }}
}}
"""
HAPROXY: Final = """
global
  maxconn 256
defaults
  mode http
  timeout connect 1s
  timeout client 1s
  timeout server 5s
  timeout http-request 1s
  timeout http-keep-alive 1s
frontend clients
  bind 127.0.0.1:{listen}
  default_backend model
backend model
  server model 127.0.0.1:{backend}
"""
TURNOUT: Final = """
schema_version = 1
[gateway]
listen = "127.0.0.1:{listen}"
admin = "127.0.0.1:{admin}"
data_dir = "{directory}/data"
header_timeout_ms = 1000
body_timeout_ms = 1000
keepalive_timeout_ms = 1000
[backends.model]
url = "http://127.0.0.1:{backend}"
version = "1"
[routes.all]
path = "/*"
[routes.all.policy]
kind = "single"
variant = "model"
"""

PREFACE: Final = """# What other servers make of the same bytes

Written by `python -m loadtests.conformance --write`; nobody edits it. Each cell has the statuses that a client read
and, behind the dot, how many requests the backend saw. What must be refused is followed by a request for
`/smuggled` on the same connection, what must be taken by one for `/last`: more requests behind than meant, or
fewer, is what smuggling is made of. The payloads are those of `tests/gateway/proxy/payloads.py`, their duties the
tests `test_duties_*.py` beside it. **Bold** is where another server passed on more or fewer requests than Turnout.
Each has the plainest configuration of a proxy; nginx and HAProxy can be told to be stricter.
"""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of one payload: the statuses a client read, without interim ones, and the requests the backend got."""

    statuses: tuple[str, ...]
    seen: tuple[bytes, ...]

    def __str__(self) -> str:
        said = " ".join(self.statuses) or "closed"
        return f"{said} · {len(self.seen)}"


@dataclass
class Server:
    """One server under test. ``outcomes`` are in the order of the payloads."""

    name: str
    version: str
    command: Sequence[str]
    port: int
    outcomes: list[Outcome] = field(default_factory=list)


async def recording(wire: Wire) -> None:
    """Answer every request, whatever it consists of. If one cannot be parsed the connection ends."""
    with contextlib.suppress(ValueError, asyncio.IncompleteReadError):
        while await wire.request() is not None:
            await wire.send(OK)


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as held:
        return [held.enter_context(socket.create_server(("127.0.0.1", 0))).getsockname()[1] for _ in range(count)]


def servers(directory: Path, model: int) -> list[Server]:
    """Write the configuration of each server that is installed, Turnout last."""
    first, second, third, admin = free_ports(4)
    found = []
    for name, program, text, listen, options in (
        ("nginx", "nginx", NGINX, first, ("-c",)),
        ("HAProxy", "haproxy", HAPROXY, second, ("-db", "-f")),
    ):
        path = shutil.which(program, path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
        if path is None:
            print(f"{name} is not installed and left out (Debian: nginx-light, haproxy)", file=sys.stderr)
            continue
        place = directory / program
        place.mkdir()
        file = place / "config"
        file.write_text(text.format(directory=place, listen=listen, backend=model))
        found.append(Server(name, _version(path), (path, *options, str(file)), listen))
    file = directory / "turnout.toml"
    file.write_text(TURNOUT.format(directory=directory, listen=third, admin=admin, backend=model))
    found.append(Server("Turnout", "", (sys.executable, "-m", "gateway.cli", "serve", "-c", str(file)), third))
    return found


def _version(program: str) -> str:
    said = subprocess.run([program, "-v"], capture_output=True, text=True)
    number = re.search(r"\d+\.\d+\.\d+", said.stdout + said.stderr)
    return number[0] if number else ""


@asynccontextmanager
async def running(server: Server, log: Path) -> AsyncIterator[None]:
    """Start a server, wait until it answers, and end it by its process id on leaving."""
    with log.open("wb") as written:
        process = await asyncio.create_subprocess_exec(
            *server.command, stdin=subprocess.DEVNULL, stdout=written, stderr=written
        )
    try:
        async with asyncio.timeout(_START_SECONDS):
            while True:
                if process.returncode is not None:
                    raise SystemExit(f"{server.name} did not come up:\n{log.read_text()}")
                with contextlib.suppress(OSError):
                    if await sent(server.port, b"GET /up HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"):
                        break
                await asyncio.sleep(0.1)
        yield
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        await process.wait()


async def sent(port: int, raw: bytes) -> bytes:
    """Send bytes on a connection of their own and return what comes back until it ends or falls silent."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    answer = b""
    try:
        with contextlib.suppress(ConnectionError, TimeoutError):
            for at in range(0, len(raw), _PIECE):
                writer.write(raw[at : at + _PIECE])
                await asyncio.wait_for(writer.drain(), _QUIET_SECONDS)
        with contextlib.suppress(ConnectionError, TimeoutError):
            while piece := await asyncio.wait_for(reader.read(65_536), _QUIET_SECONDS):
                answer += piece
    finally:
        writer.transport.abort()
    return answer


async def outcome(server: Server, payload: Payload, model: Backend) -> Outcome:
    model.requests.clear()
    answer = await sent(server.port, payload.raw)
    found = [status.decode() for status in re.findall(rb"HTTP/1\.[01] (\d{3})", answer)]
    statuses = tuple(status for status in found if status != "100")
    if answer and not found:
        statuses = ("without a head",)  # HTTP/0.9
    return Outcome(statuses, tuple(request.line for request in model.requests))


async def measure() -> list[Server]:
    """Send every payload through every server."""
    with tempfile.TemporaryDirectory(prefix="turnout-conformance-") as name:
        directory = Path(name)
        async with AsyncExitStack() as stack:
            model = await stack.enter_async_context(backend(recording))
            found = servers(directory, model.port)
            for server in found:
                await stack.enter_async_context(running(server, directory / f"{server.name}.log"))
            for payload in PAYLOADS:
                for server in found:
                    server.outcomes.append(await outcome(server, payload, model))
    return found


def table(found: Sequence[Server]) -> str:
    """Return the page."""
    *others, ours = found
    names = [f"{server.name} {server.version}".strip() for server in found]
    lines = [
        PREFACE,
        f"| duty | payload | {' | '.join(names)} | why we differ |",
        f"|---|---|{'---|' * len(found)}---|",
    ]
    differing = 0
    for number, payload in enumerate(PAYLOADS):
        mine = ours.outcomes[number]
        cells, differs = [], False
        for server in others:
            theirs = server.outcomes[number]
            unlike = len(theirs.seen) != len(mine.seen)
            differs = differs or unlike
            cells.append(f"**{theirs}**" if unlike else str(theirs))
        differing += differs
        right = [str(status) for status in payload.statuses] == list(mine.statuses) and mine.seen == payload.seen
        cells.append(str(mine) if right else f"{mine} (not as it must be)")
        why = (payload.why or "no reason is given") if differs else ""
        lines.append(f"| {payload.duty} | {payload.name} | {' | '.join(cells)} | {why} |")
    lines += ["", f"{len(PAYLOADS)} payloads; at {differing} of them Turnout differs from another server.", ""]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m loadtests.conformance", description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help=f"write the table to {TABLE.name} as well")
    options = parser.parse_args()
    page = table(asyncio.run(measure()))
    print(page)
    if options.write:
        TABLE.write_text(page)
    if "not as it must be" in page or "no reason is given" in page:
        raise SystemExit("the table has a line that is not explained")


if __name__ == "__main__":
    main()
