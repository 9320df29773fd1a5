"""``python -m gateway.control``: the controller's process, one per node, beside the workers.

Rule: it owns its tasks and its signals. SIGHUP reloads; SIGTERM, SIGINT or the end of the supervisor drain the journal
to its end and leave. The admin port does not wait for the store, and the store does not wait for the admin port.
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
from pathlib import Path
from typing import Final

from gateway.admin.app import create, new_metrics
from gateway.admin.port import AdminServer
from gateway.admin.port import server as admin_server
from gateway.control.acts import Act, Via, owner_of
from gateway.control.control import METRICS, Control
from gateway.control.cpu_share import NICE, CpuShare, can_yield, set_idle
from gateway.control.datagrams import listen
from gateway.control.plan.reload import changes, content_of
from gateway.files import tls
from gateway.files.assignment_key import KeyUnusable
from gateway.files.private import keep_private
from gateway.process.lifeline import watch_lifeline
from router.config.config import ConfigError
from router.config.diagnostics import render
from router.config.spellings import address

logger = logging.getLogger("gateway.control")

#: EX_CONFIG and EX_UNAVAILABLE of sysexits.h.
EXIT_CONFIG: Final = 78
EXIT_UNAVAILABLE: Final = 69

#: The supervisor gives 30 s.
DRAIN_SECONDS: Final = 20.0
BIND_PAUSE_SECONDS: Final = 2.0
#: Between looks at the files of the admin port's certificate.
RENEW_SECONDS: Final = 1.0
#: Recording makes objects by the thousand, drops them with each batch and makes no cycles: looking for those every 700
#: objects, or in the middle of a batch, is waste.
GC_THRESHOLD: Final = (200_000, 20, 20)


async def run(config_path: Path, data_dir: Path, run: str | None) -> int:
    """Control until told to stop; return the exit code."""
    seen = content_of(config_path)
    try:
        control = Control(config_path, data_dir, run)
    except ConfigError as error:
        print(render(error.diagnostics), file=sys.stderr)  # noqa: T201
        return EXIT_CONFIG
    except KeyUnusable as error:
        logger.error("%s", error)
        return EXIT_UNAVAILABLE
    except OSError as error:
        logger.error("%s: %s", error.filename or data_dir, error.strerror or error)
        return EXIT_UNAVAILABLE
    control.observer = metrics = new_metrics(control)
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    reloads = _Reloads(control)
    loop.add_signal_handler(signal.SIGHUP, reloads.want, "signal")
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    watch_lifeline(stopping.set)
    if not control.current:
        reloads.want("start")
    server = admin_server(create(control, metrics))
    recording = asyncio.create_task(control.keep_recording(stopping))
    chores = [
        asyncio.create_task(control.keep_planning()),
        asyncio.create_task(control.keep_in_step()),
        asyncio.create_task(control.tail.run()),
        asyncio.create_task(control.keep_reserve()),
        asyncio.create_task(control.keep_watch()),
        asyncio.create_task(reloads.run()),
        asyncio.create_task(_watch(config_path, seen, reloads)),
        asyncio.create_task(_serve(server, control)),
    ]
    if can_yield():
        chores.insert(0, asyncio.create_task(CpuShare(lambda: control.lag()[0], set_idle).run()))
    with contextlib.ExitStack() as held:
        try:
            held.callback((await listen(data_dir / METRICS, control.hear)).close)
        except OSError as error:
            control.event_log.note("metrics_socket_unavailable", None, f"gauges of workers are missing: {error}")
        for task in (*chores, recording):
            task.add_done_callback(lambda ended: stopping.set())  # a controller that lacks a part is none
        await stopping.wait()
        failure = next((task.exception() for task in (*chores, recording) if task.done()), None)
        if failure is not None:
            logger.error("a part of the controller failed, it ends to be started again", exc_info=failure)
        await asyncio.gather(recording, return_exceptions=True)
        await control.close(DRAIN_SECONDS)
    await _stop(server, chores)
    return 0 if failure is None else 1


class _Reloads:
    """Reloads when wanted, one at a time, however often it was wanted meanwhile."""

    def __init__(self, control: Control) -> None:
        self._control = control
        self._wanted = asyncio.Event()
        self._via: Via = "edit"

    def want(self, via: Via) -> None:
        """Have the file read again. A signal does not say who sent it: the file's owner is named as the author."""
        self._via = via
        self._wanted.set()

    async def run(self) -> None:
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            try:
                await self._control.reload(Act(self._via, owner_of(self._control.config_path)))
            except Exception:
                logger.exception("the reload failed; revision %d stays in force", self._control.snapshot.revision)


async def _watch(path: Path, seen: bytes | None, reloads: _Reloads) -> None:
    async for _ in changes(path, seen):
        reloads.want("edit")


async def _serve(server: AdminServer, control: Control) -> None:
    """Serve the admin port; one that cannot be had is tried again and again, the rest of the controller goes on."""
    told = False
    while True:
        gateway = control.snapshot.gateway
        renewal = tls.Renewal(gateway, tls.admin_context)
        try:
            context = tls.admin_context(gateway)
            sock = _bound(*address(gateway.admin))
        except (OSError, tls.Unusable) as error:
            if not told:
                reason = getattr(error, "strerror", None) or error
                control.event_log.note("admin_unavailable", None, f"{gateway.admin}: {reason}")
            told = True
            await asyncio.sleep(BIND_PAUSE_SECONDS)
            continue
        server.config.ssl = context
        with sock:
            scheme = "http" if context is None else "https"
            logger.info("operators are served on %s://%s", scheme, "{}:{}".format(*sock.getsockname()[:2]))
            renewing = asyncio.create_task(_renew(context, renewal, control))
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


async def _renew(context: ssl.SSLContext | None, renewal: tls.Renewal, control: Control) -> None:
    """Take over a certificate of the admin port that was changed in its files."""
    while context is not None:
        await asyncio.sleep(RENEW_SECONDS)
        gateway = control.snapshot.gateway
        try:
            if renewal.fresh(gateway) is not None and gateway.admin_tls_cert_file is not None:
                context.load_cert_chain(gateway.admin_tls_cert_file, gateway.admin_tls_key_file)
                logger.info("the admin port's certificate was read again")
        except (OSError, tls.Unusable) as error:
            logger.error("the certificate cannot be read again, the one there is stays in force: %s", error)


async def _stop(server: AdminServer, chores: list[asyncio.Task[None]]) -> None:
    """End the admin server as it likes to be ended, and everything else at once."""
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
    # It warns of every request that is none, which is a client's to send.
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
