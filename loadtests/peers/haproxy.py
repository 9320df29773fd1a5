"""HAProxy: half of the users to each backend by a hash of their header, a log line in JSON for each request.

Rule: one thread on the gateway's core; counted is the whole process. It cannot copy requests (2.x needs a
separate agent for that), so in scenarios with a mirror it does less than the others.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from gateway.demo.processes import free_ports
from loadtests.machine import GATEWAY_CORE
from loadtests.peers.peer import Gateway, Job, Peer, scratch
from loadtests.processes import listening, running

_CONFIG: Final = """
global
  nbthread {workers}
  maxconn 9000
  log stdout format raw local0 info
defaults
  mode http
  log global
  option http-keep-alive
  option http-no-delay
  http-reuse always
  timeout connect 2s
  timeout client 75s
  timeout server 60s
  timeout http-keep-alive 75s
frontend bench
  bind 127.0.0.1:{port} backlog 4096
  unique-id-format %[uuid()]
  http-request set-var(txn.unit) req.hdr(x-user-id)
  http-request set-var(txn.trace) req.hdr(traceparent)
  log-format '{{"at":"%Ts.%ms","id":"%ID","unit":"%[var(txn.unit),json(utf8s)]","method":"%HM","path":"%HP",\
"variant":"%b","status":%ST,"fault":"%tsc","latency_ms":%Tr,"total_ms":%Ta,"traceparent":"%[var(txn.trace),json(utf8s)]"}}'
{choice}
{backends}
"""

_SECOND: Final = "  use_backend variant_1 if { req.hdr(x-user-id),xxh32(7),mod(2) eq 1 }\n"


def config(job: Job, port: int) -> str:
    """Return HAProxy's configuration."""
    backends = [f"backend variant_{n}\n  server model 127.0.0.1:{to}" for n, to in enumerate(job.variants)]
    return _CONFIG.format(
        workers=job.workers,
        port=port,
        choice=(_SECOND if len(job.variants) == 2 else "") + "  default_backend variant_0",
        backends="\n".join(backends),
    )


@contextmanager
def _serve(job: Job, directory: Path) -> Iterator[Gateway]:
    here = scratch(directory, "haproxy")
    (port,) = free_ports(1)
    file, log = here / "haproxy.cfg", here / "haproxy.log"
    file.write_text(config(job, port))
    with running(("haproxy", "-db", "-f", file), log, core=GATEWAY_CORE) as process:
        listening(port, process, log)
        yield Gateway(port=port, carriers=(process.pid,))


HAPROXY: Final = Peer(
    name="HAProxy",
    note="use_backend by header hash, JSON log line; NO mirror (it has none without an agent); does not read answers",
    absent=lambda: None if shutil.which("haproxy") else "HAProxy is not installed (Debian: apt install haproxy)",
    serve=_serve,
)
