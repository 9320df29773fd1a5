"""The gateway's own errors, as clients read them: RFC 9457 ``application/problem+json``.

Rule: every error of the gateway's own has this one shape; a backend's errors are passed on as they are.
"""

from __future__ import annotations

from typing import Any

import orjson

Problem = tuple[list[tuple[bytes, bytes]], bytes]


def problem(status: int, title: str, detail: str, **members: Any) -> Problem:
    """Return the headers and the body of a problem document.

    ``title`` is the same for every problem of its kind, ``detail`` says what happened to this request. Further members
    are the extensions of RFC 9457, section 3.2. The type is always ``about:blank``: the status is all that a
    client has to tell apart.

    >>> problem(404, "Not Found", "no route matches GET /x")[1]
    b'{"type":"about:blank","title":"Not Found","status":404,"detail":"no route matches GET /x"}'
    """
    document = {"type": "about:blank", "title": title, "status": status, "detail": detail, **members}
    return [(b"content-type", b"application/problem+json")], orjson.dumps(document)
