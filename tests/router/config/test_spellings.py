"""Durations, addresses, URLs, paths and names: what is accepted, what is refused, and with which message."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from router.config import spellings


@pytest.mark.parametrize(
    ("text", "milliseconds"),
    [("500ms", 500), ("30s", 30_000), ("90m", 5_400_000), ("24h", 86_400_000), ("7d", 604_800_000)],
)
def test_a_duration_is_a_number_and_a_unit(text: str, milliseconds: int) -> None:
    assert spellings.duration_ms(text) == milliseconds


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [("127.0.0.1:8080", "127.0.0.1", 8080), ("localhost:0", "localhost", 0), ("[::1]:80", "::1", 80)],
)
def test_an_address_is_a_host_and_a_port(text: str, host: str, port: int) -> None:
    assert spellings.address(text) == (host, port)


@pytest.mark.parametrize(
    ("text", "loopback"),
    [
        ("127.0.0.1:1", True),
        ("127.8.9.1:1", True),
        ("[::1]:1", True),
        ("localhost:1", True),
        ("0.0.0.0:1", False),
        ("[::]:1", False),
        ("10.0.0.1:1", False),
        ("db.example:1", False),
    ],
)
def test_loopback_is_what_only_this_machine_reaches(text: str, loopback: bool) -> None:
    assert spellings.is_loopback(text) is loopback


def test_a_url_loses_its_final_slash() -> None:
    assert spellings.backend_url("https://models.example:8443/base/") == "https://models.example:8443/base"


WRONG: dict[Callable[[str], object], list[str]] = {
    spellings.duration_ms: ["", "24", "24 h", "1h30m", "-1s", "0s", "1.5h", "4000d", "99999999999999999999d", "٣s"],
    spellings.address: ["", "8080", ":8080", "::1:80", "[x]:80", "[::zz]:80", "a:b", "a:65536", "a b:1", "h:1 "],
    spellings.network: ["", "localhost", "10.0.0.1/8", "10.0.0.0/33", "10.0.0.0/", "10.0.0", "::/129", "[::1]"],
    spellings.backend_url: ["", "localhost:80", "ftp://a", "http://", "http://a b", "http://a?b", "http://a#b"],
    spellings.absolute_path: ["", "a", "/a b", "/a?b", "/a#b", "/é"],
    spellings.route_path: ["", "a/*", "/a*", "/*/a", "/a/**", "/-/feedback", "/-/*", "/-"],
    spellings.method: ["", "get", "GE T"],
    spellings.name: ["", "1a", "@calls", "a b", "é", "a/b"],
}
WRONG[spellings.backend_url] += ["http://a:x", "http://u:p@a", "http://a:0", "http://a:99999", "http://[x", "http://é"]


@pytest.mark.parametrize(("parse", "text"), [(parse, text) for parse, texts in WRONG.items() for text in texts])
def test_other_spellings_are_refused_in_words_that_follow_the_name_of_the_setting(
    parse: Callable[[str], object], text: str
) -> None:
    with pytest.raises(ValueError, match=r"^(must|may) "):
        parse(text)


@pytest.mark.parametrize("text", ["/a", "/", "/*", "/a/*", "/a/%20b", "/-a", "/a/-/b"])
def test_a_route_takes_an_exact_path_or_a_prefix(text: str) -> None:
    assert spellings.route_path(text) == text
