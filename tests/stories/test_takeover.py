"""A restart under load refuses nobody and loses nothing: ``serve`` again, and a socket that systemd keeps."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from tests.stories.backends import Asked, Backend
from tests.stories.harness import TURNOUT, Turnout, eventually
from tests.stories.test_drain import CONFIG, Caller

pytestmark = pytest.mark.story

#: Together they ask about three hundred times a second, some on one connection, some on a new one each time.
CALLERS = 12


class Anew(Caller):
    """One that connects for each request."""

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        await super()._ask(reader, writer)
        return False


async def quick(asked: Asked) -> object:
    return {"p": 7}


async def beside(program: Turnout, restart: Callable[[], Awaitable[None]]) -> list[Caller]:
    """Restart while callers ask; nobody is refused, and no request breaks."""
    port = program.traffic.base_url.port or 0
    callers = [(Anew if at % 2 else Caller)(port, pause=CALLERS / 300) for at in range(CALLERS)]
    running = [asyncio.create_task(caller.run()) for caller in callers]
    await asyncio.sleep(0.5)
    await restart()
    await asyncio.sleep(0.5)
    for caller in callers:
        caller.over = True
    await asyncio.wait(running, timeout=10)
    assert not any(caller.refused for caller in callers)
    assert [broken for caller in callers for broken in caller.broken] == []
    assert {status for caller in callers for status in caller.statuses} == {200}
    return callers


def every_answer_has_its_row(program: Turnout, callers: list[Caller]) -> None:
    received = [prediction for caller in callers for prediction in caller.ids]
    stored = Counter(row["id"] for row in program.rows("SELECT id FROM predictions"))
    assert len(received) > 100
    assert {prediction: stored[prediction] for prediction in received if stored[prediction] != 1} == {}


def test_serve_again_takes_over_under_load_without_a_refusal_and_every_answer_has_its_row(tmp_path: Path) -> None:
    async def again(program: Turnout) -> None:
        first = program.process
        assert first is not None
        program.start()
        assert await asyncio.to_thread(first.wait, 30) == 0
        assert program.process is not None
        await asyncio.to_thread(
            eventually, lambda: program._says(program.admin, "/readyz"), "the next controller is ready", seconds=20
        )

    with Backend(quick) as backend, Turnout(tmp_path, CONFIG.format(url=backend.url)) as program:
        callers = asyncio.run(beside(program, lambda: again(program)))
        assert program.stop() == 0
        assert (program.data_dir / "supervisor.pid").read_text() == ""
        every_answer_has_its_row(program, callers)


def test_a_second_serve_whose_workers_do_not_start_leaves_the_first_alone(tmp_path: Path) -> None:
    """Its secret is missing: found by the workers, after the configuration was found good."""
    with Backend(quick) as backend, Turnout(tmp_path, CONFIG.format(url=backend.url)) as program:
        broken = tmp_path / "broken.toml"
        broken.write_text(program.file.read_text().replace("[gateway]", "[gateway]\nfeedback_token_file = '/none'"))
        tried = subprocess.run([*TURNOUT, "serve", "-c", str(broken)], capture_output=True, text=True, timeout=60)
        assert tried.returncode in (69, 78)
        assert program.traffic.post("/answer", content=b"{}").status_code == 200
        assert program.stop() == 0


def test_a_restart_on_a_socket_that_systemd_keeps_refuses_nobody(tmp_path: Path) -> None:
    with Backend(quick) as backend:
        program = Turnout(tmp_path, CONFIG.format(url=backend.url))
        with socket.create_server(("127.0.0.1", program.traffic.base_url.port or 0), backlog=4096) as listener:
            program.start = lambda: activate(program, listener)  # type: ignore[method-assign]
            with program:

                async def restart() -> None:
                    first = program.process
                    assert first is not None
                    first.send_signal(signal.SIGTERM)
                    assert await asyncio.to_thread(first.wait, 30) == 0
                    program.start()

                callers = asyncio.run(beside(program, restart))
                program.wait_until_ready()
                assert program.stop() == 0
            every_answer_has_its_row(program, callers)


#: What systemd does between fork and exec.
_PASS = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1"}
os.execv(sys.argv[2], sys.argv[2:])
"""


def activate(program: Turnout, listener: socket.socket) -> None:
    """Start it as systemd starts the service of a socket."""
    with (program.directory / "serve.log").open("ab") as log:
        program.process = subprocess.Popen(
            [sys.executable, "-c", _PASS, str(listener.fileno()), *TURNOUT, "serve", "-c", str(program.file)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=(listener.fileno(),),
            start_new_session=True,
            env=dict(os.environ),
        )
