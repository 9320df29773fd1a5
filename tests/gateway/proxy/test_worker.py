"""A worker: it starts from a snapshot, swaps to newer ones, sends its gauges, drains, and fails static."""

from __future__ import annotations

import asyncio
import contextlib
import os
import platform
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import orjson
import pytest

from gateway.files.overrides import OVERRIDES, act
from gateway.files.published import SNAPSHOT, publish
from gateway.process.lifeline import VARIABLE
from policies.plans import Mirror, Weighted
from router.snapshot import Gateway, Snapshot
from tests.gateway.proxy.builders import backend, only, route, snapshot
from tests.gateway.proxy.certificates import authority, certificate
from tests.gateway.proxy.stage import RUN, Asked, Model, Stage, play, read_answer, staged


async def one(asked: Asked) -> None:
    await asked.answer(b"one")


async def two(asked: Asked) -> None:
    await asked.answer(b"two")


async def published(stage: Stage, cast: Snapshot) -> None:
    """Publish a snapshot and wait until the worker has had time to see it."""
    publish(stage.directory / SNAPSHOT, cast)
    await asyncio.sleep(0.3)


# Swapping.


def test_a_published_snapshot_is_in_force_soon(tmp_path: Path) -> None:
    async def main() -> None:
        async with (
            Model(one) as first,
            Model(two) as second,
            staged(tmp_path, snapshot(backend("a", first.url), route("r", only("a")))) as stage,
        ):
            assert (await stage.ask("/r")).body == b"one"
            await published(stage, snapshot(backend("a", second.url), route("s", only("a")), revision=4))
            assert (await stage.ask("/r")).status == 404
            assert (await stage.ask("/s")).body == b"two"

    play(main())


def test_a_request_keeps_the_snapshot_it_began_with(tmp_path: Path) -> None:
    go = asyncio.Event()

    async def slow(asked: Asked) -> None:
        await go.wait()
        await asked.answer(b"old")

    async def main() -> None:
        async with (
            Model(slow) as first,
            Model(two) as second,
            staged(tmp_path, snapshot(backend("a", first.url), route("r", only("a")))) as stage,
        ):
            asking = asyncio.create_task(stage.ask("/r"))
            await stage.eventually(lambda: first.asked)
            await published(stage, snapshot(backend("b", second.url), route("r", only("b")), revision=4))
            assert (await stage.ask("/r")).body == b"two"
            go.set()
            assert (await asking).body == b"old"
        assert {(row["variant"], row["revision"]) for row in stage.rows()} == {("a", 3), ("b", 3)}

    play(main())


def test_a_backend_that_is_the_same_keeps_its_connections(tmp_path: Path) -> None:
    async def main() -> None:
        async with Model(one) as model:
            same = backend("a", model.url)
            async with staged(tmp_path, snapshot(same, route("r", only("a")))) as stage:
                await stage.ask("/r")
                await published(stage, snapshot(same, route("r", only("a")), route("s", only("a")), revision=4))
                await stage.ask("/s")
                await published(
                    stage, snapshot(backend("a", model.url, version="2"), route("s", only("a")), revision=5)
                )
                await stage.ask("/s")
        connections = [asked.writer for asked in model.asked]
        assert connections[0] is connections[1]
        assert connections[1] is not connections[2]

    play(main())


def test_connections_to_a_backend_that_is_no_more_are_closed(tmp_path: Path) -> None:
    async def main() -> None:
        async with (
            Model(one) as model,
            staged(tmp_path, snapshot(backend("a", model.url), route("r", only("a")))) as stage,
        ):
            await stage.ask("/r")
            await published(stage, snapshot(backend("b", model.url), route("r", only("b")), revision=4))
            await stage.eventually(model.asked[0].reader.at_eof)

    play(main())


