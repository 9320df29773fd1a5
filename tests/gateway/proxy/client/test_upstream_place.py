"""Where a replica is: sockets, TLS with the backend's own authorities, names that move to another machine."""

from __future__ import annotations

import asyncio
import socket
import time
from pathlib import Path

import pytest

from gateway.files.secret import SecretMissing
from gateway.proxy.client import replica
from gateway.proxy.client.backends import Backends
from gateway.proxy.client.upstream import Upstream
from gateway.proxy.wire.faults import UpstreamFault
from tests.gateway.proxy import builders
from tests.gateway.proxy.certificates import certificate
from tests.gateway.proxy.faults import HOST, Wire, backend, get, polite, stays, upstream
from tests.gateway.proxy.raw import play, until

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def test_a_backend_may_listen_on_a_socket(tmp_path: Path) -> None:
    async def main() -> None:
        async with backend(path=tmp_path / "m.sock") as b:
            up = Upstream(builders.backend("b", f"{b.url}:/base", path="/p"))
            answer = await up.call("GET", b"/a?b", [], b"")
            assert answer.complete == b"ok"
            await get(up)
            assert [request.line for request in b.requests] == [b"GET /base/p?b HTTP/1.1", b"GET /base/p HTTP/1.1"]
            assert b.requests[0].values(b"host") == [b"localhost"]
            assert b.requests[1].fields == HOST
            assert b.wires == 1
            assert up.states() == [(f"unix:{tmp_path / 'm.sock'}:/base", "fit")]
            await up.close()

    play(main())


def test_a_socket_that_is_not_there_is_refused(tmp_path: Path) -> None:
    async def main() -> None:
        up = Upstream(builders.backend("b", f"unix:{tmp_path}/none.sock"))
        with pytest.raises(UpstreamFault) as caught:
            await get(up)
        assert caught.value.fault == "refused"
        assert up.in_flight == 0
        await up.close()

    play(main())


def test_a_backends_own_authorities_are_trusted_and_no_others(tmp_path: Path) -> None:
    async def main() -> None:
        (tmp_path / "other").mkdir()
        certificate(tmp_path / "other")
        async with backend(polite, tls=certificate(tmp_path)) as b:
            up = upstream(b, tls_ca_file=str(tmp_path / "cert.pem"))
            assert await get(up) == b"ok"
            await up.close()
            for other in (None, str(tmp_path / "other" / "cert.pem")):
                up = upstream(b, tls_ca_file=other)
                with pytest.raises(UpstreamFault, match="certificate"):
                    await get(up)
                await up.close()
            up = Upstream(builders.backend("b", f"https://127.0.0.1:{b.port}", tls_ca_file=str(tmp_path / "cert.pem")))
            with pytest.raises(UpstreamFault, match="certificate"):  # it is localhost's
                await get(up)
            await up.close()

    play(main())


def test_the_host_is_named_to_a_tls_backend(tmp_path: Path) -> None:
    """Behind one address there may be many hosts, each with its certificate."""

    async def main() -> None:
        named: list[str | None] = []
        context = certificate(tmp_path)
        context.sni_callback = lambda _, name, __: named.append(name)
        async with backend(polite, tls=context) as b:
            up = upstream(b, tls_ca_file=str(tmp_path / "cert.pem"))
            await get(up)
            await up.close()
        assert named == ["localhost"]

    play(main())


def test_a_connection_that_is_old_takes_no_other_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """The name may have moved to another machine, and a pool that is never idle would not notice."""

    async def main() -> None:
        async with backend() as b:
            up = upstream(b, timeout_ms=100)
            await get(up)
            await get(up)
            assert b.wires == 1
            monkeypatch.setattr(replica, "OLDEST_SECONDS", 0.05)
            await asyncio.sleep(0.1)
            await get(up)  # on the old one, which is not kept after it
            await until(lambda: not b.open)
            await get(up)
            assert b.wires == 2
            await up.close()

    play(main())


