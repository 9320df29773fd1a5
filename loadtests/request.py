"""The request that every gateway gets: a 200-byte JSON body, from one of many users.

Rule: the same bytes for every peer, so that only the gateway in front of the backend differs.
"""

from __future__ import annotations

from typing import Final

PATH: Final = "/v2/models/m/infer"

#: A prime, so that going through the users in turn does not keep step with other counts.
USERS: Final = 997

_NUMBERS: Final = ",".join(["0.25"] * 26)
BODY: Final = (b'{"inputs":[{"name":"x","shape":[1,26],"datatype":"FP64","data":[' + _NUMBERS.encode() + b"]}]}").ljust(
    200
)


def request(user: int, *, path: str = PATH, body: bytes = BODY) -> bytes:
    """Return one request as bytes."""
    return (
        b"POST %b HTTP/1.1\r\nhost: models.example\r\nx-user-id: user-%d\r\ncontent-type: application/json\r\n"
        b"content-length: %d\r\n\r\n%b" % (path.encode(), user, len(body), body)
    )


REQUESTS: Final = tuple(request(user) for user in range(USERS))
