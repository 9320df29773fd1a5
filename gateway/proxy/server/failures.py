"""What a client reads when the handler of its request failed, or gave no answer.

Rule: what a handler raises ends here: as the answer to its request, and in the log where the error is the gateway's.
"""

from __future__ import annotations

import asyncio
import logging

from gateway.proxy.server.accept import Refusal
from gateway.proxy.server.service import Service
from gateway.proxy.wire.faults import BodyTimeout, BodyTooLarge, BodyUnheld

logger = logging.getLogger(__name__)


def failure(error: BaseException | None, service: Service, asked: str) -> Refusal:
    """Return the answer to a request whose handler ended in this error or in none; ``asked`` names the request."""
    if error is None:
        logger.error("no answer was given to %s", asked)
        return Refusal(500, "the gateway gave no answer")
    if isinstance(error, asyncio.CancelledError):
        return Refusal(503, "the gateway is shutting down")
    if isinstance(error, BodyTooLarge):
        return Refusal(413, f"the body is longer than {service.max_body_bytes} bytes")
    if isinstance(error, BodyUnheld):
        service.unheld += 1
        return Refusal(503, "the worker holds as many bodies as it may", (b"retry-after", b"1"))
    if isinstance(error, BodyTimeout):
        return Refusal(408, "the body stopped coming, or came too slowly")
    logger.error("unhandled error at %s", asked, exc_info=error)
    return Refusal(500, "the gateway failed to handle the request")
