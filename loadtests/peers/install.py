"""Where `make bench` puts what only the peers need, apart from what Turnout itself runs with."""

from __future__ import annotations

from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]

#: The programs of the virtual environment made of ``requirements.bench``.
INSTALLED: Final = ROOT / ".venv-bench" / "bin"
