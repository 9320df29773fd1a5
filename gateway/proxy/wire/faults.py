"""Why a request or a call was cut short: the exceptions that both sides of the proxy raise and catch.

Rule: an exception here says who is to blame. ``UpstreamFault`` is the backend's; all others are the client's, or the
worker's own limits.
"""

from __future__ import annotations

from router.records import Fault


class UpstreamFault(Exception):
    """Why a call has no complete answer. ``detail`` is for the log and for operators."""

    def __init__(self, fault: Fault, detail: str) -> None:
        super().__init__(f"{fault}: {detail}")
        self.fault: Fault = fault
        self.detail = detail
        #: How often the call had been sent again before it ended in this.
        self.retries = 0


class ClientGone(Exception):
    """The client's connection is lost, or what it sends cannot be read any more."""


class BodyTooLarge(Exception):
    """The body is longer than ``max_body_bytes``."""


class BodyUnheld(Exception):
    """The body has to be here as a whole, and the worker has no memory left for it."""


class BodyTimeout(Exception):
    """No byte of the body came for ``body_timeout_ms``, or fewer than ``min_body_bytes_per_second`` on the whole."""
