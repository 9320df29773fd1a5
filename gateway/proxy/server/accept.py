"""Which request heads are accepted, and what they mean: Host, target, version and framing.

Rule: pure, and stricter than the parser where the parser is lenient. What two servers could read differently is
refused, so that no backend sees another request than the one that was routed. The target's bytes are never changed,
only cut.
Source: RFC 9112, sections 2.3, 3.2, 3.3 and 6; RFC 9110, sections 7.2, 8.6 and 10.1.1.
"""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import Final

from httptools import HttpParserCallbackError, HttpParserError, HttpParserInvalidMethodError

from gateway.proxy.wire.headers import CODING, EXPECT, HOPS, HOST, LENGTH, MEANING, VIA, Header, field

# uri-host [ ":" port ]: a name or IPv4 address, or an address in brackets. No userinfo, nothing empty.
_HOST: Final = re.compile(rb"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~!$&'()*+,;=%-]+)(?::[0-9]*)?")
#: Hosts that were found valid: clients name few of them, again and again.
_good_hosts: Final[set[bytes]] = set()
_REMEMBERED: Final = 256
_ABSOLUTE: Final = re.compile(rb"(?i:https?)://([^/?]*)(.*)", re.DOTALL)
_JUDGED: Final = HOST | LENGTH | CODING | EXPECT
_PASSING: Final = VIA | HOPS
#: Gateways of this name that one request may pass: an edge, a region, a team and one to spare. A loop would be passed
#: for ever, and each pass may send copies. All of them have one name, so one Via of that name is no proof of a loop.
_MAX_PASSES: Final = 4
#: Digits of a length or a number of hops. Python refuses to read numbers of thousands of them, zeros included.
_MAX_DIGITS: Final = 20
#: Where a fragment would begin. A number: to look for bytes in bytes, Python first fails to read them as one.
_FRAGMENT: Final = ord("#")
_METHOD: Final = re.compile(rb"[\r\n]*[!#$%&'*+.^_`|~0-9A-Za-z-]+ ")
#: What may be asked of a route, unless it says which methods it takes.
METHODS: Final = b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"


class Refusal(Exception):
    """A request that the edge answers itself, as the last one on its connection."""

    def __init__(self, status: int, detail: str, *headers: Header) -> None:
        super().__init__(detail)
        self.status = status
        self.title = HTTPStatus(status).phrase
        self.detail = detail
        self.headers = headers


#: target, headers, what they mean together, declared length of the body, whether it is chunked, whether 100 Continue is
#: expected before it.
Accepted = tuple[bytes, list[Header], int, int | None, bool, bool]


def accept(method: str, target: bytes, version: str, headers: list[Header]) -> Accepted:
    """Return what the head means: target in origin-form (or ``*``), and Host from the target where that names one.

    An OPTIONS that may be forwarded no more asks this gateway itself, and gets the target ``*``.

    Raises Refusal with 400, 405 (CONNECT and TRACE), 417, 501 (an unknown transfer coding), 505 or 508.
    """
    if version not in ("1.1", "1.0"):
        raise Refusal(505, f"HTTP/{version} is not served here; HTTP/1.1 is")
    if method == "CONNECT":
        raise Refusal(405, "this is a gateway, not a tunnel", (b"allow", METHODS))
    if method == "TRACE":
        # A backend would echo what it received, and that holds the secrets that the gateway adds.
        raise Refusal(405, "a request is not shown to its sender here", (b"allow", METHODS))
    host: bytes | None = None
    length: int | None = None
    codings: bytes | None = None
    expects = False
    meanings = 0
    for name, value in headers:
        meaning = MEANING[name]
        meanings |= meaning
        if not meaning & _JUDGED:
            continue
        if meaning & HOST:
            if host is not None:
                raise Refusal(400, "more than one Host field")
            host = value
        elif meaning & LENGTH:
            if len(value) > _MAX_DIGITS:
                raise Refusal(400, "the Content-Length has too many digits")
            length = int(value)  # the parser accepted it: digits, and only one
        elif meaning & CODING:
            codings = value if codings is None else codings + b"," + value
        else:
            if value.strip().lower() != b"100-continue":
                raise Refusal(417, "the only expectation known here is 100-continue")
            expects = version == "1.1"
    if codings is not None:
        _check_coding(codings, version, length)
    if host is None:
        if version == "1.1":
            raise Refusal(400, "HTTP/1.1 requires a Host field")
    elif host not in _good_hosts:
        if not _HOST.fullmatch(host.strip(b" \t")):
            raise Refusal(400, "the Host field is not a host")
        if len(_good_hosts) < _REMEMBERED:
            _good_hosts.add(host)
    if not target.startswith(b"/"):
        target, headers = _reduced(method, target, headers)
    if _FRAGMENT in target:
        raise Refusal(400, "a request target has no fragment")
    if meanings & _PASSING:
        target, headers = _passed(method, target, headers)
    return target, headers, meanings, length, codings is not None, expects


