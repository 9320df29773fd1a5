"""One model in its own process serves the Open Inference Protocol, and never outlives the process that started it."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from gateway.demo.models import Digits, load, save, train


@pytest.fixture(scope="module")
def digits() -> Digits:
    return load()


@pytest.fixture(scope="module")
def server(digits: Digits, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    file = tmp_path_factory.mktemp("server") / "model"
    save(next(model for model in train(digits) if model.name == "digits_v3"), file)
    process = start(file)
    assert process.stdout is not None
    with process, httpx.Client(base_url=f"http://127.0.0.1:{int(process.stdout.readline())}") as client:
        yield client
        process.terminate()
        # uvicorn finishes its answers and then ends by the signal that it was sent.
        assert process.wait(10) == -signal.SIGTERM


def start(file: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "gateway.demo.model_server", str(file)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )


def inference(pixels: list[float], **more: object) -> dict[str, object]:
    tensor = {"name": "image", "shape": [1, 64], "datatype": "FP64", "data": pixels}
    return {"inputs": [tensor], **more}


def test_it_reads_a_digit_and_says_which_version_read_it(server: httpx.Client, digits: Digits) -> None:
    asked = inference(digits.held_pixels[0].tolist(), id="request-7")
    answer = server.post("/v2/models/digits/infer", json=asked)
    assert answer.status_code == 200
    assert answer.json() == {
        "id": "request-7",
        "model_name": "digits",
        "model_version": "3.0.0",
        "outputs": [{"name": "digit", "shape": [1], "datatype": "INT64", "data": [int(digits.held_labels[0])]}],
    }


@pytest.mark.parametrize(
    "path", ["/v2/health/live", "/v2/health/ready", "/v2/models/digits", "/v2/models/digits/ready"]
)
def test_it_answers_the_protocols_other_questions(server: httpx.Client, path: str) -> None:
    assert server.get(path).status_code == 200


def test_another_model_is_not_here(server: httpx.Client, digits: Digits) -> None:
    assert server.get("/v2/models/letters/ready").status_code == 404
    asked = inference(digits.held_pixels[0].tolist())
    assert server.post("/v2/models/letters/infer", json=asked).status_code == 404


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"{}", b'{"inputs": []}', b'{"inputs": [{"data": [1, 2]}]}', b'{"inputs": 5}']
)
def test_what_is_no_image_is_refused_in_words(server: httpx.Client, content: bytes) -> None:
    answer = server.post("/v2/models/digits/infer", content=content)
    assert answer.status_code == 400
    assert "not an inference request" in answer.json()["error"]


def test_it_ends_with_its_standard_input(digits: Digits, tmp_path: Path) -> None:
    """The process that started it may have been killed, and then no other process would end it."""
    save(train(digits)[-1], tmp_path / "model")  # a ranker, which is up at once
    with start(tmp_path / "model") as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert int(process.stdout.readline())
        process.stdin.close()
        assert process.wait(10) == 0
