"""The table: what a scenario found, which targets it reaches, as Markdown for people and as JSON for programs.

Rule: a target is judged by the median and shown with its spread; an absent peer is named with the reason. Values and
their text only: nothing here measures.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from loadtests.figures import Spread, brief
from loadtests.machine import Machine


@dataclass(frozen=True, slots=True)
class Target:
    """One row of the table of targets; with ``bound`` None the value is only reported."""

    what: str
    found: Spread
    sense: Literal["at most", "at least"] = "at most"
    bound: float | None = None
    unit: str = ""

    @property
    def reached(self) -> bool | None:
        """Whether the median keeps the bound; None where there is none."""
        if self.bound is None:
            return None
        return self.found.median <= self.bound if self.sense == "at most" else self.found.median >= self.bound

    @property
    def verdict(self) -> str:
        """The same in words."""
        return {None: "report", True: "reached", False: "NOT REACHED"}[self.reached]

    @property
    def demand(self) -> str:
        """What is asked."""
        sign = "≤" if self.sense == "at most" else "≥"
        return "report" if self.bound is None else f"{sign} {self.bound:g}{self.unit}"


@dataclass(frozen=True, slots=True)
class Finding:
    """What one scenario found. ``raw`` is every number behind the cells, for the JSON."""

    scenario: str
    method: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    targets: tuple[Target, ...] = ()
    notes: tuple[str, ...] = ()
    raw: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0


def markdown(findings: Sequence[Finding], absent: dict[str, str], machine: Machine) -> str:
    """Return everything as one page."""
    busy = machine.load_before > machine.cores / 4
    parts = [
        "# What the gateway costs",
        *(["**The machine was busy before the run: look at ratios alone, and at their spread first.**"] * busy),
        f"{machine.cores} cores ({machine.model}, Linux {machine.kernel}), load {machine.load_before:.2f} before. "
        "Numbers are the median of the rounds (least to most); ratios are made within each round.",
    ]
    targets = [(finding.scenario, target) for finding in findings for target in finding.targets]
    if targets:
        parts += ["## Must reach", target_table(targets)]
    for finding in findings:
        took = f" It took {finding.seconds:.0f} s." if finding.seconds else ""
        parts += [f"## {finding.scenario}", finding.method + took, grid(finding.columns, finding.rows)]
        parts += _listed(finding.notes)
    if absent:
        parts += ["## Absent", *_listed([f"{name}: {reason}" for name, reason in absent.items()])]
    return "\n\n".join(parts) + "\n"


def target_table(targets: Iterable[tuple[str, Target]]) -> str:
    """Return the table of targets."""
    return grid(
        ("scenario", "what", "target", "found", ""),
        [(name, t.what, t.demand, f"{t.found}{t.unit}", t.verdict) for name, t in targets],
    )


def grid(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table in Markdown whose columns line up in plain text, too."""
    lines = [list(columns), *(list(row) for row in rows)]
    widths = [max(len(line[number]) for line in lines) for number in range(len(columns))]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in lines
    )


def as_json(findings: Sequence[Finding], absent: dict[str, str], machine: Machine) -> str:
    """Return the same for programs, with the numbers of every round."""
    content = {
        "machine": asdict(machine),
        "absent": absent,
        "targets": [{"scenario": f.scenario, **asdict(t), "reached": t.reached} for f in findings for t in f.targets],
        "scenarios": [{k: v for k, v in asdict(f).items() if k != "targets"} for f in findings],
    }
    return json.dumps(content, indent=1, ensure_ascii=False, default=str)


def _listed(notes: Sequence[str]) -> list[str]:
    """Return the notes as one list, if there are any."""
    return ["\n".join(f"- {note}" for note in notes)] if notes else []


def in_turns(rounds: int, seconds: float) -> str:
    """Write the number of rounds and the length of a turn."""
    return f"{rounds} round{'s' * (rounds != 1)} of {seconds:g} s in turns"


def renamed(rows: Iterable[tuple[str, ...]], how: str) -> tuple[tuple[str, ...], ...]:
    """Return rows whose first cell says as well how they were measured.

    >>> renamed([("Envoy", "1.00")], "60 s")
    (('Envoy, 60 s', '1.00'),)
    """
    return tuple((f"{name}, {how}", *cells) for name, *cells in rows)


def count(number: float) -> str:
    """Write how many there were."""
    return f"{number:,.0f}"


__all__ = ["Finding", "Target", "as_json", "brief", "count", "grid", "in_turns", "markdown", "renamed", "target_table"]
