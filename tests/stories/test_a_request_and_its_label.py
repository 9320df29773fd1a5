"""A request becomes a row, a label comes back, the report moves: the whole program from end to end."""

from __future__ import annotations

import asyncio
from pathlib import Path
from uuid import UUID

import pytest

from tests.stories.backends import Backend, fixed
from tests.stories.harness import Turnout, eventually, turnout

pytestmark = pytest.mark.story

CONFIG = """
[backends.old]
url = "{old}"
model = "digits"
version = "1"
[backends.new]
url = "{new}"
model = "digits"
version = "2"
reported_version = "/model_version"

[metrics.correct]
kind = "label"
score = "match"
window = "2s"

[routes.digits]
path = "/v2/models/digits/infer"
unit = "header:x-user-id"
prediction = "/outputs/0/data/0"
metrics = ["correct"]
expose_variant = true
mirrors = [{{ variant = "new", share = 1.0 }}]

[routes.digits.policy]
kind = "canary"
stable = "old"
candidate = "new"
share = 0.0
"""


def test_a_request_becomes_a_row_and_its_label_moves_the_report(tmp_path: Path) -> None:
    """One request, answered by the old model (wrong) and mirrored to the new one (right); then the truth arrives."""
    seven = {"model_name": "digits", "model_version": "2.1", "outputs": [{"data": [7]}]}
    one = {"model_name": "digits", "outputs": [{"data": [1]}]}
    with Backend(fixed(one)) as old, Backend(fixed(seven)) as new:
        config = CONFIG.format(old=old.url, new=new.url)
        with Turnout(tmp_path, config) as program:
            answer = program.ask(
                "/v2/models/digits/infer",
                {"inputs": []},
                x_user_id="ada",
                x_request_id="r-1",
                traceparent="00-abc-def-01",
            )
            assert answer.status_code == 200
            assert answer.json() == one
            assert answer.headers["turnout-variant"] == "old"
            prediction_id = answer.headers["turnout-prediction-id"]
            assert UUID(prediction_id).version == 7

            def both_calls() -> dict[str, dict[str, object]] | None:
                found = program.prediction(prediction_id)
                calls = {call["role"]: call for call in found["calls"]} if found else {}
                return calls if len(calls) == 2 else None

            calls = eventually(both_calls, "the answer and its copy are stored")
            primary, shadow = calls["primary"], calls["shadow"]
            assert (primary["variant"], primary["version"], primary["status"], primary["prediction"]) == (
                "old",
                "1",
                200,
                1,
            )
            assert (primary["unit"], primary["request_id"], primary["propensity"]) == ("ada", "r-1", 1.0)
            assert (shadow["variant"], shadow["reported_version"], shadow["prediction"]) == ("new", "2.1", 7)

            told = program.feedback({"prediction_id": prediction_id, "metric": "correct", "value": 7})
            assert (told.status_code, told.json()) == (202, {"accepted": 1})

            def live() -> bool:
                variants = {v["name"]: v for v in program.report("digits")["variants"]}
                return bool(variants["old"]["metrics"]["correct"]["live"]["n"] == 1)

            eventually(live, "the label counts at once, as live")

            def mature() -> dict[str, object] | None:
                report = program.report("digits")
                variants = {v["name"]: v for v in report["variants"]}
                return report if variants["old"]["metrics"]["correct"]["mature"]["n"] == 1 else None

            report = eventually(mature, "the window closes without further traffic", seconds=12)
            assert report["feedback"] == {
                status: int(status == "joined")
                for status in (
                    "joined",
                    "corrected",
                    "repeated",
                    "late",
                    "waiting",
                    "orphaned",
                    "not_applicable",
                    "not_exposed",
                    "over_limit",
                    "set_aside",
                    "rejected",
                )
            }
            variants = {v["name"]: v for v in program.report("digits")["variants"]}
            assert variants["old"]["metrics"]["correct"]["mature"]["mean"] == 0.0
            assert variants["old"]["metrics"]["correct"]["pending"] == 0
            paired = variants["new"]["shadow"]["paired"]["correct"]
            assert (paired["against"], paired["n"], paired["difference"]) == ("old", 1, 1.0)

            stored = program.prediction(prediction_id)
            assert stored is not None
            assert [event["value"] for event in stored["feedback"]] == [7]
            mature_values = {(one["variant"], one["against"]): one["mature"] for one in stored["outcomes"]}
            assert mature_values == {("old", None): 0.0, ("new", None): 1.0, ("new", "old"): 1.0}

            shown = turnout("report", "digits", "-c", str(program.file))
            assert shown.returncode == 0, shown.stderr
            assert "digits" in shown.stdout
            # The files hold bodies, units and labels: whatever the umask, no other user may read them.
            assert program.open_to_others() == {}
            assert program.stop() == 0
            assert program.open_to_others() == {}
            assert len(list(program.data_dir.rglob("*"))) > 5


