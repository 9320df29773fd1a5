"""What the request path imports stays light."""

from __future__ import annotations

import subprocess
import sys

HEAVY = ("numpy", "scipy", "pydantic", "sqlalchemy", "tree_sitter", "tree_sitter_toml", "prometheus_client", "httpx")
LIGHT = (
    *("router", "merge", "snapshot", "records", "match", "unit", "extract", "outcomes"),
    *("settings.placeholders", "settings.route", "config.spellings"),
)

PROGRAM = f"""
import sys
{"; ".join(f"import router.{name}" for name in LIGHT)}
print(*sorted(set({HEAVY!r}) & set(sys.modules)))
"""


def test_what_a_worker_imports_brings_nothing_heavy_along() -> None:
    """Workers start fast and stay small; numpy alone would cost each of them 20 MB."""
    result = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60, check=True)
    assert result.stdout.strip() == ""
