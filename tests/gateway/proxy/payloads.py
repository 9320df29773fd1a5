"""A literal table of what a client may send that two servers could read in two ways, and the required result.

Rule: bytes as they go over the wire. ``tests`` send each through a worker and look at what the backend received;
``python -m loadtests.conformance`` sends the same ones through nginx and HAProxy. The duties are numbered as in
the files ``test_duties_*.py``, where each has its fact and its source.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

#: Sent after a payload that must be refused: if it were read as a request, the backend would see it.
SMUGGLED: Final = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
#: Sent after a payload that must be taken; it ends the connection.
LAST: Final = b"GET /last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
SEEN_LAST: Final = b"GET /last HTTP/1.1"


@dataclass(frozen=True, slots=True)
class Payload:
    """One connection's bytes.

    ``statuses`` are those of all answers, in order; ``seen`` are the request lines that the backend gets, and
    ``bodies`` the bodies of these requests (none, where nothing is said). ``why`` says why we differ from a server
    that answers otherwise.
    """

    duty: int
    name: str
    raw: bytes
    statuses: tuple[int, ...]
    seen: tuple[bytes, ...] = ()
    bodies: tuple[bytes, ...] = ()
    why: str = ""


def refused(duty: int, name: str, raw: bytes, status: int = 400, why: str = "") -> Payload:
    """Return a payload that the gateway answers itself, once, and of which no backend sees anything."""
    return Payload(duty, name, raw + SMUGGLED, (status,), why=why)


def taken(duty: int, name: str, raw: bytes, line: bytes, body: bytes = b"", why: str = "") -> Payload:
    """Return a payload that is one request, after which the connection stays open."""
    return Payload(duty, name, raw + LAST, (200, 200), (line, SEEN_LAST), (body, b""), why)


def get(*fields: bytes, target: bytes = b"/x", version: bytes = b"HTTP/1.1") -> bytes:
    return b"\r\n".join((b"GET %b %b" % (target, version), *fields, b"", b""))


def post(*fields: bytes, body: bytes = b"", version: bytes = b"HTTP/1.1") -> bytes:
    return b"\r\n".join((b"POST /x " + version, b"Host: a", *fields, b"", b"")) + body


def chunked(*lines: bytes) -> bytes:
    return post(b"Transfer-Encoding: chunked", body=b"".join(lines))


POST_LINE: Final = b"POST /x HTTP/1.1"
GET_LINE: Final = b"GET /x HTTP/1.1"
UPGRADE: Final = (b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABkAAQBAAAAAAIAAAAA")

PAYLOADS: Final = (
    # 1. Host
    refused(1, "no Host", get(),
        why="RFC 9112, 3.2: 400. HAProxy leaves it to the backend"),
    refused(1, "Host twice, the same", get(b"Host: a", b"Host: a"),
        why="RFC 9112, 3.2: 400, equal or not"),
    refused(1, "Host twice, different", get(b"Host: a", b"host: b")),
    refused(1, "Host empty", get(b"Host:"),
        why="an http URI has a host (RFC 9110, 4.2.1)"),
    refused(1, "Host with a space", get(b"Host: a b"),
        why="no uri-host (RFC 9112, 3.2); HAProxy passes it on"),
    refused(1, "Host with a slash", get(b"Host: a/b"),
        why="no uri-host (RFC 9112, 3.2); HAProxy passes it on"),
    refused(1, "Host with a user", get(b"Host: user@a"),
        why="no uri-host (RFC 9112, 3.2); what stands before the @ would be a host to another reader"),
    refused(1, "Host with a list", get(b"Host: a, b"),
        why="no uri-host (RFC 9112, 3.2); HAProxy passes it on"),
    refused(1, "Host with a bad port", get(b"Host: a:80x"),
        why="no port (RFC 9112, 3.2); nginx cuts it off, HAProxy passes it on"),
    Payload(1, "HTTP/1.0 without Host", get(version=b"HTTP/1.0"), (200,), (GET_LINE,), (b"",)),
    # 2. absolute-form
    taken(2, "absolute-form", get(b"Host: a", target=b"http://b:81/x?y"), b"GET /x?y HTTP/1.1",
        why="RFC 9112, 3.2.2: the target counts and Host is ignored; HAProxy wants them to be equal"),
    taken(2, "absolute-form without a path", get(b"Host: a", target=b"HTTP://b?y"), b"GET /?y HTTP/1.1",
        why="RFC 9112, 3.2.2: the target counts and Host is ignored; HAProxy wants them to be equal"),
    refused(2, "absolute-form with a user", get(b"Host: a", target=b"http://u@a/"),
        why="RFC 9110, 4.2.4: an error, and used to disguise the host"),
    refused(2, "absolute-form without a host", get(b"Host: a", target=b"http:///x"),
        why="RFC 9110, 4.2.1: invalid"),
    refused(2, "absolute-form of another scheme", get(b"Host: a", target=b"ftp://a/"),
        why="a gateway for http and https speaks for no other"),
    # 3. targets
    Payload(3, "OPTIONS *", b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n" + LAST, (204, 200), (SEEN_LAST,),
        why="asked of the server that is reached, which is the gateway; nginx does not know it, HAProxy passes it on"),
    Payload(3, "OPTIONS of a host", b"OPTIONS http://b HTTP/1.1\r\nHost: a\r\n\r\n" + LAST, (204, 200), (SEEN_LAST,),
        why="the same, as a proxy is asked it (RFC 9112, 3.2.4)"),
    refused(3, "GET *", get(b"Host: a", target=b"*"),
        why="the asterisk is for OPTIONS alone (RFC 9112, 3.2.4)"),
    refused(3, "GET without a slash", get(b"Host: a", target=b"admin")),
    refused(3, "a fragment", get(b"Host: a", target=b"/a#b"),
        why="no part of a target (RFC 9112, 3.2); nginx cuts it off, so that its rules and the sender's differ"),
    refused(3, "a space in the target", get(b"Host: a", target=b"/a b")),
    refused(3, "CONNECT", b"CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n", 405,
        why="a gateway is no tunnel; HAProxy leaves it to the backend"),
    refused(3, "TRACE", b"TRACE /x HTTP/1.1\r\nHost: a\r\n\r\n", 405,
        why="its answer shows the secrets that are sent to the backend; HAProxy leaves it to the backend"),
    refused(3, "dot segments above the root", get(b"Host: a", b"Connection: close", target=b"/../x"),
        why="resolved, it leaves the base path of a backend; HAProxy passes it on"),
    refused(3, "encoded dot segments above the root", get(b"Host: a", b"Connection: close", target=b"/x/%2e%2E/%2E./y"),
        why="resolved, it leaves the base path of a backend; HAProxy passes it on"),
    refused(3, "dot segments between encoded slashes", get(b"Host: a", b"Connection: close", target=b"/x/..%2f..%5cy"),
        why="some servers take %2F and %5C for slashes, and the path leaves their root"),
    Payload(3, "dot segments beneath the root", get(b"Host: a", b"Connection: close", target=b"/a/./b/../%2e/c"),
        (200,), (b"GET /a/./b/../%2e/c HTTP/1.1",), (b"",)),
    refused(3, "an unknown method", b"BREW /x HTTP/1.1\r\nHost: a\r\n\r\n", 501,
        why="the parser knows the registered methods, and 501 is the answer to others (RFC 9110, 9.1)"),
    refused(3, "a bad method", b"G@T /x HTTP/1.1\r\nHost: a\r\n\r\n"),
    refused(3, "TLS on a plain port", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
    refused(3, "HTTP/2 preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    refused(3, "HTTP/2.0 in the request line", get(b"Host: a", version=b"HTTP/2.0"), 505,
        why="RFC 9110, 2.5: a major version that is not spoken here; HAProxy reads it as 1.1"),
    refused(3, "HTTP/1.2 in the request line", get(b"Host: a", version=b"HTTP/1.2"), 505,
        why="could be read as 1.1 (RFC 9110, 2.5), but there is none, and backends differ on it"),
    refused(3, "HTTP/0.9 in the request line", get(b"Host: a", version=b"HTTP/0.9"), 505,
        why="HTTP/0.9 has no version in its request line"),
    refused(3, "HTTP/0.9, without a version", b"GET /x\r\n",
        why="no fields and no Host, and an answer that has no status"),
    refused(3, "HTTP/0.9, and a bare line feed", b"GET /x\n",
        why="HTTP/0.9 has no fields and no status; nginx answers it"),
    refused(3, "HTTP/0.9, and a bare line feed before fields", b"GET /x\nHost: a\r\n\r\n",
        why="HTTP/0.9 to one reader, a target with a line feed to another"),
    refused(3, "a version behind a bare line feed", b"GET /x\nX: HTTP/1.1\r\nHost: a\r\n\r\n",
        why="HTTP/0.9 to one reader, a target with a line feed to another"),
    refused(3, "the version in small letters", get(b"Host: a", version=b"http/1.1")),
    # 4. both framings
    refused(4, "length and chunked", post(b"Content-Length: 5", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n"),
        why="RFC 9112, 6.1: refuse, or drop the length and close, as HAProxy; the sender may be fooled already"),
    refused(4, "chunked and length", post(b"Transfer-Encoding: chunked", b"Content-Length: 5", body=b"0\r\n\r\n"),
        why="as above"),
    refused(4, "chunked and length 0", post(b"Transfer-Encoding: chunked", b"Content-Length: 0", body=b"0\r\n\r\n"),
        why="as above"),
    # 5. transfer codings
    refused(5, "gzip, chunked", post(b"Transfer-Encoding: gzip, chunked", body=b"0\r\n\r\n"), 501),
    refused(5, "gzip and chunked on two lines", post(b"Transfer-Encoding: gzip", b"Transfer-Encoding: chunked"), 501),
    refused(5, "identity, chunked", post(b"Transfer-Encoding: identity, chunked", body=b"0\r\n\r\n"), 501),
    refused(5, "chunked, gzip", post(b"Transfer-Encoding: chunked, gzip", body=b"0\r\n\r\n")),
    refused(5, "chunked twice", post(b"Transfer-Encoding: chunked, chunked", body=b"0\r\n\r\n")),
    refused(5, "gzip alone", post(b"Transfer-Encoding: gzip")),
    refused(5, "xchunked", post(b"Transfer-Encoding: xchunked", body=b"0\r\n\r\n")),
    refused(5, "chunked with a vertical tab", post(b"Transfer-Encoding: \x0bchunked", body=b"0\r\n\r\n")),
    refused(5, "an empty coding", post(b"Transfer-Encoding:", body=b"0\r\n\r\n")),
    # 6. HTTP/1.0 and chunked, and content that some do not read
    *(Payload(6, f"{name} with {what}", method + b" /x HTTP/1.1\r\nHost: a\r\n" + framing + SMUGGLED, (200,),
        (method + b" /x HTTP/1.1",), (b"ab",),
        why="RFC 9110, 9.3: such content means nothing, and may be the next request to another: the connection ends")
        for name, method in (("GET", b"GET"), ("HEAD", b"HEAD"), ("DELETE", b"DELETE"))
        for what, framing in (("a length", b"Content-Length: 2\r\n\r\nab"),
            ("chunks", b"Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n"))),
    refused(6, "HTTP/1.0 chunked", post(b"Transfer-Encoding: chunked", body=b"0\r\n\r\n", version=b"HTTP/1.0"),
        why="RFC 9112, 6.1: faulty framing; a server that forwarded it as 1.0 did not parse chunks"),
    # 7. lengths
    refused(7, "two lengths, the same", post(b"Content-Length: 2", b"Content-Length: 2", body=b"ab"),
        why="RFC 9110, 8.6: refuse or merge; no correct client sends it"),
    refused(7, "two lengths, different", post(b"Content-Length: 2", b"Content-Length: 3", body=b"abc")),
    refused(7, "a list of lengths, the same", post(b"Content-Length: 2, 2", body=b"ab"),
        why="RFC 9110, 8.6: refuse or merge; no correct client sends it"),
    refused(7, "a list of lengths, different", post(b"Content-Length: 1,2", body=b"ab")),
    refused(7, "length +2", post(b"Content-Length: +2", body=b"ab")),
    refused(7, "length -2", post(b"Content-Length: -2", body=b"ab")),
    refused(7, "length 0x2", post(b"Content-Length: 0x2", body=b"ab")),
    refused(7, "length empty", post(b"Content-Length:", body=b"ab")),
    refused(7, "length over 2^64", post(b"Content-Length: 99999999999999999999", body=b"ab")),
    refused(7, "length of hundreds of zeros", post(b"Content-Length: " + b"0" * 500 + b"2", body=b"ab"),
        why="twenty digits are enough for every length"),
    # 8. whitespace
    refused(8, "space before the colon", get(b"Host : a")),
    refused(8, "space before the colon of a length", post(b"Content-Length : 2", body=b"ab")),
    refused(8, "a folded field", get(b"Host: a", b"X: a", b" b"),
        why="RFC 9112, 5.2: refuse or unfold, as HAProxy"),
    refused(8, "a folded coding", post(b"Transfer-Encoding:", b" chunked", body=b"0\r\n\r\n"),
        why="RFC 9112, 5.2: refuse or unfold, as HAProxy; folded, it is a framing that some do not see"),
    refused(8, "space before the first field", get(b" X: a", b"Host: a")),
    refused(8, "space in a field's name", get(b"Host: a", b"X y: 1")),
    refused(8, "a field without a name", get(b"Host: a", b": 1")),
    refused(8, "a line without a colon", get(b"Host: a", b"X"),
        why="RFC 9112, 5: no field; nginx passes over it"),
    # 9. control bytes
    refused(9, "NUL in a value", get(b"Host: a", b"X: a\0b"),
        why="RFC 9110, 5.5: refuse or replace; HAProxy passes it on"),
    refused(9, "bare CR in a value", get(b"Host: a", b"X: a\rb")),
    refused(9, "bare CR before a field", get(b"Host: a\rX: b")),
    refused(9, "bare LF between fields", b"GET /x HTTP/1.1\nHost: a\n\n",
        why="RFC 9112, 2.2 lets a reader take it for a line's end; some do, some do not, so it is refused"),
    refused(9, "bare LF that hides a field", get(b"Host: a", b"X: a\nContent-Length: 35"),
        why="the same bytes are a value to one reader and a length to the next: here it swallowed a request"),
    refused(9, "bare LF after a chunk's size", chunked(b"1\nx\r\n0\r\n\r\n"),
        why="RFC 9112, 7.1: a chunk's lines end with CRLF and nothing else"),
    refused(9, "bare LF after a chunk", chunked(b"1\r\nx\n0\r\n\r\n"),
        why="RFC 9112, 7.1: a chunk's lines end with CRLF and nothing else"),
    refused(9, "bare LF in a chunk's extension", chunked(b"1;a\nb\r\nx\r\n0\r\n\r\n")),
    refused(9, "bare CR in a chunk's extension", chunked(b"1;a\rb\r\nx\r\n0\r\n\r\n")),
    # 10. chunks
    refused(10, "chunk size 0x1", chunked(b"0x1\r\nx\r\n0\r\n\r\n")),
    refused(10, "chunk size +1", chunked(b"+1\r\nx\r\n0\r\n\r\n")),
    refused(10, "chunk size -1", chunked(b"-1\r\nx\r\n0\r\n\r\n")),
    refused(10, "chunk size 1_0", chunked(b"1_0\r\nx\r\n0\r\n\r\n")),
    refused(10, "chunk size g", chunked(b"g\r\nx\r\n0\r\n\r\n")),
    refused(10, "chunk size of 17 digits", chunked(b"11111111111111111\r\nx\r\n0\r\n\r\n")),
    refused(10, "chunk size with a space behind", chunked(b"1 \r\nx\r\n0\r\n\r\n"),
        why="not in the grammar of RFC 9112, 7.1"),
    refused(10, "no line break after a chunk", chunked(b"1\r\nxGET")),
    refused(10, "a chunk longer than its size", chunked(b"1\r\nxy\r\n0\r\n\r\n")),
    refused(10, "no chunk size", chunked(b"\r\n")),
    taken(10, "chunk sizes with zeros, capitals and extensions", chunked(
        b"0003\r\nabc\r\nA;x=1;y=\"2\"\r\n0123456789\r\n000\r\n\r\n"), POST_LINE, b"abc0123456789"),
    # 12. trailers
    taken(12, "trailers", chunked(b"3\r\nabc\r\n0\r\nX-User-Id: root\r\nHost: evil\r\n\r\n"), POST_LINE, b"abc"),
    refused(12, "a length among the trailers", chunked(b"0\r\nContent-Length: 5\r\n\r\n"),
        why="RFC 9110, 6.5.1: framing has no place there"),
    refused(12, "a trailer that is no field", chunked(b"0\r\nbad trailer\r\n\r\n"),
        why="RFC 9112, 7.1.2: trailers are fields; nginx does not look at them"),
    # 13. upgrades
    taken(13, "h2c with a body", post(*UPGRADE, b"Content-Length: 35", body=SMUGGLED), POST_LINE, SMUGGLED),
    taken(13, "h2c with a chunked body", post(*UPGRADE, b"Transfer-Encoding: chunked",
        body=b"23\r\n" + SMUGGLED + b"\r\n0\r\n\r\n"), POST_LINE, SMUGGLED),
    taken(13, "h2c without a body", get(b"Host: a", *UPGRADE), GET_LINE),
    taken(13, "a WebSocket", get(b"Host: a", b"Connection: upgrade", b"Upgrade: websocket",
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", b"Sec-WebSocket-Version: 13"), GET_LINE),
    # 14. expectations
    refused(14, "an unknown expectation", post(b"Expect: payment", b"Content-Length: 2", body=b"ab"), 417,
        why="RFC 9110, 10.1.1: 417 for what cannot be met; the others do not look"),
    taken(14, "100-continue with the body behind", post(b"Expect: 100-continue", b"Content-Length: 2", body=b"ab"),
        POST_LINE, b"ab"),
    Payload(14, "100-continue of HTTP/1.0", post(b"Expect: 100-continue", b"Content-Length: 2", body=b"ab",
        version=b"HTTP/1.0"), (200,), (POST_LINE,), (b"ab",)),
    # 15. limits
    refused(15, "a head of 70,000 bytes", get(b"Host: a", b"X: " + b"x" * 70_000), 431),
    refused(15, "129 fields", get(b"Host: a", *[b"X-%d: 1" % n for n in range(128)]), 431,
        why="max_headers (128); HAProxy has a bound of its own, nginx none"),
    refused(15, "a target of 9,000 bytes", get(b"Host: a", target=b"/" + b"x" * 8_999), 414,
        why="max_target_bytes (8192); HAProxy bounds the head alone"),
    refused(15, "a body declared too long", post(b"Content-Length: 10485761"), 413),
    # 16. close
    Payload(16, "close", get(b"Host: a", b"Connection: close") + SMUGGLED, (200,), (GET_LINE,), (b"",)),
    Payload(16, "close in a list, in capitals", get(b"Host: a", b"Connection: x, CLOSE") + SMUGGLED,
        (200,), (GET_LINE,), (b"",)),
    Payload(16, "close on a second line", get(b"Host: a", b"Connection: x", b"Connection: Close") + SMUGGLED,
        (200,), (GET_LINE,), (b"",)),
    Payload(16, "HTTP/1.0", get(b"Host: a", version=b"HTTP/1.0") + SMUGGLED, (200,), (GET_LINE,), (b"",)),
    Payload(16, "HTTP/1.0 that keeps alive", get(b"Host: a", b"Connection: keep-alive", version=b"HTTP/1.0") + LAST,
        (200, 200), (GET_LINE, SEEN_LAST), (b"", b"")),
    # 17. pipelines
    Payload(17, "three of every framing", get(b"Host: a") + post(b"Content-Length: 4", body=b"\r\n\r\n")
        + chunked(b"4\r\n\r\n\r\n\r\n0\r\n\r\n") + LAST, (200, 200, 200, 200),
        (GET_LINE, POST_LINE, POST_LINE, SEEN_LAST), (b"", b"\r\n\r\n", b"\r\n\r\n", b"")),
    # 18. empty lines
    Payload(18, "empty lines before requests", b"\r\n\r\n" + get(b"Host: a") + b"\r\n" + LAST, (200, 200),
        (GET_LINE, SEEN_LAST), (b"", b"")),
    # 29. loops
    refused(29, "five gateways of this name", get(b"Host: a", b"Via: " + b", ".join([b"1.1 turnout"] * 5)), 508,
        why="it is this gateway's name; the others look for no loops"),
    Payload(29, "no hop left", b"OPTIONS /x HTTP/1.1\r\nHost: a\r\nMax-Forwards: 0\r\n\r\n" + LAST, (204, 200),
        (SEEN_LAST,), why="RFC 9110, 7.6.2: must not be forwarded; the others do not look"),
    refused(29, "no hop left for TRACE", b"TRACE /x HTTP/1.1\r\nHost: a\r\nMax-Forwards: 0\r\n\r\n", 405,
        why="RFC 9110, 7.6.2: must not be forwarded; nginx knows no TRACE"),
    refused(29, "hops that are no number", b"OPTIONS /x HTTP/1.1\r\nHost: a\r\nMax-Forwards: -1\r\n\r\n",
        why="what cannot be counted down cannot be forwarded as less"),
)  # fmt: skip