@pytest.mark.parametrize(
    "content", [b"", b"{", b'{"format": 99}', b"[]", b'{"format":1,"revision":4,"config":"x","gateway":{"what":1}}']
)
def test_a_snapshot_that_cannot_be_read_leaves_the_old_one_in_force(tmp_path: Path, content: bytes) -> None:
    async def main() -> None:
        async with (
            Model(one) as model,
            staged(tmp_path, snapshot(backend("a", model.url), route("r", only("a")))) as stage,
        ):
            (tmp_path / "new").write_bytes(content)
            os.replace(tmp_path / "new", tmp_path / SNAPSHOT)
            await asyncio.sleep(0.5)
            assert (await stage.ask("/r")).body == b"one"
        assert stage.counters == {("snapshot_errors",): 1}  # once, not at each poll

    play(main())


def test_a_snapshot_whose_secret_is_missing_is_refused_whole(tmp_path: Path) -> None:
    async def main() -> None:
        async with (
            Model(one) as model,
            staged(tmp_path, snapshot(backend("a", model.url), route("r", only("a")))) as stage,
        ):
            wanting = backend("a", model.url, request_headers=(("x-key", "${NO_SUCH_VARIABLE}"),))
            await published(stage, snapshot(wanting, route("s", only("a")), revision=4))
            assert (await stage.ask("/r")).body == b"one"
        assert stage.counters == {("snapshot_errors",): 1}

    play(main())


def test_a_snapshot_that_goes_missing_leaves_the_old_one_in_force(tmp_path: Path) -> None:
    async def main() -> None:
        async with (
            Model(one) as model,
            staged(tmp_path, snapshot(backend("a", model.url), route("r", only("a")))) as stage,
        ):
            (tmp_path / SNAPSHOT).unlink()
            await asyncio.sleep(0.3)
            assert (await stage.ask("/r")).body == b"one"

    play(main())


# What it sends to the controller.


def test_once_a_second_it_writes_a_heartbeat_and_sends_its_numbers(tmp_path: Path) -> None:
    go = asyncio.Event()

    async def slow(asked: Asked) -> None:
        await go.wait()
        await asked.answer()

    async def main() -> None:
        async with Model(slow) as model:
            publish(tmp_path / SNAPSHOT, snapshot(backend("a", model.url), route("r", only("a"))))
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as metrics:
                metrics.bind(str(tmp_path / "metrics.sock"))
                metrics.settimeout(5)
                async with process(tmp_path) as (stage, worker):
                    asking = asyncio.create_task(stage.ask("/r"))
                    await stage.eventually(lambda: model.asked)
                    loop = asyncio.get_running_loop()
                    while True:
                        told = orjson.loads(await loop.run_in_executor(None, metrics.recv, 65536))
                        if ["in_flight", {"route": "r"}, 1] in told["gauges"]:
                            break
                    began = time.time()
                    assert (told["slot"], told["pid"], told["revision"]) == (0, worker.pid, 3)
                    assert told["writer"].startswith(f"{RUN}-00-")
                    assert began - 5 < told["at_ms"] / 1000 < began + 5
                    assert ["connections", {}, 1] in told["gauges"]
                    replica = {"variant": "a", "replica": model.url.removeprefix("http://"), "state": "fit"}
                    assert ["replicas", replica, 1] in told["gauges"]
                    assert ["waiting", {"variant": "a"}, 0] in told["gauges"]
                    assert any(name == "journal_bytes" and number > 0 for name, _, number in told["gauges"])
                    go.set()
                    await asking
                    beats = len(stage.beats())
                    await stage.eventually(lambda: len(stage.beats()) > beats + 1)
                    assert stage.beats() == sorted(stage.beats())

    play(main())


# A process.


def started(
    directory: Path,
    sock: socket.socket,
    *,
    slot: int = 0,
    environment: dict[str, str] | None = None,
    descriptors: tuple[int, ...] = (),
) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "gateway.proxy", "--fd", str(sock.fileno()), "--data-dir", str(directory)]
    return subprocess.Popen(
        [*command, "--run", RUN, "--slot", str(slot)],
        pass_fds=(sock.fileno(), *descriptors),
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **(environment or {})},
    )


