"""``python -m gateway.proxy``: one worker. ``turnout serve`` starts these."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ctypes
import gc
import logging
import signal
import socket
import sys
from pathlib import Path
from typing import Final

import uvloop

from gateway.files.private import keep_private
from gateway.process.lifeline import watch_lifeline
from gateway.proxy.worker import Post, Worker

logger = logging.getLogger("gateway.proxy")

#: Container objects made, less those freed, between collections: a few megabytes at the most.
_COLLECTED_OBJECTS: Final = 10_000
#: Of mallopt(3): from which size on memory comes from the kernel directly, and how much free memory is kept at most.
_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
_OWN_MAPPING_BYTES: Final = 2**22
_KEPT_BYTES: Final = 2**26
#: EX_CONFIG of sysexits.h: what is wrong is in the operator's files.
EXIT_CONFIG: Final = 78


def main(arguments: list[str] | None = None) -> int:
    """Run a worker as the supervisor starts it: ``--fd N --data-dir D --run R --slot S``."""
    parser = argparse.ArgumentParser(prog="python -m gateway.proxy", description="One worker of turnout serve.")
    parser.add_argument("--fd", type=int, required=True, help="the inherited listening socket")
    parser.add_argument("--ready", type=int, help="an inherited descriptor: a byte there says that it serves")
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--run", required=True, help="the supervisor's run, 12 hex digits")
    parser.add_argument("--slot", type=int, required=True, help="this worker's number, from 0")
    parser.add_argument("--next", action="store_true", help="the supervisor takes over from another")
    given = parser.parse_args(arguments)
    keep_private()
    logging.basicConfig(
        level=logging.INFO,
        stream=sys.stderr,
        format=f"%(asctime)s %(levelname)s worker={given.slot} %(message)s",
    )
    sock = socket.socket(fileno=given.fd)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(run(Post(given.data_dir, given.run, given.slot, given.next), sock, given.ready))


async def run(post: Post, sock: socket.socket, ready: int | None = None) -> int:
    """Serve on ``sock`` until SIGTERM, SIGINT or the end of the supervisor; return the exit code."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    watch_lifeline(stop.set)
    try:
        worker = Worker(post)
    except (OSError, ValueError) as error:
        logger.error("worker %d cannot start: %s", post.slot, error)
        sock.close()
        return EXIT_CONFIG
    _spare_collections()
    _keep_memory()
    await worker.serve(sock, stop, ready)
    return 0


def _spare_collections() -> None:
    """Let the garbage collector skip the objects that stay for good, and collect the others rarely.

    A request leaves no reference cycles (each is broken when it ends), so a collection finds next to nothing; with the
    default of 700 objects one ran every few dozen requests, and a full one stopped all of them for milliseconds.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_COLLECTED_OBJECTS, 10, 10)


def _keep_memory() -> None:
    """Let the C library keep freed memory for the next bodies, up to a bound. Only glibc can be asked to.

    With its defaults the memory of each body of a megabyte comes from the kernel and goes back to it, page by page, in
    as much time as passing the body on takes.
    """
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_THRESHOLD, _OWN_MAPPING_BYTES)
        mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)


if __name__ == "__main__":
    sys.exit(main())
