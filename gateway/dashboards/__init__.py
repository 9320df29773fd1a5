"""Grafana dashboard, Prometheus alerts and a scrape example, as files of this package.

Rule: the files are the source; nothing generates them. Tests check that every query parses, names only series that
``gateway.admin.metrics.series`` declares, and has an answer in a real Prometheus.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

FILES: Final = ("turnout.json", "rules.yaml", "prometheus.yaml", "README.md")

#: What Grafana would put in place of its variables: every value, and a range of at least two scrapes, one a second.
VARIABLES: Final[Mapping[str, str]] = {
    "job": ".+",
    "instance": ".+",
    "route": ".+",
    "__rate_interval": "5s",
    "__interval": "1s",
    "__range": "60s",
}


@dataclass(frozen=True, slots=True)
class Query:
    """One query of one panel, its variables filled in."""

    panel: str
    ref: str
    expr: str


def dashboard() -> dict[str, Any]:
    """Return the Grafana dashboard as plain JSON values (Classic schema)."""
    content = json.loads(_content("turnout.json"))
    assert isinstance(content, dict)
    return content


def panels() -> Iterator[dict[str, Any]]:
    """Yield every panel that shows something, in order; rows are only headings."""
    for panel in dashboard()["panels"]:
        yield from panel.get("panels", ()) if panel["type"] == "row" else (panel,)


def panel_queries(variables: Mapping[str, str] = VARIABLES) -> list[Query]:
    """Return every query of every panel, with ``$name`` and ``${name}`` replaced by the variables given.

    Raises ValueError if a query uses a variable that is not given.
    """
    return [
        Query(panel["title"], target["refId"], filled(target["expr"], variables))
        for panel in panels()
        for target in panel["targets"]
    ]


def filled(expr: str, variables: Mapping[str, str]) -> str:
    """Return the query with its variables replaced. Raises ValueError if one is left."""
    for name in sorted(variables, key=len, reverse=True):  # $__range must not eat the front of $__range_s
        expr = expr.replace(f"${{{name}}}", variables[name]).replace(f"${name}", variables[name])
    if "$" in expr:
        raise ValueError(f"a variable is left in {expr}")
    return expr


def export(directory: Path) -> list[Path]:
    """Write the files into the directory, made if it is missing, over what is there. Raises OSError."""
    directory.mkdir(parents=True, exist_ok=True)
    written = []
    for name in FILES:
        path = directory / name
        path.write_bytes(_content(name))
        written.append(path)
    return written


def _content(name: str) -> bytes:
    return files("gateway.dashboards").joinpath(name).read_bytes()
