"""A person asks to be forgotten: nothing in the data directory names it, and the numbers stay what they were."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gateway.files.pseudonym import pseudonym
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

[metrics.correct]
kind = "label"
mature = "arrival"

[routes.digits]
path = "/digits"
unit = "header:x-user-id"
prediction = "/answer"
metrics = ["correct"]
baseline = "one"
[routes.digits.capture]
request = ["/who"]
[routes.digits.policy]
kind = "ab"
shares = {{ one = 0.5, two = 0.5 }}
"""

PERSON, OTHER = "zeus-4711-person", "hera-0815-person"
KEYS = ("first" * 8, "second" * 6)


def counted(report: dict[str, Any]) -> tuple[Any, Any]:
    """What a report counts: all but how old the oldest pending prediction is, which time moves too."""
    variants = [dict(one) for one in report["variants"]]
    for one in variants:
        one["metrics"] = {
            name: {key: number for key, number in its.items() if key != "oldest_pending_seconds"}
            for name, its in one["metrics"].items()
        }
    return variants, report["feedback"]


def test_an_erased_person_is_named_in_no_file_under_any_key(tmp_path: Path) -> None:
    """Two workers, a key that is rotated in between, rows that are recorded and rows that are not yet."""
    keys = tmp_path / "units"
    keys.write_text(KEYS[0])
    names = [PERSON, *(pseudonym(key.encode(), PERSON) for key in KEYS)]
    with Backend(fixed({"answer": 7})) as backend:
        gateway = f'workers = 2\nunit_key_file = "{keys}"'
        with Turnout(tmp_path, CONFIG.format(url=backend.url), gateway=gateway) as program:
            asked_for: list[str] = []

            def asked(user: str, label: int) -> str:
                asked_for.append(user)
                answer = program.ask("/digits", {"who": user}, x_user_id=user)
                one = answer.headers["turnout-prediction-id"]
                assert program.feedback({"prediction_id": one, "metric": "correct", "value": label}).status_code == 202
                return one

            def joined() -> int:
                statuses = program.report("digits")["feedback"]
                return int(statuses.get("joined", 0))

            def traces() -> set[str]:
                held = [path.read_bytes() for path in program.data_dir.rglob("*") if path.is_file()]
                return {name for name in names if any(name.encode() in content for content in held)}

            first = [asked(user, label) for user in (PERSON, OTHER) for label in (7, 8, 7)]
            eventually(lambda: joined() == 6, "the first labels are joined")
            keys.write_text(f"{KEYS[1]}\n{KEYS[0]}\n")

            def rotated() -> bool:
                asked(PERSON, 7)
                return names[2] in traces()

            eventually(rotated, "the second key is in use")
            assert traces() == set(names)  # the captured body has it, because it was asked for
            shown = turnout("privacy", "export", "--unit", PERSON, "-c", str(program.file))
            assert shown.returncode == 0, shown.stderr
            lines = [json.loads(line) for line in shown.stdout.splitlines()]
            assert lines[0] == {"kind": "unit", "unit": PERSON, "kept_as": [names[0], names[2], names[1]]}
            predictions = {row["prediction_id"]: row for row in lines if row["kind"] == "prediction"}
            assert set(first[:3]) <= predictions.keys()
            assert predictions[first[0]]["captured"]["request"] == {"/who": PERSON}

            eventually(lambda: joined() == len(asked_for), "all labels are joined")
            before = program.report("digits")
            erased = turnout("privacy", "erase", "--unit", PERSON, "-c", str(program.file), seconds=90)
            assert erased.returncode == 0, erased.stderr
            assert "calls" in erased.stdout
            assert traces() == set()
            after = program.report("digits")
            assert counted(after) == counted(before)
            assert program.prediction(first[0]) is None
            other = program.prediction(first[3])
            assert other is not None
            assert len(other["feedback"]) == 1
            events = program.admin.get("/api/v1/events").json()["events"]
            (audit,) = [one for one in events if one["kind"] == "units_erased"]
            assert audit["detail"].startswith("1 unit erased: ")
            assert not any(name in json.dumps(events) + program.log() for name in names)
        assert program.process is not None
        assert program.process.returncode == 0
        assert traces() == set()
