"""``turnout token`` works on the store, or through the admin port of the gateway that has it open."""

from __future__ import annotations

import asyncio
import json
import socket
from pathlib import Path
from typing import Any

import pytest

from gateway.admin.app import create
from gateway.admin.port import server
from gateway.cli import run
from gateway.cli.exits import PROBLEM, USAGE
from tests.gateway.cli.running import write_config
from tests.gateway.control.test_control import House, recording, shown, until


def said(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> tuple[str, str]:
    assert run(["token", *arguments]) == code
    out = capsys.readouterr()
    return out.out, out.err


def test_a_token_is_made_before_anything_was_started(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = str(write_config(tmp_path))
    out, err = said(capsys, "create", "--scope", "operate", "--name", "ci", "--expires", "90d", "-c", config)
    assert out.startswith("turnout_")
    assert len(out.strip()) == 56
    assert out.strip() not in err
    assert '"ci" may read and act on routes until' in err
    assert "Without admin_token_required = true" in err
    listed = json.loads(said(capsys, "list", "--json", "-c", config)[0])
    assert [(one["name"], one["scope"], one["state"], one["used_ms"]) for one in listed] == [
        ("ci", "operate", "valid", None)
    ]
    table = said(capsys, "list", "-c", config)[0]
    assert out.strip()[:16] in table
    assert out.strip() not in table
    assert "is revoked" in said(capsys, "revoke", "ci", "-c", config)[0]
    assert json.loads(said(capsys, "list", "--json", "-c", config)[0])[0]["state"] == "revoked"


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("create", "--scope", "all", "--name", "ci"), PROBLEM, "one of feedback, read, operate, admin"),
        (("create", "--scope", "read", "--name", "c i"), PROBLEM, "the name must begin"),
        (("create", "--scope", "read", "--name", "ci", "--expires", "soon"), USAGE, "must be a duration"),
        (("revoke", "nosuch"), PROBLEM, 'no token is named "nosuch"; there is none'),
        (("list",), PROBLEM, "the store's tables are empty"),
    ],
)
def test_a_mistake_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], code: int, words: str
) -> None:
    config = str(write_config(tmp_path))
    assert words in said(capsys, *arguments, "-c", config, code=code)[1].replace("\n", " ")


def test_a_running_gateway_makes_it_where_it_has_the_store_open(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two programs that write one SQLite file are the one way to break it."""

    async def story() -> None:
        house = House(tmp_path)
        sock = socket.create_server(("127.0.0.1", 0))
        admin = f"127.0.0.1:{sock.getsockname()[1]}"
        config = str(write_config(tmp_path / "asking", admin=admin).resolve())
        text = Path(config).read_text().replace(str(tmp_path / "asking" / "data"), str(house.data))
        Path(config).write_text(text)
        async with recording(house.control()) as control:
            await until(lambda: control.queries.ready)
            port = server(create(shown(control)))
            serving = asyncio.create_task(port.serve(sockets=[sock]))

            def ask(*arguments: str, code: int = 0) -> Any:
                return said(capsys, *arguments, "-c", config, code=code)

            made = json.loads((await asyncio.to_thread(ask, "create", "--scope", "read", "--name", "ci", "--json"))[0])
            assert [one.name for one in control.in_force.snapshot.tokens] == ["ci"]
            monkeypatch.setenv("TURNOUT_TOKEN", made["token"])
            refused = await asyncio.to_thread(lambda: ask("create", "--scope", "read", "--name", "other", code=PROBLEM))
            assert 'the token "ci" reads and changes nothing' in refused[1]
            monkeypatch.delenv("TURNOUT_TOKEN")
            assert "valid" in (await asyncio.to_thread(ask, "list"))[0]
            assert "is revoked" in (await asyncio.to_thread(ask, "revoke", "ci"))[0]
            assert control.in_force.snapshot.tokens == ()
            port.should_exit = True
            await serving

    (tmp_path / "asking").mkdir()
    asyncio.run(story())
