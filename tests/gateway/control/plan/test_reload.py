"""The operator's file, watched."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from gateway.control.plan.reload import changes, content_of, needs_restart
from router.snapshot import Gateway


@pytest.mark.parametrize("way", ["written", "replaced", "swapped behind a link"])
def test_a_change_of_content_is_noticed_however_it_is_made(tmp_path: Path, way: str) -> None:
    async def story() -> None:
        folder = tmp_path / "etc"
        folder.mkdir()
        path = folder / "turnout.toml"
        if way == "swapped behind a link":
            (folder / "one").write_text("one")
            path.symlink_to("one")
        else:
            path.write_text("one")
        noticed = 0
        watching = changes(path, content_of(path))
        first = asyncio.ensure_future(anext(watching))
        await asyncio.sleep(0.3)
        (folder / "beside").write_text("of no interest")
        await asyncio.sleep(0.4)
        assert not first.done()
        (folder / "two").write_text("two")
        if way == "written":
            path.write_text("two")
        elif way == "replaced":
            (folder / "two").replace(path)
        else:
            (folder / "link").symlink_to("two")
            (folder / "link").replace(path)
        async with asyncio.timeout(5):
            await first
            noticed += 1
        await watching.aclose()  # type: ignore[attr-defined]
        assert noticed == 1

    asyncio.run(story())


def test_what_the_process_was_started_with_needs_a_restart_and_the_place_is_named(tmp_path: Path) -> None:
    path = tmp_path / "turnout.toml"
    path.write_text('schema_version = 1\n[gateway]\nlisten = "127.0.0.1:1"\n')
    running, wanted = Gateway(), Gateway(listen="127.0.0.1:1", workers=2, max_body_bytes=5)
    found = needs_restart(running, wanted, path)
    assert [(d.line, d.column, d.path) for d in found] == [(2, 1, "gateway.workers"), (3, 10, "gateway.listen")]
    assert "127.0.0.1:8080" in found[1].message
    assert needs_restart(running, running, path) == ()


def test_a_port_does_not_begin_or_cease_to_speak_tls_by_an_edit(tmp_path: Path) -> None:
    """If such an edit were called in force, a client would send its token to a port that still speaks plain HTTP."""
    tls = Gateway(tls_cert_file="/a.pem", admin_tls_cert_file="/b.pem")
    found = {one.path for one in needs_restart(Gateway(), tls, tmp_path / "turnout.toml")}
    assert found == {"gateway.tls_cert_file", "gateway.admin_tls_cert_file"}
    assert len(needs_restart(tls, Gateway(), tmp_path / "turnout.toml")) == 2
