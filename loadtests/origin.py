"""What stands behind every gateway: the cheapest server there is, answering at once and always the same.

Rule: the same for all in one run. nginx if it is installed, because it costs a third of anything in Python; else
``loadtests.backend``. Pinned to the core of the load.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from gateway.demo.processes import free_ports
from loadtests.backend import CONTENT
from loadtests.machine import LOAD_CORE
from loadtests.processes import listening, running

_NGINX: Final = """
{user}daemon off; master_process off; pid {directory}/origin.pid; error_log stderr error;
worker_rlimit_nofile 20000;
events {{ worker_connections 10000; }}
http {{
  access_log off; client_body_temp_path {directory}/origin.body;
  proxy_temp_path {directory}/origin.proxy; fastcgi_temp_path {directory}/origin.fastcgi;
  uwsgi_temp_path {directory}/origin.uwsgi; scgi_temp_path {directory}/origin.scgi;
  keepalive_requests 1000000000; keepalive_timeout 1h;
  server {{ {listen} location / {{ default_type application/json; return 200 '{content}'; }} }}
}}
"""


def nginx_user() -> str:
    """Return the line that keeps nginx from giving up root, without which it could not read our scratch directory."""
    return "user root;\n" if os.geteuid() == 0 else ""


@contextmanager
def origins(count: int, directory: Path) -> Iterator[tuple[int, ...]]:
    """Start the backend on so many ports and give them."""
    if shutil.which("nginx") is None:
        with backends([()] * count, directory) as ports:
            yield ports
        return
    ports = tuple(free_ports(count))
    file, log = directory / "origin.conf", directory / "origin.log"
    listen = " ".join(f"listen 127.0.0.1:{port} backlog=4096;" for port in ports)
    content = CONTENT.decode()
    file.write_text(_NGINX.format(user=nginx_user(), directory=directory, listen=listen, content=content))
    with running(("nginx", "-e", "stderr", "-p", directory, "-c", file), log, core=LOAD_CORE) as process:
        for port in ports:
            listening(port, process, log)
        yield ports


@contextmanager
def backends(arguments: Sequence[Sequence[str]], directory: Path) -> Iterator[tuple[int, ...]]:
    """Start one ``loadtests.backend`` for each list of arguments and give their ports."""
    with ExitStack() as held:
        ports = []
        for number, options in enumerate(arguments):
            command = (sys.executable, "-m", "loadtests.backend", *options)
            log = directory / f"backend-{number}.log"
            process = held.enter_context(running(command, log, core=LOAD_CORE, says=True))
            assert process.stdout is not None
            ports.append(int(process.stdout.readline()))
        yield tuple(ports)
