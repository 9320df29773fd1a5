"""nginx: split_clients by the user's header, mirror, an access log in JSON to a file.

Rule: one worker process on the gateway's core, and only that one is counted. It does not read answers.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from gateway.demo.processes import free_ports
from loadtests.machine import GATEWAY_CORE, children
from loadtests.origin import nginx_user
from loadtests.peers.peer import Gateway, Job, Peer, scratch
from loadtests.processes import listening, running, until

_CONFIG: Final = """
{user}daemon off; worker_processes {workers}; pid {here}/nginx.pid; error_log stderr error;
worker_rlimit_nofile 20000;
events {{ worker_connections 10000; }}
http {{
  client_body_temp_path {here}/body; proxy_temp_path {here}/proxy; fastcgi_temp_path {here}/fastcgi;
  uwsgi_temp_path {here}/uwsgi; scgi_temp_path {here}/scgi;
  client_max_body_size 10m; keepalive_requests 1000000000; keepalive_timeout 1h; proxy_read_timeout 60s;
  log_format bench escape=json '{{"at":$msec,"id":"$request_id","unit":"$http_x_user_id","method":"$request_method",'
    '"path":"$request_uri","variant":"$variant","status":$status,"latency_ms":"$upstream_response_time",'
    '"total_ms":"$request_time","traceparent":"$http_traceparent"}}';
  access_log {here}/access.log bench buffer=64k flush=1s;
  {upstreams}
  split_clients $http_x_user_id $variant {{ {shares} }}
  split_clients $request_id $copied {{ {copied} }}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off; {requests}
    location / {{ {mirror} proxy_pass http://$variant; }}
    location = /-copy {{ internal; if ($copied = 0) {{ return 204; }} proxy_pass http://copy$request_uri; }}
  }}
}}
"""


def config(job: Job, port: int, here: Path) -> str:
    """Return nginx's configuration."""
    upstreams = {f"variant_{number}": port for number, port in enumerate(job.variants)}
    first, *rest = upstreams
    shares = f"50% {first}; * {rest[0]};" if rest else f"* {first};"
    upstreams["copy"] = job.mirror if job.mirror is not None else job.variants[0]
    return _CONFIG.format(
        user=nginx_user(),
        workers=job.workers,
        here=here,
        port=port,
        upstreams="\n".join(
            f"upstream {name} {{ server 127.0.0.1:{to}; keepalive 256; keepalive_requests 1000000000; }}"
            for name, to in upstreams.items()
        ),
        shares=shares,
        copied=f"{job.mirror_share:.0%} 1; * 0;" if job.mirror is not None else "* 0;",
        # A mirror needs the whole body in a buffer; without one nginx need not buffer requests.
        requests="proxy_request_buffering off;" if job.mirror is None else "",
        mirror="mirror /-copy;" if job.mirror is not None else "",
    )


@contextmanager
def _serve(job: Job, directory: Path) -> Iterator[Gateway]:
    here = scratch(directory, "nginx")
    (port,) = free_ports(1)
    file, log = here / "nginx.conf", here / "nginx.log"
    file.write_text(config(job, port, here))
    with running(("nginx", "-e", "stderr", "-p", here, "-c", file), log, core=GATEWAY_CORE) as process:
        listening(port, process, log)
        until(lambda: len(children(process.pid)) == job.workers, "nginx has its workers")
        yield Gateway(port=port, carriers=tuple(pid for pid, _ in children(process.pid)))


NGINX: Final = Peer(
    name="nginx",
    note="split_clients, mirror (a subrequest each, 10 % of them sent), JSON log in a buffer; does not read answers",
    absent=lambda: None if shutil.which("nginx") else "nginx is not installed (Debian: apt install nginx-light)",
    serve=_serve,
)
