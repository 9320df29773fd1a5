"""The duties of an intermediary are numbered 1 to 46, and each has its test."""

from __future__ import annotations

import ast
import re
from pathlib import Path


def test_every_duty_has_a_test_that_names_its_fact_and_its_source() -> None:
    sources: dict[int, list[str]] = {}
    for path in sorted(Path(__file__).parent.glob("test_duties_*.py")):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef) and (named := re.match(r"test_duty_(\d+)_\w+", node.name)):
                sources.setdefault(int(named[1]), []).append(ast.get_docstring(node) or "")
    assert sorted(sources) == list(range(1, 47))
    for duty, docstrings in sources.items():
        assert any(re.search(r"RFC \d{4}", text) for text in docstrings), duty
