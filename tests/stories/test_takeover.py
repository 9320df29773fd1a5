"""A restart under load refuses no connection and loses nothing: ``serve`` again, and a socket that systemd keeps."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import httpx
import pytest

from tests.stories.backends import Asked, Backend
from tests.stories.harness import TURNOUT, Turnout, eventually
from tests.stories.test_drain import CONFIG, Caller

pytestmark = pytest.mark.story

#: Together they ask about three hundred times a second, some on one connection, some on a new one each time.
CALLERS = 12


class Anew(Caller):
    """A caller that connects for each request."""

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        await super()._ask(reader, writer)
        return False


async def quick(asked: Asked) -> object:
    return {"p": 7}


async def beside(program: Turnout, restart: Callable[[], Awaitable[None]]) -> list[Caller]:
    """Restart while callers send requests; none is refused, and none breaks."""
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
    """Its secret is missing: the workers find that out, after the configuration was accepted."""
    with Backend(quick) as backend, Turnout(tmp_path, CONFIG.format(url=backend.url)) as program:
        broken = tmp_path / "broken.toml"
        broken.write_text(program.file.read_text().replace("[gateway]", "[gateway]\nfeedback_token_file = '/none'"))
        tried = subprocess.run([*TURNOUT, "serve", "-c", str(broken)], capture_output=True, text=True, timeout=60)
        assert tried.returncode in (69, 78)
        assert program.traffic.post("/answer", content=b"{}").status_code == 200
        assert program.stop() == 0


def test_a_successor_with_another_file_goes_by_it_while_the_first_one_drains(tmp_path: Path) -> None:
    """The first one's controller would undo settings that only a restart applies, and misread ones it does not know."""
    with Backend(quick) as backend, Turnout(tmp_path, CONFIG.format(url=backend.url)) as program:
        address = "127.0.0.1", program.traffic.base_url.port or 0
        head = b"POST /answer HTTP/1.1\r\nhost: h\r\ncontent-length: 70001\r\n\r\n"
        with socket.create_connection(address) as slow:
            slow.sendall(head + bytes(70_000))  # under way until its last byte
            first = program.process
            assert first is not None
            program._head = program._head.replace("[gateway]", "[gateway]\nworkers = 2")  # so that it is no reload
            program.write(
                CONFIG.format(url=backend.url)
                + f"""
[backends.new]
url = "{backend.url}"
version = "1"
[metrics.new]
kind = "value"
[routes.new]
path = "/new"
metrics = ["new"]
policy = {{ kind = "single", variant = "new" }}
"""
            )
            program.start()
            ask = partial(program.traffic.post, "/new", content=b"{}")
            eventually(lambda: not _listens(program), "the first controller has ended", seconds=20)
            # For half a second the first one's worker takes connections as well.
            eventually(
                lambda: {ask(headers={"connection": "close"}).status_code for _ in range(20)} == {200},
                "the new route is served, and stays",
            )
            told = ask().headers["turnout-prediction-id"]
            assert program.feedback({"prediction_id": told, "metric": "new", "value": 1}).status_code == 202
            assert first.poll() is None
            slow.sendall(b"x")
            assert slow.recv(65_536).startswith(b"HTTP/1.1 200")
        assert first.wait(20) == 0
        program.wait_until_ready()
        eventually(
            lambda: [place["joined"] for place in program.admin.get("/api/v1/feedback").json()["account"]] == [1],
            "the feedback has found its prediction",
        )
        assert program.report("new")["variants"][0]["predictions"] >= 20
        assert not (program.data_dir / "snapshot.next.json").exists()
        assert program.stop() == 0


def _listens(program: Turnout) -> bool:
    with contextlib.suppress(httpx.HTTPError):
        return program.admin.get("/livez").status_code == 200
    return False


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
