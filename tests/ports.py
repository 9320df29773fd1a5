"""TCP ports on the loopback for what is told its port before it binds it, and for what nobody may ever listen on.

Rule: they lie below those that the kernel gives to connections and to whoever asks for any, so that nobody gets one in
the meantime, between two starts of a server either. Each process that runs tests has a lot of its own for as long as it
lives: runs side by side never try the same port.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import socket
from collections.abc import Iterator
from typing import Final

#: From above most servers to where Linux begins by itself. A kernel that is told to begin lower leaves us no worse off
#: than with a port of its choice.
_LOTS: Final = range(12_000, 32_400, 400)


def free_ports(count: int) -> list[int]:
    """Return different ports that nobody listens on."""
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
    """Return one port that nobody listens on."""
    return free_ports(1)[0]


@functools.cache
def _lot() -> Iterator[int]:
    """The ports of this process, over and over. Whoever holds the first of a lot holds the lot."""
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
