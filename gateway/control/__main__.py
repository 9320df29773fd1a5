"""``python -m gateway.control``: the controller's process, one per node, beside the workers.

Rule: controller and admin port are put together here alone. This module owns the signals: SIGHUP reloads; SIGTERM,
SIGINT or the end of the supervisor drain the journal to its end and exit. The admin port does not wait for the store,
nor the store for the admin port.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import logging
import os
import signal
import socket
import ssl
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from gateway.admin.app import create, new_metrics
from gateway.admin.controller import Controller
from gateway.admin.port import AdminServer
from gateway.admin.port import server as admin_server
from gateway.control.acts import Act, Via, owner_of
from gateway.control.control import Control
from gateway.control.cpu_share import NICE, CpuShare, can_yield, set_idle
from gateway.control.datagrams import METRICS, listen
from gateway.control.plan.in_force import InForce
from gateway.control.plan.reload import changes, content_of
from gateway.files import tls
from gateway.files.assignment_key import KeyUnusable
from gateway.files.private import keep_private
from gateway.process.lifeline import watch_lifeline
from router.config.config import ConfigError
from router.config.diagnostics import render
from router.config.spellings import address
from router.snapshot import Gateway

logger = logging.getLogger("gateway.control")

#: EX_CONFIG and EX_UNAVAILABLE of sysexits.h.
EXIT_CONFIG: Final = 78
EXIT_UNAVAILABLE: Final = 69

#: The supervisor gives 30 s.
DRAIN_SECONDS: Final = 20.0
BIND_PAUSE_SECONDS: Final = 2.0
#: Between looks at the files of the admin port's certificate.
RENEW_SECONDS: Final = 1.0
#: Recording makes objects by the thousand, drops them with each batch and makes no cycles: collecting those every 700
#: objects, or in the middle of a batch, is waste.
GC_THRESHOLD: Final = (200_000, 20, 20)


async def run(config_path: Path, data_dir: Path, run: str | None) -> int:
    """Run the controller until a signal or a failure stops it; return the exit code."""
    seen = content_of(config_path)
    control: Control  # bound below, before the metrics first ask for the snapshot
    metrics = new_metrics(lambda: control.in_force.snapshot)
    try:
        control = Control(config_path, data_dir, metrics, run)
    except ConfigError as error:
        print(render(error.diagnostics), file=sys.stderr)  # noqa: T201
        return EXIT_CONFIG
    except KeyUnusable as error:
        logger.error("%s", error)
        return EXIT_UNAVAILABLE
    except OSError as error:
        logger.error("%s: %s", error.filename or data_dir, error.strerror or error)
        return EXIT_UNAVAILABLE
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    reloads = _Reloads(control.in_force)
    loop.add_signal_handler(signal.SIGHUP, reloads.request, "signal")
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    watch_lifeline(stopping.set)
    if not control.in_force.current:
        reloads.request("start")
    shown = Controller(
        control.in_force,
        control.queries,
        control.readiness,
        control.erasures,
        control.event_log,
        control.commands,
        control.tokens,
        control.slots,
    )
    server = admin_server(create(shown, metrics))
    parts = control.start(stopping)
    chores = [
        asyncio.create_task(reloads.run()),
        asyncio.create_task(_watch(config_path, seen, reloads)),
        asyncio.create_task(_serve(server, control)),
    ]
    if can_yield():
        chores.insert(0, asyncio.create_task(CpuShare(lambda: control.readiness.lag()[0], set_idle, stopping).run()))
    with contextlib.ExitStack() as held:
        try:
            held.callback((await listen(data_dir / METRICS, control.workers.receive)).close)
        except OSError as error:
            control.event_log.note("metrics_socket_unavailable", None, f"gauges of workers are missing: {error}")
        for task in (*chores, *parts):
            task.add_done_callback(lambda ended: stopping.set())  # the supervisor starts a controller that is whole
        await stopping.wait()
        failure = next((found for task in (*chores, *parts) if task.done() and (found := task.exception())), None)
        if failure is not None:
            logger.error("a part of the controller failed, it ends to be started again", exc_info=failure)
        await control.close(DRAIN_SECONDS)
    await _stop(server, chores)
    return 0 if failure is None else 1


class _Reloads:
    """Reloads on request, one at a time: requests that come during a reload are one more reload together."""

    def __init__(self, in_force: InForce) -> None:
        self._in_force = in_force
        self._requested = asyncio.Event()
        self._via: Via = "edit"

    def request(self, via: Via) -> None:
        """Have the file read again. A signal does not say who sent it: the file's owner is named as the author."""
        self._via = via
        self._requested.set()

    async def run(self) -> None:
        while True:
            await self._requested.wait()
            self._requested.clear()
            try:
                await self._in_force.reload(Act(self._via, owner_of(self._in_force.config_path)))
            except Exception:
                logger.exception("the reload failed; revision %d stays in force", self._in_force.snapshot.revision)


