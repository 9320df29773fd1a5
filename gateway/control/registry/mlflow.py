"""Webhooks of an MLflow model registry: who signed them, and which slots they fill.

Rule: the signature is checked over the body as it came, before anything of it is read; every comparison is in constant
time. Unknown fields and events are ignored, and answered as such.

Source: MLflow 3 documentation, "Webhooks": ``X-MLflow-Signature`` is "v1," and the base64 of HMAC-SHA256, keyed by the
secret, over delivery id, timestamp (Unix seconds) and body, joined by ".".
"""

from __future__ import annotations

import base64
import hmac
from collections.abc import Mapping
from datetime import datetime
from hashlib import sha256
from typing import Any, Final, NamedTuple

import orjson

from router.snapshot import Backend

#: How far a message's timestamp may be from now: as long may MLflow try to deliver it, and clocks differ.
WINDOW_SECONDS: Final = 300
#: The action of the entity "model_version_alias" that fills a slot.
_CREATED: Final = ("model_version_alias", "created")


class AliasMoved(NamedTuple):
    """A version that got an alias; ``event_ms`` is when, by the registry's clock."""

    model: str
    alias: str
    version: str
    event_ms: int


def signed(headers: Mapping[str, str], body: bytes, secrets: tuple[bytes, ...], now_seconds: float) -> str | None:
    """Return why a message is not believed; None if one of the secrets signed it, lately."""
    delivery, sent = headers.get("x-mlflow-delivery-id", ""), headers.get("x-mlflow-timestamp", "")
    given = headers.get("x-mlflow-signature", "")
    if not (delivery and sent and given):
        return "it needs X-MLflow-Signature, X-MLflow-Delivery-Id and X-MLflow-Timestamp: give the webhook a secret"
    if not (sent.isascii() and sent.isdigit() and len(sent) <= 12):
        return "X-MLflow-Timestamp must be Unix seconds"
    content = b".".join((delivery.encode("latin-1", "replace"), sent.encode(), body))
    fits = False
    for secret in secrets:
        digest = base64.b64encode(hmac.new(secret, content, sha256).digest())
        fits |= hmac.compare_digest(b"v1," + digest, given.encode("latin-1", "replace"))
    if not fits:
        return "the signature does not fit: it is of another secret, or the message was altered"
    if abs(int(sent) - now_seconds) > WINDOW_SECONDS:
        return f"it was sent more than {WINDOW_SECONDS} s ago, or the clocks differ"
    return None


def alias_moved(body: bytes) -> AliasMoved | str:
    """Return what a message says, or why it fills nothing."""
    try:
        said: Any = orjson.loads(body)
        event = said["entity"], said["action"]
        if event != _CREATED:
            return f"{str(event[0])[:40]}.{str(event[1])[:40]} fills no slot, model_version_alias.created does"
        data = said["data"]
        moment = datetime.fromisoformat(said["timestamp"])
        if moment.tzinfo is None:
            return "its timestamp has no zone"
        model, alias, version = data["name"], data["alias"], str(data["version"])
    except (ValueError, KeyError, TypeError, IndexError, OverflowError):
        return "it is no message of MLflow: entity, action, timestamp and data with name, alias and version"
    if not (isinstance(model, str) and isinstance(alias, str)):
        return "name and alias must be texts"
    return AliasMoved(model, alias, version, int(moment.timestamp() * 1000))


def slots_of(moved: AliasMoved, backends: Mapping[str, Backend]) -> list[str]:
    """Return the backends whose slot waits for this alias of this model."""
    return [
        name
        for name, backend in backends.items()
        if backend.slot is not None
        and (backend.slot.registry, backend.slot.model, backend.slot.alias) == ("mlflow", moved.model, moved.alias)
    ]
