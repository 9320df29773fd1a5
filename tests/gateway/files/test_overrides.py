"""What a person froze is in one file, which is whole, wins, and never loses a later act to an earlier one."""

from __future__ import annotations

import contextlib
import os
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.files.overrides import (
    OVERRIDES,
    Override,
    OverridesFile,
    act,
    decode,
    encode,
    frozen,
    later,
    read_overrides,
)

acts = st.builds(
    Override,
    to=st.none() | st.sampled_from(["v1", "v2"]),
    at_ms=st.integers(0, 3),
    who=st.text(st.characters(exclude_categories=["Cs"])),
    recorded=st.booleans(),
)


@settings(max_examples=40)
@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), acts))
def test_what_is_written_is_read(overrides: dict[str, Override]) -> None:
    assert decode(encode(overrides)) == overrides


@given(acts, acts, acts)
def test_of_conflicting_acts_the_later_one_stands_in_whatever_order_they_come(
    a: Override, b: Override, c: Override
) -> None:
    def stands(one: Override) -> tuple[int, str | None]:
        return one.at_ms, one.to

    assert stands(later(later(a, b), c)) == stands(later(c, later(b, a))) == stands(later(b, later(a, c)))
    assert later(a, b).at_ms == max(a.at_ms, b.at_ms)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b'{"format":2,"routes":{}}',
        b'{"format":1}',
        b'{"format":1,"routes":{"r":"v1"}}',
        b'{"format":1,"routes":{"r":{"to":"v1"}}}',
        b'{"format":1,"routes":{"r":{"at_ms":1}}}',
        b'{"format":1,"routes":{"r":{"to":1,"at_ms":1}}}',
        b'{"format":1,"routes":{"r":{"to":"v1","at_ms":true}}}',
        b'{"format":1,"routes":{"r":{"to":"v1","at_ms":1,"recorded":1}}}',
        b'{"format":1,"routes":{}}' + b" " * 2**20,
    ],
)
def test_a_file_that_is_no_such_file_is_refused_whole_and_once(tmp_path: Path, content: bytes) -> None:
    file = OverridesFile(tmp_path)
    assert file.read() == {}
    (tmp_path / OVERRIDES).write_bytes(content)
    with pytest.raises(ValueError, match=OVERRIDES):
        file.read()
    assert file.read() is None


@given(st.binary())
def test_no_content_does_more_than_be_refused(content: bytes) -> None:
    with contextlib.suppress(ValueError):
        assert decode(encode(decode(content))) == decode(content)


def test_what_is_no_regular_file_is_refused_without_waiting_for_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / OVERRIDES)
    with pytest.raises(ValueError, match="no regular file"):
        OverridesFile(tmp_path).read()


def test_a_file_that_is_gone_holds_nothing(tmp_path: Path) -> None:
    act(tmp_path, {"r": "v1"})
    file = OverridesFile(tmp_path)
    assert frozen(file.read() or {}) == {"r": "v1"}
    (tmp_path / OVERRIDES).unlink()
    assert (file.read(), file.read()) == ({}, None)


def test_acts_of_several_processes_at_once_are_all_there(tmp_path: Path) -> None:
    threads = [threading.Thread(target=act, args=(tmp_path, {f"r{n}": "v1"})) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert frozen(read_overrides(tmp_path)) == {f"r{n}": "v1" for n in range(8)}
    assert (tmp_path / OVERRIDES).stat().st_mode & 0o077 == 0


def test_an_act_stands_though_the_clock_was_set_back(tmp_path: Path) -> None:
    ahead = Override(to="v1", at_ms=2**50)
    (tmp_path / OVERRIDES).write_bytes(encode({"r": ahead, "s": ahead}))
    after = act(tmp_path, {"r": None}, who="me")
    assert later(ahead, after["r"]) == after["r"]
    assert frozen(after) == {"s": "v1"}
