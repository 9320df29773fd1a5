"""A real installation and its assignment key: made once, shown nowhere, explained as it is used, and rotated."""

from __future__ import annotations

import re
import stat
from pathlib import Path

import pytest

from gateway.cli import run
from router.assignment import AssignmentKey
from router.snapshot import decode
from tests.stories.backends import Backend, fixed
from tests.stories.harness import Turnout, eventually, turnout

pytestmark = pytest.mark.story

CONFIG = """
[backends.one]
url = "{url}"
version = "1"
[backends.two]
url = "{url}"
version = "2"
[metrics.click]
kind = "event"
[routes.r]
path = "/r"
unit = "header:x-user-id"
metrics = ["click"]
baseline = "one"
expose_variant = true
policy = {{ kind = "ab", shares = {{ one = 0.5, two = 0.5 }} }}
"""
UNITS = [f"user-{number}" for number in range(24)]
SHOWN = (
    *("/api/v1/config", "/api/v1/routes", "/api/v1/events", "/api/v1/plans?route=r", "/metrics", "/readyz?verbose"),
    *("/", "/routes/r", "/api/v1/export?route=r", "/api/v1/fleet"),
)


def met(program: Turnout) -> list[str]:
    return [program.ask("/r", x_user_id=unit).headers["turnout-variant"] for unit in UNITS]


def explained(program: Turnout, capsys: pytest.CaptureFixture[str]) -> list[str]:
    for unit in UNITS:
        assert run(["explain", "r", "--unit", unit, "-c", str(program.file)]) == 0
    return re.findall(r"variant +(\S+)", capsys.readouterr().out)


def test_the_key_is_made_once_and_seen_nowhere_and_moves_units_only_when_it_is_rotated(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Backend(fixed({})) as backend:
        program = Turnout(tmp_path, CONFIG.format(url=backend.url))
        path = program.data_dir / "assignment.key"
        with program:
            first, secret = met(program), path.read_text().strip()
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            assert explained(program, capsys) == first
            hidden = hiding(secret)
            for where in SHOWN:
                assert not [one for one in hidden if one in program.admin.get(where).text], where
            program.stop()
            for file in program.data_dir.rglob("*"):
                if file.is_file() and file != path:
                    assert secret.encode() not in file.read_bytes(), file
            assert not [one for one in hidden if one in program.log()]
            program.start()
            program.wait_until_ready()
            assert met(program) == first
            before = decode((program.data_dir / "snapshot.json").read_bytes())
            rotated = turnout("assignment", "rotate", "-c", str(program.file))
            assert rotated.returncode == 0, rotated.stderr
            now = path.read_text().strip()
            after = decode((program.data_dir / "snapshot.json").read_bytes())
            assert after.assignment == AssignmentKey(now).name != before.assignment
            assert after.routes["r"].epoch == before.routes["r"].epoch
            assert after.routes["r"].period > before.routes["r"].period
            eventually(lambda: met(program) != first, "units are drawn anew")
            again = met(program)
            assert explained(program, capsys) == again
            status = turnout("assignment", "status", "-c", str(program.file)).stdout
            assert f"{after.assignment}, and units are assigned by it" in status
            assert not [one for one in (*hidden, *hiding(now)) if one in status + rotated.stdout + program.log()]
        path.unlink()
        lost = turnout("assignment", "status", "-c", str(program.file)).stdout
        assert f"gone: units are assigned by {after.assignment}" in lost


def hiding(secret: str) -> tuple[str, ...]:
    """What would reveal the key, or which unit gets which variant."""
    return secret, AssignmentKey(secret).salt("r")
