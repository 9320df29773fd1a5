"""LiteLLM's proxy, passing requests through to one backend: optional, because its packages are many.

Rule: it takes part in scenarios with one backend and without a mirror: its pass-through endpoints can neither split nor
mirror. Install ``litellm[proxy]`` into .venv-bench to have it measured.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from gateway.demo.processes import free_ports
from loadtests.machine import GATEWAY_CORE
from loadtests.peers.install import INSTALLED
from loadtests.peers.peer import Gateway, Job, Peer, scratch
from loadtests.processes import listening, running
from loadtests.request import PATH


@contextmanager
def _serve(job: Job, directory: Path) -> Iterator[Gateway]:
    here = scratch(directory, "litellm")
    (port,) = free_ports(1)
    file, log = here / "litellm.json", here / "litellm.log"
    through = {"path": PATH, "target": f"http://127.0.0.1:{job.variants[0]}{PATH}"}
    # With a master key it would look up every caller in a database; on the loopback it needs none.
    settings = {"dangerously_permit_weak_or_unset_master_key": True, "pass_through_endpoints": [through]}
    file.write_text(json.dumps({"model_list": [], "general_settings": settings}))
    options = ("--config", file, "--host", "127.0.0.1", "--port", str(port), "--num_workers", "1")
    with running((INSTALLED / "litellm", *options), log, core=GATEWAY_CORE) as process:
        listening(port, process, log, seconds=90)
        yield Gateway(port=port, carriers=(process.pid,))


LITELLM: Final = Peer(
    name="LiteLLM",
    note="a pass-through endpoint; no split, no mirror",
    absent=lambda: None if (INSTALLED / "litellm").exists() else "litellm[proxy] is optional and not in .venv-bench",
    serve=_serve,
    handmade=True,
    splits=False,
)
