"""Errors of the admin port, as RFC 9457 ``application/problem+json``.

Rule: an error names the thing, what was given and what is valid. It never contains a traceback or a secret.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any

import orjson
from starlette.responses import Response

from gateway import nearest

CONTENT_TYPE = "application/problem+json"


def problem(
    status: int, detail: str, *, title: str | None = None, headers: Mapping[str, str] | None = None, **members: Any
) -> Response:
    """Return the response for an error; ``members`` are added to its body as they are."""
    body = {"type": "about:blank", "title": title or HTTPStatus(status).phrase, "status": status, "detail": detail}
    return Response(orjson.dumps(body | members), status, headers=headers, media_type=CONTENT_TYPE)


def unknown(kind: str, name: str, names: Iterable[str]) -> Response:
    """Return the 404 for a name that is not among ``names``, with the nearest of them if one is near."""
    return problem(404, nearest.unknown(kind, name, names))
