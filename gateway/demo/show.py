"""The steps of the demo: train, start, send traffic, wait for the last windows to close, report, print the findings.

Rule: one step after the other, each with a deadline, and every process that was started is ended at the end.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import signal
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final

import httpx
import orjson
from rich.console import Console

from gateway.cli.report_tables import of_route
from gateway.demo import view
from gateway.demo.findings import RouteResult, as_json, complete, find, moves
from gateway.demo.models import Digits, Model, faulty, held_out_score, load, save, train
from gateway.demo.processes import Children, StartFailed, free_ports
from gateway.demo.scenario import SCENES, WINDOW_SECONDS, config
from gateway.demo.traffic import Traffic
from gateway.proxy.client.upstream import Upstream
from router.snapshot import Backend

START_SECONDS: Final = 30.0
#: From the last event on: its window, and the time that recording and joining take, on a busy machine too.
CLOSING_SECONDS: Final = WINDOW_SECONDS + 22.0
#: How often the reports are read, and how often the screen is drawn.
READ_SECONDS: Final = 2.0
SHOW_SECONDS: Final = 0.25


@dataclass(frozen=True, slots=True)
class Addresses:
    """A running gateway: the host and port of its traffic and of its admin interface."""

    listen: str
    admin: str


@dataclass(slots=True)
class Show:
    """One run of the demo. ``seed`` decides what the users do."""

    console: Console
    duration_seconds: float
    rate: float
    seed: int
    json_file: Path | None
    began: float = field(default_factory=time.monotonic)

    async def run(self) -> int:
        """Return the exit code: 1 if a process did not start or ended by itself, or the counts do not add up.

        SIGTERM cancels it, as Ctrl-C does.
        """
        task = asyncio.current_task()
        assert task is not None
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        digits = load()
        models = train(digits)
        models = (*models, faulty(models))
        truth = {model.name: held_out_score(model, digits) for model in models}
        self.console.print(view.models_table(models, truth))
        with tempfile.TemporaryDirectory(prefix="turnout-demo-") as name:
            try:
                async with Children(Path(name)) as children:
                    addresses = await start(children, Path(name), models)
                    self._say_where(addresses)
                    progress = await self._watch(children, addresses, digits)
            except StartFailed as failure:
                self.console.print(f"The demo failed: {failure}", style="red", markup=False, highlight=False)
                return 1
        return self._conclude(progress, find(progress.reports, progress.accounts, truth, progress.failing_after), truth)

    def _say_where(self, addresses: Addresses) -> None:
        self.console.print(
            f"\nTurnout answers at http://{addresses.listen}: {self.rate:g} requests a second for "
            f"{self.duration_seconds:g} s. While it runs:\n"
            f"  console  http://{addresses.admin}/\n"
            f"  metrics  http://{addresses.admin}/metrics\n"
            f"  API      http://{addresses.admin}/api/v1/routes\n",
            highlight=False,
        )

    async def _watch(self, children: Children, addresses: Addresses, digits: Digits) -> view.DemoProgress:
        """Send the traffic, wait for the last windows, and return all that was counted and reported."""
        async with (
            _client(addresses) as gateway,
            httpx.AsyncClient(base_url=f"http://{addresses.admin}", timeout=10) as admin,
        ):
            traffic = Traffic(digits, gateway, addresses.listen, rate=self.rate, seed=self.seed)
            progress = view.DemoProgress("traffic", self.duration_seconds, traffic.accounts)
            with view.screen(self.console) as screen:
                async with (
                    _running(_keep_reading(admin, progress)),
                    _running(traffic.run(self.duration_seconds)) as users,
                ):
                    await _until(users.done, children, screen, progress)
                    users.result()
                    progress.phase, progress.total = "closing windows", CLOSING_SECONDS
                    await _until(lambda: _complete(progress), children, screen, progress, CLOSING_SECONDS)
            try:
                await _read(admin, progress)
            except httpx.HTTPError as error:
                raise StartFailed(f"the report could not be read: {error!r}") from error
            return progress

    def _conclude(
        self, progress: view.DemoProgress, findings: tuple[RouteResult, ...], truth: Mapping[str, float]
    ) -> int:
        for scene in SCENES:
            self.console.rule(f"{scene.route}: {scene.summary}", align="left", style="dim")
            self.console.print(of_route(progress.reports[scene.route], boxed=self.console.is_terminal))
        moved = {one.route: moves(progress.events, one.route, progress.began_ms) for one in SCENES if one.moves}
        self.console.print(view.findings_text(findings, moved))
        seconds = time.monotonic() - self.began
        right = all(balance.holds for finding in findings for balance in finding.balances)
        self.console.print(f"\nThe demo took {seconds:.0f} s (seed {self.seed}).", highlight=False)
        if self.json_file is not None:
            self.json_file.write_bytes(self._json(progress, findings, truth, seconds))
        return 0 if right else 1

    def _json(
        self, progress: view.DemoProgress, findings: tuple[RouteResult, ...], truth: Mapping[str, float], seconds: float
    ) -> bytes:
        found: dict[str, Any] = {
            "seed": self.seed,
            "rate": self.rate,
            "duration_seconds": self.duration_seconds,
            "total_seconds": seconds,
            "truth": truth,
            "findings": as_json(findings),
            "accounts": {
                route: {one.name: getattr(account, one.name) for one in fields(account)}
                for route, account in progress.accounts.items()
            },
            "reports": progress.reports,
            "events": progress.events,
        }
        return orjson.dumps(found, option=orjson.OPT_INDENT_2)


async def start(children: Children, directory: Path, models: tuple[Model, ...]) -> Addresses:
    """Start a server for each model and Turnout in front of them. Raises StartFailed."""
    for model in models:
        save(model, directory / f"{model.name}.pickle")
    urls = await asyncio.gather(
        *(children.start_model(model.name, directory / f"{model.name}.pickle", START_SECONDS) for model in models)
    )
    addresses = Addresses(*(f"127.0.0.1:{port}" for port in free_ports(2)))
    file = directory / "turnout.toml"
    named = dict(zip((model.name for model in models), urls, strict=True))
    file.write_text(config(models, named, listen=addresses.listen, admin=addresses.admin, data_dir=directory / "data"))
    turnout = await children.start("turnout", ("-m", "gateway.cli", "serve", "-c", str(file)))
    async with httpx.AsyncClient(timeout=2) as client:
        deadline = time.monotonic() + START_SECONDS
        for url in (f"http://{addresses.listen}/-/readyz", f"http://{addresses.admin}/readyz"):
            while not await _answers(client, url):
                if children.ended or time.monotonic() > deadline:
                    raise StartFailed(f"Turnout did not come up\n{turnout.log_end()}")
                await asyncio.sleep(0.1)
    return addresses


async def _answers(client: httpx.AsyncClient, url: str) -> bool:
    try:
        return (await client.get(url)).status_code == 200
    except httpx.TransportError:
        return False


@contextlib.asynccontextmanager
async def _client(addresses: Addresses) -> AsyncIterator[Upstream]:
    """Give the client by which users reach the gateway: the product's own, which costs a fraction of a general one."""
    backend = Backend(
        name="turnout", urls=(f"http://{addresses.listen}",), version="", model="turnout", max_concurrency=1000
    )
    upstream = Upstream(backend)
    try:
        yield upstream
    finally:
        await upstream.close()


