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
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import uvicorn

from gateway.admin.app import create, new_metrics
from gateway.control.control import METRICS, Control
from gateway.control.datagrams import listen
from gateway.control.leisure import NICE, Leisure, can_yield, yielding
from gateway.control.reload import changes, content_of
from gateway.lifeline import watch_lifeline
from router.config import ConfigError
from router.diagnostics import render
from router.spellings import address

logger = logging.getLogger("gateway.control")

#: EX_CONFIG and EX_UNAVAILABLE of sysexits.h.
EXIT_CONFIG: Final = 78
EXIT_UNAVAILABLE: Final = 69

#: The supervisor gives 30 s.
DRAIN_SECONDS: Final = 20.0
BIND_PAUSE_SECONDS: Final = 2.0
#: Recording makes objects by the thousand, drops them with each batch and makes no cycles: looking for those every 700
#: objects, or in the middle of a batch, is waste.
GC_THRESHOLD: Final = (200_000, 20, 20)


class AdminServer(uvicorn.Server):
    """uvicorn without its signal handlers: signals are the controller's own."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def run(config_path: Path, data_dir: Path, run: str | None) -> int:
    """Control until told to stop; return the exit code."""
    seen = content_of(config_path)
    try:
        control = Control(config_path, data_dir, run)
    except ConfigError as error:
        print(render(error.diagnostics), file=sys.stderr)  # noqa: T201
        return EXIT_CONFIG
    except OSError as error:
        logger.error("%s: %s", error.filename or data_dir, error.strerror or error)
        return EXIT_UNAVAILABLE
    control.observer = metrics = new_metrics(control)
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    reloads = _Reloads(control)
    loop.add_signal_handler(signal.SIGHUP, reloads.wanted.set)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    watch_lifeline(stopping.set)
    if not control.current:
        reloads.wanted.set()
    server = AdminServer(_server_config(create(control, metrics)))
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
        chores.insert(0, asyncio.create_task(Leisure(lambda: control.lag()[0], yielding).run()))
    with contextlib.ExitStack() as held:
        try:
            held.callback((await listen(data_dir / METRICS, control.hear)).close)
        except OSError as error:
            control.happenings.note("metrics_socket_unavailable", None, f"gauges of workers are missing: {error}")
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
        self.wanted = asyncio.Event()

    async def run(self) -> None:
        while True:
            await self.wanted.wait()
            self.wanted.clear()
            try:
                await self._control.reload()
            except Exception:
                logger.exception("the reload failed; revision %d stays in force", self._control.snapshot.revision)


async def _watch(path: Path, seen: bytes | None, reloads: _Reloads) -> None:
    async for _ in changes(path, seen):
        reloads.wanted.set()


async def _serve(server: AdminServer, control: Control) -> None:
    """Serve the admin port; one that is taken is tried again and again, the rest of the controller goes on."""
    told = False
    while True:
        host, port = address(control.snapshot.gateway.admin)
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        sock: socket.socket | None = None
        try:
            sock = socket.socket(family, socket.SOCK_STREAM)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((host, port))
        except OSError as error:
            if sock is not None:
                sock.close()
            if not told:
                control.happenings.note(
                    "admin_unavailable", None, f"{control.snapshot.gateway.admin}: {error.strerror}"
                )
            told = True
            await asyncio.sleep(BIND_PAUSE_SECONDS)
            continue
        with sock:
            logger.info("operators are served on http://%s", "{}:{}".format(*sock.getsockname()[:2]))
            await server.serve(sockets=[sock])
        return


def _server_config(app: Any) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        lifespan="off",
        http="httptools",
        ws="none",
        server_header=False,
        timeout_graceful_shutdown=2,
        limit_concurrency=256,
    )


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
    logging.basicConfig(
        level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s controller %(message)s"
    )
    for noisy in ("uvicorn", "uvicorn.error", "watchfiles", "watchfiles.main", "aiosqlite", "httpx"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLD)
    with contextlib.suppress(OSError):
        os.nice(NICE)
    return asyncio.run(run(given.config, given.data_dir, given.run))


if __name__ == "__main__":
    sys.exit(main())
