"""How single settings are written: names, durations, addresses, URLs, paths.

Rule: each function returns the value, or raises ValueError with the words that follow the setting's path in a message
("must be …"). Standard library only: the supervisor reads addresses too.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Final
from urllib.parse import urlsplit

from router.match import has_dots

NAME: Final = r"[A-Za-z_][A-Za-z0-9_.-]*"
DURATION: Final = r"[0-9]{1,15}(ms|s|m|h|d)"
METHOD: Final = r"[A-Z][A-Z0-9!#$%&'*+.^_`|~-]*"

_UNIT_MS: Final = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_LONGEST_MS: Final = 3_650 * _UNIT_MS["d"]
_ADDRESS: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):([0-9]{1,5})", re.ASCII)
#: The longest path of a socket on Linux, in bytes.
_LONGEST_SOCKET: Final = 107
_UNSAFE: Final = re.compile(r"[^\x21-\x7e]")

RESERVED_PREFIX: Final = "/-/"


def duration_ms(text: str) -> int:
    """Return a duration in milliseconds.

    >>> duration_ms("24h"), duration_ms("500ms")
    (86400000, 500)
    """
    match = re.fullmatch(DURATION, text, re.ASCII)
    if match is None:
        raise ValueError('must be a duration such as "500ms", "30s", "24h" or "7d"')
    milliseconds = int(text.removesuffix(match[1])) * _UNIT_MS[match[1]]
    if not 0 < milliseconds <= _LONGEST_MS:
        raise ValueError('must be a duration between "1ms" and "3650d"')
    return milliseconds


def duration(milliseconds: int) -> str:
    """Return a duration as one would write it.

    >>> duration(86_400_000), duration(1_500)
    ('1d', '1500ms')
    """
    unit = next(unit for unit, each in reversed(_UNIT_MS.items()) if milliseconds % each == 0)
    return f"{milliseconds // _UNIT_MS[unit]}{unit}"


def address(text: str) -> tuple[str, int]:
    """Return the host, without brackets, and the port, where 0 means any free one.

    >>> address("127.0.0.1:8080"), address("[::1]:0")
    (('127.0.0.1', 8080), ('::1', 0))
    """
    match = _ADDRESS.fullmatch(text)
    if match is None:
        raise ValueError('must be "host:port", as in "127.0.0.1:8080", "0.0.0.0:8080" or "[::1]:8080"')
    host, port = match[1].strip("[]"), int(match[2])
    if ":" in host:
        try:
            ip_address(host)
        except ValueError:
            raise ValueError("must name an IPv6 address between the brackets") from None
    if port > 65_535:
        raise ValueError("must have a port of at most 65535")
    return host, port


def network(text: str) -> IPv4Network | IPv6Network:
    """Return the network of an address or of a prefix in CIDR notation.

    >>> network("10.0.0.0/8"), network("::1")
    (IPv4Network('10.0.0.0/8'), IPv6Network('::1/128'))
    """
    try:
        return ip_network(text)
    except ValueError:
        pass
    try:
        meant = ip_network(text, strict=False)
    except ValueError:
        raise ValueError('must be an address or a network, as in "192.0.2.7", "10.0.0.0/8" or "fd00::/8"') from None
    raise ValueError(f'must have no bits set behind its prefix, as in "{meant}"')


def is_loopback(text: str) -> bool:
    """Return whether an address can be reached from this machine only."""
    host, _ = address(text)
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def backend_url(text: str) -> str:
    """Return the URL of a replica without a final slash: http or https, a host, perhaps a port and a base path.

    Or ``unix:``, the path of a socket, and perhaps ":" and a base path. Two slashes after the scheme are left out.

    >>> backend_url("https://models.example/base/"), backend_url("unix:///run/model.sock:/base/")
    ('https://models.example/base', 'unix:/run/model.sock:/base')
    """
    if text.startswith("unix:"):
        return _socket_url(text)
    _web_url(text, '"http://127.0.0.1:9001" or "https://models.example/base"', "request_headers")
    if "?" in text or "#" in text:
        raise ValueError("must not have a query or fragment; it is the base for every request")
    return text.rstrip("/")


def sink_url(text: str) -> str:
    """Return the URL that events are sent to: http or https, perhaps with a path and a query.

    >>> sink_url("https://broker.example/default?partition=3")
    'https://broker.example/default?partition=3'
    """
    _web_url(text, '"http://127.0.0.1:8090/events" or "https://broker.example/default"', "headers")
    if "#" in text:
        raise ValueError("must not have a fragment")
    return text


def is_private(url: str) -> bool:
    """Return whether a URL surely leads to this machine or a private network; a name may still resolve to one.

    >>> is_private("http://169.254.169.254/"), is_private("https://localhost/"), is_private("https://a.example/")
    (True, True, False)
    """
    host = (urlsplit(url).hostname or "").partition("%")[0]
    try:
        address = ip_address(host)
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
    mapped = getattr(address, "ipv4_mapped", None)
    return not (mapped or address).is_global or address.is_multicast


def origin(text: str) -> str:
    """Return the origin of a site as browsers write it.

    >>> origin("https://Shop.example")
    'https://shop.example'
    """
    form = 'must be an origin such as "https://shop.example" or "http://localhost:3000", without a path'
    try:
        url = urlsplit(text.lower())
        whole = url.scheme in ("http", "https") and url.hostname and f"{url.scheme}://{url.netloc}" == text.lower()
        port = url.port
    except ValueError:
        raise ValueError(form) from None
    if not whole or "@" in text or _UNSAFE.search(text) or port == {"http": 80, "https": 443}[url.scheme]:
        raise ValueError(form)
    return text.lower()


def _web_url(text: str, such_as: str, headers: str) -> None:
    """Make sure that a text is the URL of a host on the web; secrets are sent with the setting ``headers``."""
    form = f"must be a URL such as {such_as}"
    try:
        url = urlsplit(text)
        port = url.port
    except ValueError:
        raise ValueError(form) from None
    if url.scheme not in ("http", "https") or not url.hostname or port == 0 or _UNSAFE.search(text):
        raise ValueError(form)
    if "@" in url.netloc:
        raise ValueError(f"must not hold a user or password; send them with {headers}")


def _socket_url(text: str) -> str:
    path = text.removeprefix("unix:")
    socket, colon, base = (path[2:] if path.startswith("///") else path).partition(":")
    if not socket.startswith("/") or (colon and not base.startswith("/")) or _UNSAFE.search(path):
        form = '"unix:/run/model.sock" or "unix:/run/model.sock:/base"'
        raise ValueError(f"must name a socket by its whole path, as in {form}")
    if "?" in path or "#" in path:
        raise ValueError("must not have a query or fragment; it is the base for every request")
    if len(socket) > _LONGEST_SOCKET:
        raise ValueError(f"must name a socket by a path of at most {_LONGEST_SOCKET} bytes")
    base = base.rstrip("/")
    return f"unix:{socket}:{base}" if base else f"unix:{socket}"


def absolute_path(text: str) -> str:
    """Return a path as it goes on the wire: beginning with "/", percent-encoded, without query or fragment."""
    if not text.startswith("/"):
        raise ValueError(f'must begin with "/", as in "/{text}"' if text else 'must begin with "/"')
    if _UNSAFE.search(text) or "?" in text or "#" in text:
        raise ValueError('must be a path as sent: percent-encoded, without spaces, "?" or "#"')
    return text


def prefix(text: str) -> str:
    """Return the beginning of a path: whole segments, without a final slash."""
    absolute_path(text)
    if text.endswith("/") or "*" in text:
        raise ValueError('must be whole segments without a final "/" or "*", as in "/ab"')
    return text


def route_path(text: str) -> str:
    """Return the path of a route: exact, or a prefix that ends in "/*"."""
    absolute_path(text)
    if "*" in text.removesuffix("/*"):
        raise ValueError('may have one "*", at its end after a "/", as in "/v2/models/*"')
    if has_dots(text):
        raise ValueError('must not have the segments "." and "..", encoded or not')
    if f"{text}/".startswith(RESERVED_PREFIX):
        raise ValueError(f'must not begin with "{RESERVED_PREFIX}", which Turnout keeps for itself')
    return text


def method(text: str) -> str:
    """Return an HTTP method. Methods are case-sensitive, and all that are in use are in capitals."""
    if not re.fullmatch(METHOD, text, re.ASCII):
        raise ValueError('must be a method in capitals, as in "POST"')
    return text


def name(text: str) -> str:
    """Return the name of a backend, metric or route."""
    if not re.fullmatch(NAME, text, re.ASCII):
        raise ValueError('must begin with a letter or "_" and go on with letters, digits, "_", "-" and "."')
    return text
