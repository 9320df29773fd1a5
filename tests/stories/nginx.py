"""A real nginx before or behind the program, with the configuration that its users would write."""

from __future__ import annotations

import contextlib
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.ports import free_port
from tests.stories.harness import eventually

PROGRAM = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
needs_nginx = pytest.mark.skipif(PROGRAM is None, reason="nginx is not installed; in CI .ci/run installs it")

CONFIG = """
daemon off;
master_process off;
worker_processes 1;
{user}
pid {directory}/nginx.pid;
error_log {directory}/nginx.log;
events {{ worker_connections 256; }}
http {{
  access_log off;
  client_body_temp_path {directory}/body;
  proxy_temp_path {directory}/proxy;
  fastcgi_temp_path {directory}/fastcgi;
  uwsgi_temp_path {directory}/uwsgi;
  scgi_temp_path {directory}/scgi;
  server {{
    listen 127.0.0.1:{listen};
    location / {{
      proxy_pass {to};
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_set_header Host $host;
      proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
      proxy_set_header X-Forwarded-Proto $scheme;
      proxy_buffering off;
    }}
  }}
}}
"""


@contextmanager
def nginx(directory: Path, to: str) -> Iterator[str]:
    """Run nginx in front of a URL, with its files in a directory; give its own URL."""
    assert PROGRAM is not None
    port = free_port()
    directory.mkdir()
    # nginx started by root would give its files to a user that may not even enter the directory.
    user = "user root;" if Path("/proc/self").stat().st_uid == 0 else ""
    file = directory / "nginx.conf"
    file.write_text(CONFIG.format(directory=directory, user=user, listen=port, to=to))
    with (directory / "output").open("wb") as log:
        process = subprocess.Popen([PROGRAM, "-c", str(file)], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        eventually(lambda: _listens(port), f"nginx listens\n{(directory / 'output').read_text()}")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(10)


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False