def test_bad_feedback_is_refused_whole_and_each_problem_is_named_by_index(tmp_path: Path) -> None:
    """Nothing of a batch with one bad event may be stored: the client will send the whole corrected batch again."""
    with (
        Backend(fixed({"outputs": [{"data": [7]}]})) as model,
        Turnout(tmp_path, CONFIG.format(old=model.url, new=model.url)) as program,
    ):
        prediction_id = program.ask("/v2/models/digits/infer").headers["turnout-prediction-id"]
        good = {"prediction_id": prediction_id, "metric": "correct", "value": 7}
        refused = program.feedback(good, {**good, "metric": "corect"}, {"metric": "correct", "value": 1})
        assert refused.status_code == 422
        assert refused.headers["content-type"] == "application/problem+json"
        assert [problem["index"] for problem in refused.json()["errors"]] == [1, 2]
        assert program.feedback(*[good] * 1001).status_code in {413, 422}
        nan = program.traffic.post(
            "/-/feedback", content=b'[{"prediction_id": "x", "metric": "correct", "value": NaN}]'
        )
        assert nan.status_code == 422
        assert program.traffic.post("/-/feedback", content=b"[").status_code == 422
        assert program.traffic.post("/-/feedback", content=b'"' + b"x" * 2_000_000 + b'"').status_code == 413

        assert program.feedback(good).json() == {"accepted": 1}
        eventually(lambda: program.report("digits")["feedback"]["joined"] == 1, "the good event is joined")
        found = program.prediction(prediction_id)
        assert found is not None
        assert len(found["feedback"]) == 1


def test_what_cannot_be_served_says_why_and_is_logged_as_the_variants_failure(tmp_path: Path) -> None:
    """An unknown path is no variant's failure; a backend that is down, or silent, is its variant's."""

    async def silent(asked: object) -> object:
        await asyncio.sleep(30)
        return {}

    with Backend(silent) as slow:
        config = CONFIG.format(old=slow.url, new="http://127.0.0.1:9").replace(
            'version = "1"', 'version = "1"\ntimeout_ms = 300'
        )
        with Turnout(tmp_path, config.replace("share = 0.0", "share = 0.5")) as program:
            unknown = program.ask("/nowhere")
            assert (unknown.status_code, unknown.headers["content-type"]) == (404, "application/problem+json")
            assert "turnout-prediction-id" not in unknown.headers
            answers = [program.ask("/v2/models/digits/infer", x_user_id=f"u{n}") for n in range(12)]
            statuses = {"old": 504, "new": 502}
            for answer in answers:
                assert answer.status_code == statuses[answer.headers["turnout-variant"]]
                assert answer.headers["content-type"] == "application/problem+json"

            def failures() -> bool:
                variants = program.report("digits")["variants"]
                answered = {v["name"]: (v["predictions"], v["failures"]) for v in variants}
                return sum(n for n, _ in answered.values()) == 12 and all(n == m for n, m in answered.values())

            eventually(failures, "every call is stored, each as its own variant's failure")
