"""The pseudonym under which a unit is stored."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.files.pseudonym import names_of, pseudonym, read_keys
from gateway.process.configuration import load
from router.config.config import ConfigError
from tests.gateway.cli.running import write_config

NEW, OLD = "n" * 32, "o" * 32


def test_a_unit_has_one_name_under_a_key_and_another_under_another() -> None:
    assert pseudonym(NEW.encode(), "user-17") == pseudonym(NEW.encode(), "user-17")
    names = {pseudonym(key.encode(), unit) for key in (NEW, OLD) for unit in ("user-17", "user-18", "é")}
    assert len(names) == 6
    assert not any("user" in name for name in names)


def test_the_first_line_is_the_key_in_use_and_the_others_are_still_known(tmp_path: Path) -> None:
    """A new key is a line above the others; what was stored under an older one can still be found and erased."""
    path = tmp_path / "units"
    path.write_text(f"{NEW}\n\n{OLD}\n")
    assert read_keys(str(path)) == (NEW.encode(), OLD.encode())
    assert names_of("u", str(path)) == ("u", pseudonym(NEW.encode(), "u"), pseudonym(OLD.encode(), "u"))
    assert names_of("u", None) == ("u",)


@pytest.mark.parametrize(("content", "said"), [("\n", "is empty"), (f"{NEW}\nshort", "key 2 has fewer than 32")])
def test_a_key_that_could_be_guessed_is_refused_at_its_place(tmp_path: Path, content: str, said: str) -> None:
    (tmp_path / "units").write_text(content)
    setting = f'unit_key_file = "{tmp_path}/units"'
    path = write_config(tmp_path, more=setting)
    with pytest.raises(ConfigError) as caught:
        load(path)
    (problem,) = (one for one in caught.value.diagnostics if one.severity == "error")
    assert said in problem.message
    assert path.read_text().splitlines()[problem.line - 1] == setting
