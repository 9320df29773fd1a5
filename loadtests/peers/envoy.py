"""Envoy: weighted clusters by a hash of the user's header, a request mirror, an access log in JSON to a file.

Rule: one worker thread (``--concurrency 1``) on the gateway's core; counted is the whole process, with the thread that
flushes its log. It does not read the prediction from the answer.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from gateway.demo.processes import free_ports
from loadtests.machine import GATEWAY_CORE, children
from loadtests.peers.install import INSTALLED
from loadtests.peers.peer import Gateway, Job, Peer, scratch
from loadtests.processes import listening, running

_TYPE: Final = "type.googleapis.com/envoy.extensions"

#: More than any scenario holds open, so that the circuit breaker limits nothing.
_MANY: Final = 100_000

#: The fields that Turnout's journal has, too, as far as Envoy knows them.
_LOGGED: Final = {
    "at": "%START_TIME%",
    "id": "%REQ(X-REQUEST-ID)%",
    "unit": "%REQ(X-USER-ID)%",
    "method": "%REQ(:METHOD)%",
    "path": "%REQ(:PATH)%",
    "variant": "%UPSTREAM_CLUSTER%",
    "status": "%RESPONSE_CODE%",
    "fault": "%RESPONSE_FLAGS%",
    "latency_ms": "%RESPONSE_DURATION%",
    "total_ms": "%DURATION%",
    "traceparent": "%REQ(TRACEPARENT)%",
}


def _binary() -> Path | None:
    beside = INSTALLED / "envoy"
    if beside.exists():
        return beside
    found = shutil.which("envoy")
    return Path(found) if found else None


def _absent() -> str | None:
    return None if _binary() else "Envoy is not installed (make bench installs it; or put envoy on the PATH)"


def config(job: Job, port: int, log: Path) -> dict[str, Any]:
    """Return Envoy's bootstrap configuration."""
    clusters = {f"variant_{number}": port for number, port in enumerate(job.variants)}
    action: dict[str, Any] = {"timeout": "0s"}
    if len(clusters) == 1:
        action["cluster"] = "variant_0"
    else:
        action["hash_policy"] = [{"header": {"header_name": "x-user-id"}}]
        weights = [{"name": name, "weight": 50} for name in clusters]
        action["weighted_clusters"] = {"clusters": weights, "use_hash_policy": True}
    if job.mirror is not None:
        clusters["copy"] = job.mirror
        share = {"numerator": round(job.mirror_share * 1_000_000), "denominator": "MILLION"}
        action["request_mirror_policies"] = [{"cluster": "copy", "runtime_fraction": {"default_value": share}}]
    return {
        "static_resources": {
            "listeners": [_listener(port, action, log)],
            "clusters": [_cluster(name, port) for name, port in clusters.items()],
        }
    }


def _listener(port: int, action: dict[str, Any], log: Path) -> dict[str, Any]:
    manager = {
        "@type": f"{_TYPE}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "bench",
        "codec_type": "HTTP1",
        "access_log": [
            {
                "name": "file",
                "typed_config": {
                    "@type": f"{_TYPE}.access_loggers.file.v3.FileAccessLog",
                    "path": str(log),
                    "log_format": {"json_format": _LOGGED},
                },
            }
        ],
        "route_config": {
            "virtual_hosts": [
                {"name": "all", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": action}]}
            ]
        },
        "http_filters": [{"name": "router", "typed_config": {"@type": f"{_TYPE}.filters.http.router.v3.Router"}}],
    }
    return {
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
        "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
    }


def _cluster(name: str, port: int) -> dict[str, Any]:
    many = {f"max_{what}": _MANY for what in ("connections", "pending_requests", "requests")}
    address = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
    return {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "2s",
        "circuit_breakers": {"thresholds": [many]},
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
        },
    }


@contextmanager
def _serve(job: Job, directory: Path) -> Iterator[Gateway]:
    here = scratch(directory, "envoy")
    (port,) = free_ports(1)
    file, log = here / "envoy.json", here / "envoy.log"
    file.write_text(json.dumps(config(job, port, here / "access.log")))
    binary = _binary()
    assert binary is not None
    options = ("--concurrency", str(job.workers), "--disable-hot-restart", "--log-level", "error")
    with running((binary, "-c", file, *options), log, core=GATEWAY_CORE) as process:
        listening(port, process, log)
        # The wheel's command replaces itself with Envoy; if it starts Envoy as a child instead, that is counted as
        # well.
        yield Gateway(port=port, carriers=(process.pid, *(pid for pid, _ in children(process.pid))))


ENVOY: Final = Peer(
    name="Envoy",
    note="weighted clusters by header hash, request mirror, JSON access log; does not read answers",
    absent=_absent,
    serve=_serve,
)