@asynccontextmanager
async def process(
    directory: Path, environment: dict[str, str] | None = None, descriptors: tuple[int, ...] = ()
) -> AsyncIterator[tuple[Stage, subprocess.Popen[str]]]:
    """Run a worker as a process of its own; it is killed at the end if it still runs."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        worker = started(directory, sock, environment=environment, descriptors=descriptors)
        stage = Stage(directory, sock.getsockname()[1])
    try:
        yield stage, worker
    finally:
        worker.kill()
        worker.communicate()


async def ended(worker: subprocess.Popen[str], seconds: float = 5) -> int:
    return await asyncio.get_running_loop().run_in_executor(None, worker.wait, seconds)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries decide for themselves")
def test_memory_for_bodies_is_not_fetched_from_the_kernel_again_for_each(tmp_path: Path) -> None:
    megabyte, users, asks, page = b"x" * 2**20, 8, 10, os.sysconf("SC_PAGE_SIZE")

    async def as_long(asked: Asked) -> None:
        await asked.answer(megabyte)

    async def main() -> None:
        async with Model(as_long) as model:
            publish(tmp_path / SNAPSHOT, snapshot(backend("a", model.url), route("r", only("a"))))
            async with process(tmp_path) as (stage, worker):

                def faults() -> int:
                    """Return how many pages of memory the worker has got from the kernel so far."""
                    return int(Path(f"/proc/{worker.pid}/stat").read_text().rpartition(")")[2].split()[7])

                async def user() -> None:
                    for _ in range(asks):
                        assert (await stage.ask("/r", body=megabyte)).body == megabyte

                await asyncio.gather(*(user() for _ in range(users)))
                before = faults()
                await asyncio.gather(*(user() for _ in range(users)))
                assert faults() - before < users * asks * len(megabyte) / page / 4

    play(main())


# The end.


def test_on_sigterm_requests_and_copies_finish_and_the_journal_is_closed(tmp_path: Path) -> None:
    async def late(asked: Asked) -> None:
        await asyncio.sleep(0.4)
        await asked.answer(b"late")

    async def main() -> None:
        async with Model(late) as model:
            plan = Weighted((("a", 1.0),), mirrors=(Mirror("b", 1.0),))
            publish(tmp_path / SNAPSHOT, snapshot(backend("a", model.url), backend("b", model.url), route("r", plan)))
            async with process(tmp_path) as (stage, worker):
                asking = asyncio.create_task(stage.ask("/r"))
                await stage.eventually(lambda: len(model.asked) == 2)
                worker.send_signal(signal.SIGTERM)
                assert (await asking).body == b"late"
                assert await ended(worker) == 0
                with pytest.raises(OSError, match="Connect"):
                    await stage.ask("/r")
            assert [row["role"] for row in stage.rows()] in (["primary", "shadow"], ["shadow", "primary"])
            assert stage.lines()[-1]["line"] == "bye"

    play(main())


def test_each_id_received_has_one_row_though_workers_are_killed(tmp_path: Path) -> None:
    """``kill -9`` under load: the row of an answer is in the journal before the answer is sent."""

    async def main() -> None:
        received: list[str] = []
        async with Model(one) as model:
            publish(tmp_path / SNAPSHOT, snapshot(backend("a", model.url), route("r", only("a"))))
            with socket.create_server(("127.0.0.1", 0)) as sock:
                workers = [started(tmp_path, sock, slot=slot) for slot in (0, 1)]
                stage = Stage(tmp_path, sock.getsockname()[1])
                over = asyncio.Event()

                async def user() -> None:
                    while not over.is_set():
                        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                            received.append((await stage.ask("/r")).id)

                users = [asyncio.create_task(user()) for _ in range(8)]
                for slot in (0, 1, 0):
                    before = len(received)
                    await stage.eventually(lambda: len(received) > before + 200)  # noqa: B023
                    workers[slot].kill()
                    workers[slot].communicate()
                    workers[slot] = started(tmp_path, sock, slot=slot)
                over.set()
                await asyncio.gather(*users)
                for worker in workers:
                    worker.kill()
                    worker.communicate()
        logged = Counter(row["id"] for row in stage.rows("call"))
        assert {logged[i] for i in received} == {1}
        assert max(logged.values()) == 1

    play(main())


def test_what_does_not_finish_within_the_drain_is_cut_and_has_its_row(tmp_path: Path) -> None:
    async def main() -> None:
        async with Model(lambda asked: asked.gone()) as model:
            cast = snapshot(Gateway(drain_timeout_ms=200), backend("a", model.url), route("r", only("a")))
            async with staged(tmp_path, cast) as stage:
                reader, writer = await stage.send("/r")
                await stage.eventually(lambda: model.asked)
                stage.stop.set()
                got = await read_answer(reader)
                writer.close()
        assert (got.status, "turnout-prediction-id" in got.headers) == (503, False)
        assert [row["fault"] for row in stage.rows()] == ["client_gone"]

    play(main())


def test_without_its_supervisor_it_leaves(tmp_path: Path) -> None:
    async def main() -> None:
        publish(tmp_path / SNAPSHOT, snapshot(backend("a", "http://127.0.0.1:1"), route("r", only("a"))))
        reading, writing = os.pipe()
        async with process(tmp_path, {VARIABLE: str(reading)}, (reading,)) as (stage, worker):
            os.close(reading)
            assert (await stage.ask("/r")).status == 502
            os.close(writing)
            assert await ended(worker) == 0
        assert stage.lines()[-1]["line"] == "bye"

    play(main())


@pytest.mark.parametrize("content", [None, b"not a snapshot"])
def test_with_nothing_to_begin_with_it_says_so_and_ends(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / SNAPSHOT).write_bytes(content)

    async def main() -> None:
        async with process(tmp_path) as (_, worker):
            assert await ended(worker) == 78
            said = worker.stderr.read() if worker.stderr else ""
        assert "worker 0 cannot start:" in said
        assert "Traceback" not in said

    play(main())


def test_a_worker_imports_nothing_of_the_control_plane() -> None:
    """Each worker has to be small and to start quickly."""
    heavy = {"numpy", "scipy", "sqlalchemy", "pydantic", "prometheus_client", "httpx", "starlette", "uvicorn", "rich"}
    code = "import gateway.proxy.worker, sys; print(*{name.partition('.')[0] for name in sys.modules})"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not heavy & set(ran.stdout.split())


def test_a_secret_that_changes_in_its_file_is_taken_over(tmp_path: Path) -> None:
    """Secrets are rotated without an edit of the configuration. A file that is gone for a moment changes nothing."""
    token, key = tmp_path / "token", tmp_path / "key"
    token.write_text("first")
    key.write_text("first")

    async def main() -> None:
        async with Model(one) as model:
            settings = Gateway(feedback_token_file=str(token))
            called = backend("a", model.url, request_headers=(("authorization", f"Bearer ${{file:{key}}}"),))
            async with staged(tmp_path, snapshot(settings, called, route("r", only("a")))) as stage:

                async def welcome(word: str) -> bool:
                    got = await stage.ask("/-/feedback", b"[]", headers={"authorization": f"Bearer {word}"})
                    return got.status == 202

                assert await welcome("first")
                token.unlink()
                await asyncio.sleep(0.3)
                assert await welcome("first")
                for file in (key, token):
                    (tmp_path / "new").write_text("second")
                    (tmp_path / "new").replace(file)
                async with asyncio.timeout(5):
                    while not await welcome("second"):
                        await asyncio.sleep(0.05)
                assert not await welcome("first")
                await stage.ask("/r")
        assert model.asked[-1].headers["authorization"] == "Bearer second"

    play(main())


# TLS.

#: Made for this test, and no secret.
CERTIFICATE = """\
-----BEGIN CERTIFICATE-----
MIIBmzCCAUGgAwIBAgIUPIpGs3JBPM71CkokBglzlwQylt0wCgYIKoZIzj0EAwIw
FDESMBAGA1UEAwwJbG9jYWxob3N0MCAXDTI2MTEyMzE0MTQ1NVoYDzIxMjYxMDMw
MTQxNDU1WjAUMRIwEAYDVQQDDAlsb2NhbGhvc3QwWTATBgcqhkjOPQIBBggqhkjO
PQMBBwNCAAR8/7KkQ59qc9kiADjea5F0KLY5Uh7lgW9TQGpRIeFn2K+udl9Fj6OF
foBHyXaqZjW37J/Ts5ABhwe7+MQ9bjZqo28wbTAdBgNVHQ4EFgQUcoYGir/3EFz5
jJZX4JrTNwxUKvEwHwYDVR0jBBgwFoAUcoYGir/3EFz5jJZX4JrTNwxUKvEwDwYD
VR0TAQH/BAUwAwEB/zAaBgNVHREEEzARgglsb2NhbGhvc3SHBH8AAAEwCgYIKoZI
zj0EAwIDSAAwRQIhAPMTYhEIIJ3H9HvWe08ogvi07nUr2w59aF9KwVsaOYR/AiBT
rKK6CPKFGE4ITqlHMV5RkknM81o6s55+LoTUqepYHg==
-----END CERTIFICATE-----
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgkR6fP/7OMteUmOnr
Sc/uY10d8oDASrIwETE8i3BxbjehRANCAAR8/7KkQ59qc9kiADjea5F0KLY5Uh7l
gW9TQGpRIeFn2K+udl9Fj6OFfoBHyXaqZjW37J/Ts5ABhwe7+MQ9bjZq
-----END PRIVATE KEY-----
"""


def test_with_a_certificate_the_port_speaks_tls(tmp_path: Path) -> None:
    (tmp_path / "both.pem").write_text(CERTIFICATE)

    async def main() -> None:
        async with Model(one) as model:
            settings = Gateway(tls_cert_file=str(tmp_path / "both.pem"), tls_key_file=str(tmp_path / "both.pem"))
            async with staged(tmp_path, snapshot(settings, backend("a", model.url), route("r", only("a")))) as stage:
                context = ssl.create_default_context(cafile=str(tmp_path / "both.pem"))
                reader, writer = await asyncio.open_connection(
                    "127.0.0.1", stage.port, ssl=context, server_hostname="localhost"
                )
                writer.write(b"GET /r HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
                assert (await read_answer(reader)).body == b"one"
                writer.close()
        assert model.asked[0].headers["x-forwarded-proto"] == "https"

    play(main())


def test_with_a_client_authority_a_client_without_certificate_is_not_served(tmp_path: Path) -> None:
    file = tmp_path / "both.pem"
    file.write_text(CERTIFICATE)

    async def main() -> None:
        settings = Gateway(tls_cert_file=str(file), tls_key_file=str(file), tls_client_ca_file=str(file))
        cast = snapshot(settings, backend("a", "http://127.0.0.1:1"), route("r", only("a")))
        async with staged(tmp_path, cast) as stage:
            for known, answers in ((False, False), (True, True)):
                context = ssl.create_default_context(cafile=str(file))
                if known:
                    context.load_cert_chain(str(file))
                reader, writer = await asyncio.open_connection(
                    "127.0.0.1", stage.port, ssl=context, server_hostname="localhost"
                )
                writer.write(b"GET /-/livez HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
                try:
                    assert bool(await reader.read(10)) == answers
                except (ssl.SSLError, ConnectionError):
                    assert not answers
                writer.close()

    play(main())


def test_a_certificate_that_is_renewed_is_taken_over_and_nobody_is_refused(tmp_path: Path) -> None:
    """Certificates live for weeks and workers for months; one that cannot be used leaves the one in force."""
    certificate(tmp_path)

    def shown(context: ssl.SSLContext) -> bytes:
        raw = socket.create_connection(("127.0.0.1", port), timeout=5)
        with context.wrap_socket(raw, server_hostname="localhost") as connection:
            connection.sendall(b"GET /-/livez HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            assert connection.recv(1024).startswith(b"HTTP/1.1 200")
            found = connection.getpeercert(binary_form=True)
            assert found is not None
            return found

    port = 0

    async def main() -> None:
        nonlocal port
        files = {"tls_cert_file": str(tmp_path / "cert.pem"), "tls_key_file": str(tmp_path / "key.pem")}
        parts = (backend("a", "http://127.0.0.1:1"), route("r", only("a")))
        async with staged(tmp_path, snapshot(Gateway(**files), *parts)) as stage:  # type: ignore[arg-type]
            port = stage.port
            first = await asyncio.to_thread(shown, authority(tmp_path))
            old = (tmp_path / "key.pem").read_text()
            (tmp_path / "key.pem").write_text("no key")
            await asyncio.sleep(0.5)
            assert await asyncio.to_thread(shown, authority(tmp_path)) == first
            (tmp_path / "key.pem").write_text(old)
            await asyncio.to_thread(certificate, tmp_path)
            async with asyncio.timeout(10):
                while True:
                    try:
                        assert await asyncio.to_thread(shown, authority(tmp_path)) != first
                        break
                    except ssl.SSLCertVerificationError:  # the old one still
                        await asyncio.sleep(0.05)

    play(main())


# Overrides.


def froze(stage: Stage, content: bytes) -> None:
    (stage.directory / "new").write_bytes(content)
    os.replace(stage.directory / "new", stage.directory / OVERRIDES)


def test_a_freeze_is_in_force_without_a_controller_and_after_a_damaged_file(tmp_path: Path) -> None:
    """Nothing but the file is needed; what cannot be read changes nothing, and is counted once."""

    async def main() -> None:
        plan = Weighted((("a", 1.0), ("b", 0.0)), mirrors=(Mirror("c", 1.0),))
        async with (
            Model(one) as a,
            Model(two) as b,
            Model(two) as c,
            staged(
                tmp_path,
                snapshot(backend("a", a.url), backend("b", b.url), backend("c", c.url), route("r", plan)),
            ) as stage,
        ):
            assert (await stage.ask("/r")).body == b"one"
            await stage.eventually(lambda: len(c.asked) == 1)
            act(tmp_path, {"r": "b"}, who="me")

            async def answered(body: bytes) -> None:
                while (await stage.ask("/r")).body != body:
                    await asyncio.sleep(0.02)

            await answered(b"two")
            copies = len(c.asked)
            for content in (b"{", b'{"format": 9}', b'{"format": 1, "routes": {"r": 5}}'):
                froze(stage, content)
                await asyncio.sleep(0.3)
                assert (await stage.ask("/r")).body == b"two"
            assert len(c.asked) == copies
            act(tmp_path, {"r": None})
            await answered(b"one")
        assert stage.counters == {("override_errors",): 3}
        answers = [row for row in stage.rows() if row["role"] == "primary"]
        reasons = {(row["variant"], row["reason"], row["propensity"], row.get("forced", False)) for row in answers}
        assert reasons == {("a", "request", 1.0, False), ("b", "frozen", None, True)}

    play(main())


def test_a_worker_that_starts_begins_frozen(tmp_path: Path) -> None:
    act(tmp_path, {"r": "b"})

    async def main() -> None:
        plan = Weighted((("a", 1.0), ("b", 0.0)))
        parts = (backend("a", "http://127.0.0.1:1"), route("r", plan))
        async with Model(two) as b, staged(tmp_path, snapshot(*parts, backend("b", b.url))) as stage:
            assert (await stage.ask("/r")).body == b"two"

    play(main())
