"""Tokens in files: one a line, each valid, so that the old and the new one overlap while they are rotated."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gateway.files.secret import SecretMissing, TokenFile, is_one_of, tokens


def test_each_line_is_a_token_and_white_space_is_none(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    path.write_text("\n  n3w \r\n\n0ld\n")
    found = tokens(str(path))
    assert found == (b"n3w", b"0ld")
    assert [is_one_of(given, found) for given in (b"n3w", b"0ld", b"", b"n3w\n0ld", b"n3", None)] == [
        True, True, False, False, False, False,
    ]  # fmt: skip


@pytest.mark.parametrize("content", [None, b"", b" \n\t\n", b"\xff\n"])
def test_a_file_without_a_token_has_none(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SecretMissing, match=str(path)):
        tokens(str(path))


def test_a_file_is_read_again_when_it_changes(tmp_path: Path) -> None:
    path, file = tmp_path / "tokens", TokenFile()
    path.write_text("one")
    assert file.read(str(path)) == (b"one",)
    path.write_text("one\ntwo")
    os.utime(path, ns=(1, 1))
    assert file.read(str(path)) == (b"one", b"two")
    path.unlink()
    with pytest.raises(SecretMissing, match="cannot be read"):
        file.read(str(path))