async def _watch(path: Path, seen: bytes | None, reloads: _Reloads) -> None:
    async for _ in changes(path, seen):
        reloads.request("edit")


async def _serve(server: AdminServer, control: Control) -> None:
    """Serve the admin port. Until it can be bound this tries again, and the rest of the controller goes on."""
    noted = False
    while True:
        gateway = control.in_force.snapshot.gateway
        renewal = tls.Renewal(gateway, tls.admin_context)
        try:
            context = tls.admin_context(gateway)
            sock = _bound(*address(gateway.admin))
        except (OSError, tls.Unusable) as error:
            if not noted:
                reason = getattr(error, "strerror", None) or error
                control.event_log.note("admin_unavailable", None, f"{gateway.admin}: {reason}")
            noted = True
            await asyncio.sleep(BIND_PAUSE_SECONDS)
            continue
        server.config.ssl = context
        with sock:
            scheme = "http" if context is None else "https"
            logger.info("operators are served on %s://%s", scheme, "{}:{}".format(*sock.getsockname()[:2]))
            renewing = asyncio.create_task(_renew(context, renewal, lambda: control.in_force.snapshot.gateway))
            try:
                await server.serve(sockets=[sock])
            finally:
                renewing.cancel()
        return


def _bound(host: str, port: int) -> socket.socket:
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
    except OSError:
        sock.close()
        raise
    return sock


async def _renew(context: ssl.SSLContext | None, renewal: tls.Renewal, settings: Callable[[], Gateway]) -> None:
    """Load the admin port's certificate again when its files change."""
    while context is not None:
        await asyncio.sleep(RENEW_SECONDS)
        gateway = settings()
        try:
            if renewal.fresh(gateway) is not None and gateway.admin_tls_cert_file is not None:
                context.load_cert_chain(gateway.admin_tls_cert_file, gateway.admin_tls_key_file)
                logger.info("the admin port's certificate was read again")
        except (OSError, tls.Unusable) as error:
            logger.error("the certificate cannot be read again, the one there is stays in force: %s", error)


async def _stop(server: AdminServer, chores: list[asyncio.Task[None]]) -> None:
    """Let the admin server finish what it answers, and cancel every other task at once."""
    server.should_exit = True
    *others, serving = chores
    for chore in others:
        chore.cancel()
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(asyncio.shield(asyncio.gather(serving, return_exceptions=True)), 5)
    serving.cancel()
    await asyncio.gather(*chores, return_exceptions=True)


def main(arguments: list[str] | None = None) -> int:
    """Run the controller as the supervisor starts it: ``--config FILE --data-dir D --run R``."""
    parser = argparse.ArgumentParser(prog="python -m gateway.control", description="The controller of turnout serve.")
    parser.add_argument("--config", type=Path, required=True, help="the operator's file")
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--run", default=None, help="the supervisor's run, 12 hex digits: older writers are dead")
    given = parser.parse_args(arguments)
    keep_private()
    logging.basicConfig(
        level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s controller %(message)s"
    )
    # It warns of every malformed request, which any client can send.
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
    for noisy in ("uvicorn", "watchfiles", "watchfiles.main", "aiosqlite", "httpx"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLD)
    with contextlib.suppress(OSError):
        os.nice(NICE)
    return asyncio.run(run(given.config, given.data_dir, given.run))


if __name__ == "__main__":
    sys.exit(main())
