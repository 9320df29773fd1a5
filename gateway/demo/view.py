"""What the demo prints: a live table on a terminal, plain lines elsewhere.

Rule: shows what it is given; knows neither processes nor HTTP.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from gateway.demo.findings import Report, RouteResult, failing
from gateway.demo.models import Classifier, Model
from gateway.demo.scenario import SCENES, Scene
from gateway.demo.traffic import UserCounts

#: How often a line of progress is printed where there is no terminal.
LINE_SECONDS: Final = 5.0


@dataclass(slots=True)
class DemoProgress:
    """What is shown while the demo runs: ``done`` of the ``total`` seconds of this ``phase`` have passed."""

    phase: str
    total: float
    accounts: Mapping[str, UserCounts]
    done: float = 0.0
    reports: dict[str, Report] = field(default_factory=dict)
    began: float = field(default_factory=time.monotonic)
    failing_after: dict[str, float] = field(default_factory=dict)
    began_ms: int = field(default_factory=lambda: time.time_ns() // 1_000_000)
    events: list[Mapping[str, Any]] = field(default_factory=list)

    def reported(self, route: str, report: Report) -> None:
        """Keep a route's newest report, and when a variant was first reported as failing."""
        self.reports[route] = report
        if failing(report):
            self.failing_after.setdefault(route, time.monotonic() - self.began)


class Screen(Protocol):
    """Where progress is shown."""

    def show(self, progress: DemoProgress) -> None: ...


@contextmanager
def screen(console: Console) -> Iterator[Screen]:
    """Give a live table if the console is a terminal, else lines."""
    if not console.is_terminal:
        yield _Lines(console)
        return
    with Live(console=console, auto_refresh=False, transient=True) as live:
        yield _Table(live)


@dataclass(slots=True)
class _Table:
    live: Live

    def show(self, progress: DemoProgress) -> None:
        self.live.update(_board(progress), refresh=True)


@dataclass(slots=True)
class _Lines:
    console: Console
    last: tuple[str, int] = ("", -1)

    def show(self, progress: DemoProgress) -> None:
        step = int(progress.done / LINE_SECONDS)
        if (progress.phase, step) == self.last:
            return
        self.last = (progress.phase, step)
        answered = sum(len(account.prediction_ids) for account in progress.accounts.values())
        events = sum(account.events for account in progress.accounts.values())
        failed = sum(account.failed for account in progress.accounts.values())
        self.console.print(
            f"{progress.phase}: {min(progress.done, progress.total):3.0f} of {progress.total:.0f} s · "
            f"{answered:,} answers, {failed:,} failures, {events:,} labels and clicks sent back",
            highlight=False,
        )


def models_table(models: tuple[Model, ...], truth: Mapping[str, float]) -> RenderableType:
    """Return a table of the models and their true scores."""
    table = Table(title="Trained on one half of the digits, scored on the other", title_justify="left", box=None)
    for heading in ("backend", "version", "model"):
        table.add_column(heading)
    table.add_column("held-out score", justify="right")
    for model in models:
        scored = "accuracy" if isinstance(model, Classifier) else "relevant of ten"
        table.add_row(model.name, model.version, model.title, f"{truth[model.name]:.3f} {scored}")
    return table


def findings_text(findings: tuple[RouteResult, ...], moved: Mapping[str, Sequence[str]]) -> RenderableType:
    """Return the last page: the result of each route, what moved by itself, and whether the counts add up."""
    steps = Table(box=None, show_header=False, pad_edge=False)
    steps.add_column("route", style="bold", no_wrap=True)
    steps.add_column("what happened, when and why")
    for route, lines in moved.items():
        for index, line in enumerate(lines or ["nothing moved"]):
            steps.add_row("" if index else route, line)
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column("route", style="bold", no_wrap=True)
    table.add_column("claim")
    for finding in findings:
        table.add_row(finding.route, finding.claim)
    accounts = Table(box=None, pad_edge=False)
    for heading in ("route", "account"):
        accounts.add_column(heading)
    for heading in ("users", "gateway", ""):
        accounts.add_column(heading, justify="right")
    for finding in findings:
        for balance in finding.balances:
            verdict = Text("adds up", "green") if balance.holds else Text("DOES NOT ADD UP", "bold red")
            accounts.add_row(finding.route, balance.what, f"{balance.users:,}", f"{balance.gateway:,}", verdict)
    return Group(
        Text("What we found", "bold"),
        table,
        Text(),
        Text("What moved by itself, when and why", "bold"),
        steps,
        Text(),
        Text("Does it add up? The users' count, the gateway's count", "bold"),
        accounts,
    )


def _board(progress: DemoProgress) -> RenderableType:
    bar = ProgressBar(total=progress.total, completed=min(progress.done, progress.total), width=40)
    head = Table.grid(padding=(0, 1))
    head.add_row(
        Text(progress.phase, "bold"), bar, f"{min(progress.done, progress.total):.0f} of {progress.total:.0f} s"
    )
    table = Table(box=None, pad_edge=False)
    table.add_column("route", style="bold")
    for heading in ("users", "answers", "failed", "labels"):
        table.add_column(heading, justify="right")
    table.add_column("variant")
    for heading in ("share", "predictions", "mature", "pending"):
        table.add_column(heading, justify="right")
    for scene in SCENES:
        for row in _rows(scene, progress):
            table.add_row(*row)
    return Group(head, Text(), table)


def _rows(scene: Scene, progress: DemoProgress) -> Iterator[tuple[str, ...]]:
    account, report = progress.accounts[scene.route], progress.reports.get(scene.route)
    counts = (
        scene.route,
        f"{account.users:,}",
        f"{len(account.prediction_ids):,}",
        f"{account.failed:,}",
        f"{account.events:,}",
    )
    variants: list[Mapping[str, Any]] = list(report["variants"]) if report else []
    yield counts + (_variant(scene, variants[0]) if variants else ("…", "", "", "", ""))
    for variant in variants[1:]:
        yield ("", "", "", "", "", *_variant(scene, variant))


def _variant(scene: Scene, variant: Mapping[str, Any]) -> tuple[str, ...]:
    metric = variant["metrics"].get(scene.metric, {})
    mature = metric.get("mature") or {}
    mean = mature.get("mean")
    shown = "" if mean is None else f"{mean:.3f}"
    if mean is not None and mature.get("low") is not None:
        shown += f" [{mature['low']:.2f}, {mature['high']:.2f}]"
    return (
        variant["name"],
        f"{variant['share']:.0%}",
        f"{variant['predictions']:,}",
        shown,
        f"{metric.get('pending', 0):,}",
    )
