"""TCP ports on the loopback for servers that get their port before they bind it, and ports without a listener.

Rule: they lie below the kernel's ephemeral ports, so that no other process gets one meanwhile, not even between two
starts of a server. Each process that runs tests has a range of its own for as long as it lives: parallel runs never try
the same port.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import socket
from collections.abc import Iterator
from typing import Final

#: From above the ports of most servers to where Linux's ephemeral ports begin by default. If a kernel is configured to
#: begin lower, this is no worse than a port that it chooses.
_LOTS: Final = range(12_000, 32_400, 400)


def free_ports(count: int) -> list[int]:
    """Return different ports without a listener."""
    with contextlib.ExitStack() as held:
        found: list[int] = []
        for port in itertools.islice(_lot(), _LOTS.step):
            with contextlib.suppress(OSError):
                held.enter_context(socket.create_server(("127.0.0.1", port)))
                found.append(port)
                if len(found) == count:
                    return found
    raise RuntimeError(f"no {count} ports are free among the {_LOTS.step} of this process")


def free_port() -> int:
    """Return one port without a listener."""
    return free_ports(1)[0]


@functools.cache
def _lot() -> Iterator[int]:
    """The ports of this process, over and over. The process that binds the first port of a lot owns the lot."""
    for first in _LOTS:
        holder = socket.socket()
        try:
            holder.bind(("127.0.0.1", first))
        except OSError:
            holder.close()
            continue
        holder.detach()  # open until the process ends
        return itertools.cycle(range(first + 1, first + _LOTS.step))
    raise RuntimeError(f"every lot of ports from {_LOTS.start} to {_LOTS.stop} is taken")