def _check_coding(codings: bytes, version: str, length: int | None) -> None:
    if version == "1.0":
        raise Refusal(400, "HTTP/1.0 has no Transfer-Encoding")
    if length is not None:
        raise Refusal(400, "both Content-Length and Transfer-Encoding")
    names = [coding.strip(b" \t").lower() for coding in codings.split(b",")]
    if names != [b"chunked"]:
        if names[-1] == b"chunked" and names.count(b"chunked") == 1:
            raise Refusal(501, "the only transfer coding known here is chunked")
        raise Refusal(400, "chunked must be the last transfer coding, and once")


def _passed(method: str, target: bytes, headers: list[Header]) -> tuple[bytes, list[Header]]:
    """Return target and headers of a request that names the gateways it passed, or how many more it may pass."""
    passes = sum(_passes(value) for name, value in headers if MEANING[name] & VIA)
    if passes > _MAX_PASSES:
        raise Refusal(508, f"the request passed {passes} gateways of this name: it goes in circles")
    hops = [value for name, value in headers if MEANING[name] & HOPS]
    if hops and method == "OPTIONS":
        return _one_hop_less(target, headers, b",".join(hops))
    return target, headers


def _passes(via: bytes) -> int:
    """Return how often one Via field names this gateway. In a comment with commas, nothing is counted."""
    return sum(hop.split(None, 2)[1:2] == [b"turnout"] for hop in via.split(b","))


def _one_hop_less(target: bytes, headers: list[Header], hops: bytes) -> tuple[bytes, list[Header]]:
    """Count down Max-Forwards; at 0 the request asks the gateway itself (RFC 9110, section 7.6.2)."""
    hops = hops.strip(b" \t")
    if not hops.isdigit() or len(hops) > _MAX_DIGITS:
        raise Refusal(400, "Max-Forwards is not a number")
    if int(hops) > 0:
        left = b"%d" % (int(hops) - 1)
        return target, [(name, left if MEANING[name] & HOPS else value) for name, value in headers]
    return b"*", headers


def _reduced(method: str, target: bytes, headers: list[Header]) -> tuple[bytes, list[Header]]:
    """Return target and headers for a target that is no path: ``*``, or a URL, whose authority replaces Host."""
    if target == b"*" and method == "OPTIONS":
        return target, headers
    absolute = _ABSOLUTE.fullmatch(target)
    if absolute is None:
        raise Refusal(400, "the request target is neither a path nor an http URL")
    authority, rest = absolute.groups()
    if not _HOST.fullmatch(authority):
        raise Refusal(400, "the authority of the request target is not a host")
    if not rest.startswith(b"/"):
        rest = b"*" if method == "OPTIONS" and not rest else b"/" + rest
    if field(headers, b"host") is None:
        return rest, [*headers, (b"host", authority)]
    return rest, [(name, authority if name.lower() == b"host" else value) for name, value in headers]


def too_long(head: bytes, limit: int) -> Refusal:
    """Return the answer to a head of more than ``limit`` bytes: 414 if most of it is the target, else 431."""
    line = head.lstrip(b"\r\n").partition(b"\r\n")[0]
    if len(line) * 2 > limit:
        return Refusal(414, f"the request target does not fit into a head of {limit} bytes")
    return Refusal(431, f"the request head is longer than {limit} bytes")


def unreadable(error: HttpParserError, piece: bytes) -> Refusal:
    """Return the answer to bytes that the parser refused, or the Refusal that a callback raised inside the parser."""
    if isinstance(error, HttpParserCallbackError) and error.__context__ is not None:
        # Of any other error the context is the exception that was being handled when the parser was called.
        if isinstance(error.__context__, Refusal):
            return error.__context__
        raise error.__context__
    if isinstance(error, HttpParserInvalidMethodError) and _METHOD.match(piece):
        return Refusal(501, "the request method is not known here")
    if "HTTP version" in str(error):
        return Refusal(505, "HTTP/1.1 is served here")
    return Refusal(400, f"this is not HTTP/1.1: {error}")
