"""``python -m gateway.cli``: the ``turnout`` command, run by this interpreter."""

from __future__ import annotations

from gateway.cli import main

if __name__ == "__main__":
    main()