@contextlib.asynccontextmanager
async def _running(work: Coroutine[Any, Any, None]) -> AsyncIterator[asyncio.Task[None]]:
    """Run ``work`` while the block runs, and cancel it at the end of the block."""
    task = asyncio.create_task(work)
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait((task,))


async def _until(
    over: Callable[[], bool],
    children: Children,
    screen: view.Screen,
    progress: view.DemoProgress,
    deadline_seconds: float = math.inf,
) -> None:
    """Draw progress until ``over()`` or the deadline. Raises StartFailed if a process ended by itself."""
    began = time.monotonic()
    progress.done = 0.0
    while not over() and progress.done < deadline_seconds:
        if child := children.ended:
            raise StartFailed(f"{child.name} ended by itself\n{child.log_end()}")
        screen.show(progress)
        await asyncio.sleep(SHOW_SECONDS)
        progress.done = time.monotonic() - began


async def _keep_reading(admin: httpx.AsyncClient, progress: view.DemoProgress) -> None:
    """Read the reports again and again. A controller that is busy or restarts is asked again later."""
    while True:
        with contextlib.suppress(httpx.HTTPError):
            await _read(admin, progress)
        await asyncio.sleep(READ_SECONDS)


async def _read(admin: httpx.AsyncClient, progress: view.DemoProgress) -> None:
    """Read every route's report, and the events. Raises httpx.HTTPError."""
    for scene in SCENES:
        answer = await admin.get(f"/api/v1/routes/{scene.route}")
        progress.reported(scene.route, answer.raise_for_status().json())
    answer = await admin.get("/api/v1/events")
    progress.events = answer.raise_for_status().json()["events"]


def _complete(progress: view.DemoProgress) -> bool:
    return all(
        scene.route in progress.reports
        and complete(progress.reports[scene.route], progress.accounts[scene.route], scene)
        for scene in SCENES
    )
