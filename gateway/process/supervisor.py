"""``turnout serve``: the process that starts and ends all others, and the only one that handles signals from outside.

Rule: it carries no traffic and decides nothing about it, so little can make it fail. It reads the config once, makes
sure that there is a snapshot, binds the socket that all workers share, starts workers and the controller, restarts
those that end, and passes signals on: SIGHUP to the controller; SIGTERM and SIGINT to the workers, which drain, and
then to the controller, which drains the journal. A second SIGTERM or SIGINT ends everything at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final, TextIO

from gateway.compiled import build
from gateway.files.assignment_key import KeyUnusable
from gateway.files.private import keep_private, narrow
from gateway.files.published import NEXT, SNAPSHOT
from gateway.journal.segments import JOURNAL, next_run
from gateway.process import descriptors, handover
from gateway.process.configuration import load
from gateway.process.first_snapshot import ensure_snapshot, initial_key
from gateway.process.lifeline import VARIABLE
from gateway.process.premises import (
    Hold,
    Unavailable,
    activated,
    listening,
    locked,
    processes_lock,
    sole_processes,
    sole_supervisor,
)
from router.config.config import Config, ConfigError
from router.config.diagnostics import render

logger = logging.getLogger(__name__)

#: EX_CONFIG of sysexits.h: the file must be corrected; starting again would not help.
EXIT_CONFIG: Final = 78
#: Something else prevents serving: another supervisor, the port, the disk.
EXIT_UNAVAILABLE: Final = 69

#: Seconds that a worker may take beyond drain_timeout_ms, and the controller to drain the journal.
_WORKER_GRACE: Final = 10.0
_CONTROLLER_GRACE: Final = 30.0
#: A child that ran for this many seconds is restarted after the shortest pause; each shorter run doubles the pause.
_LONG_RUN_SECONDS: Final = 10.0
_SHORTEST_PAUSE: Final = 0.1
_LONGEST_PAUSE: Final = 5.0
#: Seconds between checks whether every process of the predecessor has ended.
_LOCK_SECONDS: Final = 0.05
#: Seconds until the supervisor offers to hand over again, after that failed.
_OFFER_SECONDS: Final = 1.0


def serve(config_path: Path) -> int:
    """Serve until SIGTERM or SIGINT and return the exit code.

    0 after a clean end; 78 if the config cannot be used, with every problem on stderr; 69 if the data directory or the
    address is taken.
    """
    logging.basicConfig(
        level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s supervisor %(message)s"
    )
    keep_private()
    try:
        config = load(config_path)
    except ConfigError as error:
        _print(sys.stderr, f"{render(error.diagnostics)}\nnot serving: the config cannot be used")
        return EXIT_CONFIG
    if config.warnings:
        _print(sys.stderr, render(config.warnings))
    try:
        with contextlib.ExitStack() as held:
            data_dir = Path(config.gateway.data_dir)
            data_dir.mkdir(parents=True, exist_ok=True)
            if left := narrow(data_dir):
                logger.warning("other users may read %s and %d more: we may not change it", left[0], len(left) - 1)
            files = descriptors.raise_limit()
            before = held.enter_context(handover.predecessor(data_dir))
            if before is None:
                hold = held.enter_context(sole_supervisor(data_dir))
                lock = held.enter_context(sole_processes(data_dir))
            else:
                hold, lock = before.hold, held.enter_context(processes_lock(data_dir))
            # Before the port is open: a new node may have to wait for its key.
            key = initial_key(config_path, config, data_dir)
            passed = activated()
            if passed is not None:
                sock = held.enter_context(passed)
            elif before is not None and before.listen == config.gateway.listen:
                sock = before.listener
            else:
                sock = held.enter_context(listening(config.gateway.listen, patient=hold.killed))
            with contextlib.suppress(OSError):  # left by a successor that was killed while it took over
                (data_dir / NEXT).unlink()
            place = data_dir / (SNAPSHOT if before is None else NEXT)
            snapshot = ensure_snapshot(data_dir / SNAPSHOT, config, _now_ms(), key, place)
            logger.info("each process may open %d files", files)
            supervisor = Supervisor(config_path, config, data_dir, sock, lock, hold, before)
            return asyncio.run(supervisor.run(snapshot.revision))
    except (Unavailable, KeyUnusable) as error:
        _print(sys.stderr, f"not serving: {error}")
    except OSError as error:
        _print(sys.stderr, f"not serving: {error.filename or config.gateway.data_dir}: {error.strerror or error}")
    return EXIT_UNAVAILABLE


class Supervisor:
    """Runs the children until SIGTERM or SIGINT, or until a successor takes over."""

    def __init__(
        self,
        config_path: Path,
        config: Config,
        data_dir: Path,
        sock: socket.socket,
        lock: int,
        hold: Hold,
        before: handover.Predecessor | None = None,
    ) -> None:
        """``before`` is the supervisor to take over from."""
        self._config_path = config_path
        self._gateway = config.gateway
        self._sink_on_stdout = any(sink.kind == "stdout" for sink in config.sinks.values())
        self._data_dir = data_dir
        self._sock = sock
        self._lock = lock
        self._hold = hold
        self._before = before
        self._serving = 0  # how many workers have said that they serve
        self._ready = asyncio.Event()  # every worker serves
        self._run = next_run(data_dir / JOURNAL, _now_ms())
        self._children: dict[str, asyncio.subprocess.Process] = {}
        self._signals = 0
        self._stop = asyncio.Event()

    async def run(self, revision: int) -> int:
        """Start everything, keep it running, and end it in order after SIGTERM or SIGINT. Return the exit code."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGHUP, lambda: self._send("controller", signal.SIGHUP))
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_stop_signal)
        reading, writing = os.pipe()
        ready, say_ready = os.pipe()
        loop.add_reader(ready, self._on_ready, ready)
        try:
            workers = [
                asyncio.create_task(
                    self._keep(
                        f"worker {slot}", self._worker(slot, say_ready), (self._sock.fileno(), say_ready), reading
                    )
                )
                for slot in range(self._gateway.workers)
            ]
            if self._before is not None and not await self._take_over(self._before):
                self._stop.set()
                await self._end(workers, "worker", _WORKER_GRACE)
                return EXIT_UNAVAILABLE
            controller_stop = asyncio.Event()
            controller = asyncio.create_task(self._control(reading, controller_stop))
            self._announce(revision)
            await self._stop.wait()
            logger.info("stopping: workers drain for up to %g s", self._gateway.drain_timeout_ms / 1000)
            self._sock.close()
            if self._hold.passed_on:  # this controller must not read what the successor's workers write
                controller_stop.set()
                self._send("controller", signal.SIGTERM)
            await self._end(workers, "worker", self._gateway.drain_timeout_ms / 1000 + _WORKER_GRACE)
            controller_stop.set()
            await self._end([controller], "controller", _CONTROLLER_GRACE)
        finally:
            loop.remove_reader(ready)
            for fd in (writing, reading, ready, say_ready):
                os.close(fd)
        return 0

    async def _take_over(self, before: handover.Predecessor) -> bool:
        """Let the predecessor drain once our workers serve. If they do not in time it serves on: return False."""
        stopped = asyncio.create_task(self._stop.wait())
        ready = asyncio.create_task(self._ready.wait())
        await asyncio.wait({stopped, ready}, timeout=handover.READY_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        for task in (stopped, ready):
            task.cancel()
        if not self._ready.is_set():
            _print(sys.stderr, "not serving: no worker came up in time; the supervisor that serves goes on")
            return False
        before.go()
        logger.info("taking over: the supervisor before drains")
        return True

    async def _control(self, lifeline: int, stop: asyncio.Event) -> None:
        """Keep a controller running once every process of the predecessor has ended, and hand over when asked."""
        if self._before is not None:
            leaving = asyncio.create_task(self._wait_for(self._before))
            stopped = asyncio.create_task(stop.wait())
            await asyncio.wait({leaving, stopped}, return_when=asyncio.FIRST_COMPLETED)
            leaving.cancel()
            stopped.cancel()
        offering = asyncio.create_task(self._offer())
        await self._keep("controller", self._controller(), (), lifeline, stop)
        offering.cancel()

    async def _wait_for(self, before: handover.Predecessor) -> None:
        await before.gone()
        while not locked(self._lock):  # noqa: ASYNC110  # processes of the predecessor hold it
            await asyncio.sleep(_LOCK_SECONDS)
        with contextlib.suppress(FileNotFoundError):  # no new file: the snapshot is the same
            os.replace(self._data_dir / NEXT, self._data_dir / SNAPSHOT)

    async def _offer(self) -> None:
        """Hand over to a successor when one asks. After an error (no free descriptor) retry, and log only the first."""
        logged = False
        while True:
            try:
                await handover.offer(self._data_dir, self._sock, self._gateway.listen, self._hold, self._stop.set)
                return
            except OSError as error:
                if not logged:
                    logger.warning("a second serve cannot take over for now: %s", error)
                logged = True
            await asyncio.sleep(_OFFER_SECONDS)

    def _on_ready(self, fd: int) -> None:
        self._serving += len(os.read(fd, 4_096))
        if self._serving >= self._gateway.workers:
            self._ready.set()

    def _announce(self, revision: int) -> None:
        gateway = self._gateway
        scheme = "http" if gateway.tls_cert_file is None else "https"
        host, port = self._sock.getsockname()[:2]
        workers = "1 worker" if gateway.workers == 1 else f"{gateway.workers} workers"
        admin, _, admin_port = gateway.admin.rpartition(":")
        # The controller binds it, and logs the port that it got.
        operators_scheme = "http" if gateway.admin_tls_cert_file is None else "https"
        operators = f"{operators_scheme}://{gateway.admin}" if admin_port != "0" else f"on a free port of {admin}"
        # A sink that writes to standard output has it for itself.
        _print(
            sys.stderr if self._sink_on_stdout else sys.stdout,
            f"turnout serves {scheme}://{f'[{host}]' if ':' in host else host}:{port} with {workers}, "
            f"operators {operators}, revision {revision}, data in {self._data_dir}, {build()}",
        )

    def _worker(self, slot: int, ready: int) -> list[str]:
        # -P: import modules from where Turnout is installed, not from the working directory.
        command = [sys.executable, "-P", "-m", "gateway.proxy", "--fd", str(self._sock.fileno())]
        command += ["--ready", str(ready)]
        if self._before is not None:
            command.append("--next")
        return [*command, "--data-dir", str(self._data_dir), "--run", self._run, "--slot", str(slot)]

    def _controller(self) -> list[str]:
        command = [sys.executable, "-P", "-m", "gateway.control", "--config", str(self._config_path)]
        return [*command, "--data-dir", str(self._data_dir), "--run", self._run]

    async def _keep(
        self,
        name: str,
        command: Sequence[str],
        descriptors: tuple[int, ...],
        lifeline: int,
        stop: asyncio.Event | None = None,
    ) -> None:
        """Run a child and restart it until ``stop``, after a longer pause the sooner it ends. Never gives up."""
        stop = self._stop if stop is None else stop
        pause = _SHORTEST_PAUSE
        while not stop.is_set() and self._signals < 2:
            began = time.monotonic()
            try:
                child = await asyncio.create_subprocess_exec(
                    *command,
                    stdin=asyncio.subprocess.DEVNULL,
                    pass_fds=(*descriptors, lifeline, self._lock),
                    env={**os.environ, VARIABLE: str(lifeline)},
                    process_group=0,  # Ctrl-C in a terminal reaches the supervisor alone, which ends them in order
                )
            except OSError as error:
                logger.error("%s cannot be started: %s", name, error)
            else:
                self._children[name] = child
                if stop.is_set():  # stopped while the child was being started
                    self._send(name, signal.SIGTERM)
                code = await child.wait()
                del self._children[name]
                if stop.is_set():
                    return
                logger.warning("%s (pid %d) ended: %s", name, child.pid, _how(code))
            lived = time.monotonic() - began
            pause = _SHORTEST_PAUSE if lived >= _LONG_RUN_SECONDS else min(_LONGEST_PAUSE, pause * 2)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), pause)

    async def _end(self, tasks: Sequence[asyncio.Task[None]], kind: str, seconds: float) -> None:
        """Send SIGTERM to the children of a kind, and SIGKILL to those that still run after ``seconds``."""
        names = [name for name in self._children if name.startswith(kind)]
        for name in names:
            self._send(name, signal.SIGTERM)
        _, late = await asyncio.wait(tasks, timeout=seconds if self._signals < 2 else 0)
        if late:
            for name in [name for name in self._children if name.startswith(kind)]:
                logger.error("%s did not end within %g s: killed", name, seconds)
                self._send(name, signal.SIGKILL)
            await asyncio.wait(late)

    def _on_stop_signal(self) -> None:
        self._signals += 1
        self._stop.set()
        if self._signals > 1:
            for name in list(self._children):
                self._send(name, signal.SIGKILL)

    def _send(self, name: str, number: signal.Signals) -> None:
        child = self._children.get(name)
        if child is not None:
            with contextlib.suppress(ProcessLookupError):
                child.send_signal(number)


def _how(code: int) -> str:
    """Return how a process ended, in words."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"


def _print(stream: TextIO, text: str) -> None:
    """Print a line for the person or program that started us; a closed pipe is not an error."""
    with contextlib.suppress(OSError):
        print(text, file=stream, flush=True)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
