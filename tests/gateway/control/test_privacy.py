"""An erased unit is in no file any more, and no number changes."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert, select

from gateway.control.upkeep.erasure import NotDrained, Privacy
from gateway.files.pseudonym import names_of, pseudonym
from gateway.journal import rolling
from gateway.journal.quarantine import QUARANTINE
from gateway.journal.segments import FEEDBACK, PREDICTIONS, segments
from gateway.store import unit_data
from gateway.store.schema import count_tables, row_tables
from tests.gateway.control.builders import T0, Desk, at_desk, call, event, keyed, metric, statuses, sums, uuid

K = metric(window_ms=50)
PERSON, OTHER = "zeus-4711-person", "hera-0815-person"
KEYS = ("new" * 12, "old" * 12)
NAMES = (PERSON, *(pseudonym(key.encode(), PERSON) for key in KEYS))


def traces(folder: Path, *names: str) -> list[tuple[str, str]]:
    """The files that contain one of these names, of whatever kind."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return [(path.name, name) for path in files for name in names if name.encode() in path.read_bytes()]


@contextlib.asynccontextmanager
async def worker(desk: Desk) -> AsyncIterator[None]:
    """A worker, as far as it begins a new segment when asked."""
    asked = rolling.Rolling(desk.journal.path)

    async def roll() -> None:
        while True:
            if asked.wanted():
                for folder in (PREDICTIONS, FEEDBACK):
                    desk.journal.roll(folder)
            await asyncio.sleep(0.01)

    task = asyncio.create_task(roll())
    yield
    task.cancel()


def happened(desk: Desk, names: Sequence[str], first: int) -> None:
    """Each name asks five times, with a label for four of them, one by key; another unit does so in between."""
    for number, name in enumerate([name for name in names for _ in range(5)], first):
        key = f"loan-{number}"
        desk.journal.calls(
            call(number, unit=name, by_unit=True, key=key, prediction=1, request_id=f"r-{number}"),
            call(number + 500, unit=OTHER, by_unit=True, variant="b", prediction=1),
        )
        desk.journal.events(event(number + 500, 1, number + 500))
        if number % 5 < 3:
            desk.journal.events(event(number, number % 2, number + 1))
        elif number % 5 == 3:
            desk.journal.events(keyed(key, 1, number + 1))
    desk.journal.beat(1_000)


def privacy(desk: Desk) -> Privacy:
    return Privacy(desk.store, desk.recorder, desk.journal.path)


async def unit_rows(desk: Desk, name: str) -> int:
    async with desk.store.begin() as connection:
        found = await connection.execute(select(count_tables.units).where(count_tables.units.c.unit == name))
        return len(found.all())


def test_nothing_of_an_erased_unit_is_left_and_no_number_changes(tmp_path: Path, store: str) -> None:
    """Drained or not, under its own name and under two keys; in tables, in indexes and in free pages."""

    async def story(desk: Desk) -> None:
        happened(desk, NAMES, 0)
        before = await desk.record()
        async with desk.store.begin() as connection:
            await connection.execute(
                insert(row_tables.bodies).values(id=uuid(0), at_ms=T0, route="r", request=f'"{PERSON}"', answer="1")
            )
        assert await unit_rows(desk, PERSON)
        happened(desk, NAMES, 100)  # in the journal alone
        (desk.path / QUARANTINE).write_text(f"a damaged line about {PERSON}")
        shutil.copytree(desk.journal.path, desk.path / ".backup-killed")
        assert traces(desk.path, *NAMES)
        async with worker(desk):
            erased = await privacy(desk).erase(NAMES)
        assert erased["calls"] == 2 * 5 * len(NAMES)
        assert erased["feedback"] == 2 * 4 * len(NAMES)
        assert erased["bodies"] == 1
        assert traces(desk.path, *NAMES) == []
        assert traces(desk.path, OTHER) if store == "sqlite" else True
        for name in NAMES:
            assert [ids async for ids in unit_data.predictions(desk.store, [name])] == []
            assert await unit_rows(desk, name) == 0
        assert await desk.store.prediction(uuid(0)) is None
        found = await desk.store.prediction(uuid(500))
        assert found is not None
        assert [one["value"] for one in found["feedback"]] == [1]
        after = await desk.ledger()
        assert sums(after, "live")["a"] == tuple(2 * one for one in sums(before, "live")["a"])
        assert statuses(after)["joined"] == 2 * statuses(before)["joined"]
        desk.restart()
        assert (await desk.record()).tallies == after.tallies

    at_desk(Desk(tmp_path, K, store=store, by_unit=True), story)


