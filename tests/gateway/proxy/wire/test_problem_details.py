"""Our own errors: problem+json that names what is wrong (RFC 9457)."""

from __future__ import annotations

import orjson

from gateway.proxy.wire.problem_details import problem


def test_a_problem_is_an_rfc_9457_document_with_its_extensions() -> None:
    headers, body = problem(422, "Unprocessable Content", "2 events", errors=[{"index": 0, "detail": "no value"}])
    assert headers == [(b"content-type", b"application/problem+json")]
    assert orjson.loads(body) == {
        "type": "about:blank",
        "title": "Unprocessable Content",
        "status": 422,
        "detail": "2 events",
        "errors": [{"index": 0, "detail": "no value"}],
    }