def test_the_total_time_ends_an_answer_that_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is never silence between its bytes, so that no other deadline passes."""

    async def drips(wire: Wire) -> None:
        await wire.request()
        await wire.send(CHUNKED)
        while True:
            await wire.send(b"1\r\nx\r\n")
            await asyncio.sleep(0.01)

    async def main() -> None:
        async with backend(drips) as b:
            up = upstream(b, total_timeout_ms=200, idle_timeout_ms=5_000)
            answer = await up.call("POST", b"/", HOST, b"x")
            with pytest.raises(UpstreamFault, match=r"timeout: no whole answer within 0\.2 s"):
                await answer.read(10_000)
            assert up.in_flight == 0
            await until(lambda: not b.open)
            await up.close()

    play(main())


def test_the_total_time_ends_a_call_that_gets_no_head_or_no_connection() -> None:
    async def main() -> None:
        async with backend(stays(b"")) as b:
            up = upstream(b, total_timeout_ms=100)
            with pytest.raises(UpstreamFault, match="timeout: no whole answer"):
                await get(up)
            await until(lambda: not b.open)
            await up.close()
        with socket.create_server(("127.0.0.1", 0), backlog=0) as deaf:
            others = []
            for _ in range(4):
                other = socket.socket()
                other.setblocking(False)
                other.connect_ex(deaf.getsockname())
                others.append(other)
            up = Upstream(builders.backend("b", f"http://127.0.0.1:{deaf.getsockname()[1]}", total_timeout_ms=100))
            began = time.monotonic()
            with pytest.raises(UpstreamFault, match="timeout: the time of the call was over"):
                await get(up)
            assert time.monotonic() - began < 1.5  # and not the two seconds that a connection may take
            await up.close()
            for other in others:
                other.close()

    play(main())


def test_the_total_time_is_that_of_all_attempts_together() -> None:
    async def main() -> None:
        async with backend(stays(b"")) as one, backend(stays(b"")) as two, backend(stays(b"")) as three:
            up = upstream(one, two, three, retries=2, timeout_ms=200, total_timeout_ms=300)
            with pytest.raises(UpstreamFault) as caught:
                await get(up)
            assert (caught.value.fault, caught.value.retries) == ("timeout", 1)
            assert sum(b.wires for b in (one, two, three)) == 2
            await up.close()

    play(main())


def test_an_answer_in_time_is_not_touched_and_nothing_is_left_to_watch() -> None:
    async def main() -> None:
        async with backend() as b:
            up = upstream(b, total_timeout_ms=100)
            for _ in range(3):
                assert await get(up) == b"ok"
                await asyncio.sleep(0.15)
            assert b.wires == 1
            await up.close()

    play(main())


def test_authorities_that_change_in_their_file_are_taken_over(tmp_path: Path) -> None:
    """They are renewed before the backend's certificate is, and no operator should have to restart for it."""

    async def main() -> None:
        trusted = tmp_path / "trusted.pem"
        (tmp_path / "other").mkdir()
        certificate(tmp_path / "other")
        trusted.write_bytes((tmp_path / "other" / "cert.pem").read_bytes())
        async with backend(polite, tls=certificate(tmp_path)) as b:
            held = Backends(builders.snapshot(builders.backend("b", b.url, tls_ca_file=str(trusted))))
            before = held.current.answering("b")
            with pytest.raises(UpstreamFault, match="certificate"):
                await get(before)
            assert not held.refresh()
            trusted.write_text("nothing")
            with pytest.raises(SecretMissing, match="holds no certificate"):
                held.refresh()
            assert held.current.answering("b") is before
            trusted.write_bytes((tmp_path / "cert.pem").read_bytes())
            assert held.refresh()
            assert await get(held.current.answering("b")) == b"ok"
            assert not held.refresh()
            await held.close()

    play(main())
