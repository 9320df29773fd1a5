"""The signature of a webhook, and the secrets that it is made with.

Rule: pure. No error shows a secret.

Source: Standard Webhooks 1.0.0, sections "Signature scheme" and "Deterministic symmetric signatures".
"""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Sequence
from typing import Final

PREFIX: Final = "whsec_"
#: How many bytes a secret may have.
LEAST_BYTES, MOST_BYTES = 24, 64


def signing_keys(text: str) -> tuple[bytes, ...]:
    """Return the keys in a secret's text, one from each line. Raises ValueError saying what a secret is.

    >>> signing_keys("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")[0].hex()[:16]
    '31f290f6bf06298a'
    """
    keys = tuple(_key(line.strip()) for line in text.splitlines() if line.strip())
    if not keys or not all(LEAST_BYTES <= len(key) <= MOST_BYTES for key in keys):
        what = f'"{PREFIX}" and {LEAST_BYTES} to {MOST_BYTES} bytes in base64'
        raise ValueError(
            f"each line of a signing secret must be {what}; make one: echo {PREFIX}$(openssl rand -base64 32)"
        )
    return keys


def signed(keys: Sequence[bytes], message: str, seconds: int, body: bytes) -> str:
    """Return the header ``webhook-signature``: a signature with each key, the first one first.

    >>> signed(signing_keys("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"),
    ...     "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    'v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE='
    """
    content = f"{message}.{seconds}.".encode() + body
    made = (base64.b64encode(hmac.digest(key, content, "sha256")).decode() for key in keys)
    return " ".join(f"v1,{signature}" for signature in made)


def _key(line: str) -> bytes:
    """Return the bytes of one secret, none if it is not one."""
    try:
        return base64.b64decode(line.removeprefix(PREFIX), validate=True) if line.startswith(PREFIX) else b""
    except (binascii.Error, ValueError):
        return b""