def test_who_comes_again_after_being_erased_is_a_unit_that_was_never_there(tmp_path: Path, store: str) -> None:
    """The recorder must not write what it remembers of a unit back into the store."""

    async def story(desk: Desk) -> None:
        happened(desk, [PERSON], 0)
        await desk.record()
        async with worker(desk):
            await privacy(desk).erase([PERSON])
        before = await desk.ledger()
        desk.journal.calls(call(900, unit=PERSON, by_unit=True, prediction=1))
        desk.journal.events(event(900, 1, 901))
        after = await desk.record()
        m, d = sums(before, "live")["a"]
        assert sums(after, "live")["a"] == (m + 1, d + 1)
        async with desk.store.begin() as connection:
            query = select(count_tables.units.c.m, count_tables.units.c.d).where(count_tables.units.c.unit == PERSON)
            rows = {tuple(row) for row in await connection.execute(query)}
        assert rows == {(0.0, 1.0), (1.0, 1.0)}  # no failure in one call, and one value of 1

    at_desk(Desk(tmp_path, K, store=store, by_unit=True), story)


def test_erasing_goes_through_many_calls_in_batches(tmp_path: Path, store: str) -> None:
    async def story(desk: Desk) -> None:
        happened(desk, [PERSON], 0)
        await desk.record()
        by_stretch = [one async for ids in unit_data.predictions(desk.store, [PERSON], 3) for one in ids]
        assert by_stretch == [uuid(number) for number in range(5)]
        erased = await unit_data.erase(desk.store, [PERSON], 1)
        assert (erased.calls, erased.feedback) == (5, 4)
        again = await unit_data.erase(desk.store, [PERSON], 1)
        assert (again.calls, again.feedback, again.unit_rows) == (0, 0, 0)

    at_desk(Desk(tmp_path, K, store=store, by_unit=True), story)


def test_feedback_about_several_units_is_the_others_from_then_on(tmp_path: Path, store: str) -> None:
    """Where a key means all its predictions, one may be of another unit, and its label must not be lost."""

    async def story(desk: Desk) -> None:
        for number, unit in enumerate((PERSON, OTHER, PERSON)):
            desk.journal.calls(call(number, unit=unit, by_unit=True, key="loan", prediction=1))
        desk.journal.events(keyed("loan", 1, 10))
        desk.journal.beat(40)
        before = await desk.record()
        assert statuses(before)["joined"] == 1
        await unit_data.erase(desk.store, [PERSON])
        found = await desk.store.prediction(uuid(1))
        assert found is not None
        assert [one["value"] for one in found["feedback"]] == [1]
        assert [await desk.store.prediction(uuid(number)) for number in (0, 2)] == [None, None]
        async with desk.store.begin() as connection:
            assert (await connection.execute(select(row_tables.feedback_targets))).all() == []
        desk.restart()
        desk.journal.beat(1_000)  # its window closes
        assert sums(await desk.record())["a"] == (1.0, 1.0)

    at_desk(Desk(tmp_path, K, store=store, by_unit=True, key_rule="all"), story)


def test_a_segment_that_stays_open_is_an_error_and_nothing_is_erased(tmp_path: Path) -> None:
    """A worker hangs: its segment still names the unit, so the answer must not be that the unit is erased."""

    async def story(desk: Desk) -> None:
        happened(desk, [PERSON], 0)
        with pytest.raises(NotDrained, match="2 segments"):
            await privacy(desk).erase([PERSON], drain_seconds=0.3)
        assert await unit_rows(desk, PERSON)

    at_desk(Desk(tmp_path, K, by_unit=True), story)


def test_everything_that_is_kept_of_a_unit_can_be_shown_to_it(tmp_path: Path, store: str) -> None:
    key_file = tmp_path / "units"
    key_file.write_text("\n".join(KEYS))

    async def story(desk: Desk) -> None:
        happened(desk, NAMES[:2], 0)
        await desk.record()
        names = names_of(PERSON, str(key_file))
        shown = [row async for row in privacy(desk).known(PERSON, names)]
        assert shown[0] == {"kind": "unit", "unit": PERSON, "kept_as": list(NAMES)}
        kinds = _by_kind(shown)
        assert {row["prediction_id"] for row in kinds["prediction"]} == {uuid(number) for number in range(10)}
        assert sum(len(row["feedback"]) for row in kinds["prediction"]) == 8
        assert all(row["calls"][0]["request_id"].startswith("r-") for row in kinds["prediction"])
        assert {row["unit"] for row in kinds["arrival"]} == set(NAMES[:2])
        live = [row for row in kinds["tally"] if (row["metric"], row["phase"]) == ("k", "live")]
        assert sum(row["d"] for row in live) == 8
        assert OTHER not in str(shown)

    at_desk(Desk(tmp_path / "data", K, store=store, by_unit=True), story)


def _by_kind(rows: Sequence[Any]) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for row in rows:
        found.setdefault(row["kind"], []).append(row)
    return found


def test_each_question_to_the_workers_is_heard_once(tmp_path: Path) -> None:
    rolling.ask(tmp_path)
    one: Callable[[], bool] = rolling.Rolling(tmp_path).wanted
    assert not one()
    rolling.ask(tmp_path)
    assert (one(), one()) == (True, False)
    assert segments(tmp_path) == []
