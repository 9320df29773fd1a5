"""``python -m loadtests.fuzz --seconds N``: fuzz the reader of requests.

Rule: every input is parsed twice, by the edge's ``intake`` in pieces and by h11, and each request that the edge finds
must be one that h11 finds as well, at the same position. With atheris installed (it is not a dependency) code coverage
guides the inputs, otherwise they are random; the seeds are the payloads of the conformance tests. It stops at the first
input that breaks the rule, and prints it.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import random
import sys
import tempfile
import time
from contextlib import suppress
from typing import Any, Final, cast

from gateway.proxy.server import accept, intake
from gateway.proxy.server.accept import Refusal
from gateway.proxy.server.edge import Edge
from router.snapshot import Gateway
from tests.gateway.proxy.payloads import PAYLOADS
from tests.gateway.proxy.wires import TOKENS, Read, second_reading

_SEEDS: Final = tuple(payload.raw for payload in PAYLOADS if len(payload.raw) < 1_000)


class Taken:
    """Stands in for the connection, and accepts every request at once."""

    def __init__(self) -> None:
        self.whole_ones: list[Read] = []
        self._method = b""
        self._target = b""
        self._body = b""

    def begin(self, method: str, target: bytes, *_: Any) -> None:
        self._method, self._target, self._body = method.encode(), target, b""

    def body(self, data: bytes) -> None:
        self._body += data

    def excess(self) -> None:
        raise Refusal(413, "too long")

    def whole(self) -> None:
        self.whole_ones.append(Read(self._method, self._target, self._body))


def read(data: bytes, cut: int) -> list[Read]:
    """Return the requests that the edge finds in the data, given in pieces of ``cut`` bytes."""
    taken = Taken()
    limits = Edge(cast("Any", None), Gateway(max_header_bytes=8_000, max_target_bytes=8_000))
    taker = intake.Intake(cast("Any", taken), limits)
    with suppress(Refusal):
        for at in range(0, len(data), cut):
            taker.feed(data[at : at + cut])
            while taker.stage == intake.WHOLE and taker.keep_alive:
                taker.stage = intake.BETWEEN
                if taker.held:
                    taker.proceed()
    return taken.whole_ones


def check(data: bytes) -> None:
    """Raises AssertionError if the edge finds a request that h11 does not, or whatever the edge raises itself."""
    found = read(data, 1 + len(data) % 61)
    assert found == read(data, max(1, len(data))), "it depends on how the bytes are cut"
    second = second_reading(data)
    # Requests for the gateway itself, or with a host in their target, are rewritten on purpose.
    alike = [
        one == other or (one.target, one.body) == (b"*", other.body) or not other.target.startswith(b"/")
        for one, other in zip(found, second, strict=False)
    ]
    assert len(found) <= len(second), "more requests than h11 finds"
    assert all(alike), "not the requests that h11 finds"


def mangled(chance: random.Random) -> bytes:
    data = b"".join(chance.choice(_SEEDS) for _ in range(chance.randint(1, 3)))
    for _ in range(chance.randint(1, 5)):
        at = chance.randint(0, len(data))
        new = chance.choice((chance.choice(TOKENS), chance.randbytes(chance.randint(0, 3)), b""))
        data = data[:at] + new + data[at + chance.randint(0, 8) :]
    return data


def by_chance(seconds: float, seed: int) -> int:
    chance = random.Random(seed)
    deadline = time.monotonic() + seconds
    inputs = 0
    while time.monotonic() < deadline:
        data = mangled(chance)
        try:
            check(data)
        except Exception:
            print(f"seed {seed}, input {inputs}: {data!r}", file=sys.stderr)
            raise
        inputs += 1
    return inputs


def by_coverage(atheris: Any, seconds: float) -> None:
    for function in (*vars(accept).values(), *vars(intake.Intake).values()):
        if inspect.isfunction(function):
            atheris.instrument_func(function)
    chance = random.Random(0)

    def mutate(data: bytes, limit: int, seed: int) -> bytes:
        if chance.random() < 0.2:
            return mangled(random.Random(seed))[:limit]
        return cast("bytes", atheris.Mutate(data, limit))

    arguments = [sys.argv[0], f"-max_total_time={max(1, int(seconds))}", "-max_len=2000", "-print_final_stats=1"]
    arguments.append(f"-artifact_prefix={tempfile.gettempdir()}/")  # the input that broke the rule
    atheris.Setup(arguments, check, custom_mutator=mutate)
    atheris.Fuzz()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m loadtests.fuzz", description="New bytes for the edge.")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long (60)")
    parser.add_argument("--seed", type=int, default=None, help="the seed of chance, to repeat a run without atheris")
    options = parser.parse_args()
    try:
        atheris = importlib.import_module("atheris") if options.seed is None else None
    except ImportError:
        atheris = None
    if atheris is not None:
        by_coverage(atheris, options.seconds)
        return
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(2**32)
    inputs = by_chance(options.seconds, seed)
    print(f"{inputs:,} inputs by chance (seed {seed}); none was read as anything but what h11 reads, or refused")


if __name__ == "__main__":
    main()
