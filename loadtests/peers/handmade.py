"""Two proxies of about twenty lines each, as a team might write them before it looks for a product.

Rule: one process on the gateway's core, with the same task as the others. They buffer every body whole and have no
streaming, deadlines or limits, so they take part only in scenarios where that is fair.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Final

from gateway.demo.processes import free_ports
from loadtests.machine import GATEWAY_CORE
from loadtests.peers.install import INSTALLED
from loadtests.peers.peer import Gateway, Job, Peer, scratch
from loadtests.processes import listening, running

_HERE: Final = Path(__file__).parent


def _serve(program: str, python: Path) -> Callable[[Job, Path], AbstractContextManager[Gateway]]:
    @contextmanager
    def serve(job: Job, directory: Path) -> Iterator[Gateway]:
        here = scratch(directory, program)
        (port,) = free_ports(1)
        log = here / "proxy.log"
        asked = {"port": port, "variants": job.variants, "mirror": job.mirror, "share": job.mirror_share}
        command = (python, _HERE / f"{program}.py", json.dumps({**asked, "log": str(here / "access.log")}))
        with running(command, log, core=GATEWAY_CORE) as process:
            listening(port, process, log)
            yield Gateway(port=port, carriers=(process.pid,))

    return serve


def _aiohttp_absent() -> str | None:
    if any((INSTALLED.parent / "lib").glob("python*/site-packages/aiohttp")):
        return None
    return "aiohttp is not installed in .venv-bench (make bench installs it)"


AIOHTTP: Final = Peer(
    name="aiohttp proxy",
    note="about twenty lines: crc32 of the header, a task for the mirror, json.dumps for the log; holds bodies whole",
    absent=_aiohttp_absent,
    serve=_serve("proxy_aiohttp", INSTALLED / "python"),
    handmade=True,
)
HTTPX: Final = Peer(
    name="Starlette + httpx proxy",
    note="the same with Starlette, uvicorn (httptools and uvloop) and one httpx client",
    absent=lambda: None,
    serve=_serve("proxy_httpx", Path(sys.executable)),
    handmade=True,
)
