"""The watermark comes from the heartbeats of writers, and from nothing else."""

from __future__ import annotations

from gateway.store.counts.watermark import Writer, Writers


def name(slot: int = 0, spawn: int = 100, run: int = 100) -> str:
    return f"{run:012x}-{slot:02d}-{spawn:012x}"


def test_nothing_is_known_before_a_writer_is() -> None:
    writers = Writers()
    assert not writers.advance()
    assert writers.watermark_ms is None


def test_the_slowest_writer_holds_the_watermark() -> None:
    writers = Writers()
    for slot, at in ((0, 500), (1, 300)):
        writers.add(name(slot))
        writers.mark(name(slot), at)
    assert writers.advance()
    assert writers.watermark_ms == 300


def test_a_new_writer_vouches_for_nothing_older_than_itself() -> None:
    writers = Writers()
    writers.add(name(0, spawn=250))
    assert writers.advance()
    assert writers.watermark_ms == 250


def test_the_watermark_never_goes_back() -> None:
    writers = Writers(watermark_ms=1_000)
    writers.add(name())
    writers.mark(name(), 900)
    assert not writers.advance()
    writers.mark(name(), 1_100)
    writers.mark(name(), 950)  # a clock that was set back
    assert writers.advance()
    assert writers.watermark_ms == 1_100


def test_a_dead_writer_holds_it_until_everything_it_wrote_is_known() -> None:
    writers = Writers()
    writers.add(name(0, spawn=100))
    writers.mark(name(0, spawn=100), 200)
    writers.add(name(0, spawn=300))
    writers.mark(name(0, spawn=300), 400)
    assert writers.dead() == {name(0, spawn=100)}
    writers.advance()
    assert writers.watermark_ms == 200
    writers.mark_gone(name(0, spawn=100))
    writers.advance()
    assert writers.watermark_ms == 400


def test_when_the_last_writer_is_gone_all_it_said_is_known() -> None:
    writers = Writers()
    for slot, at in ((0, 500), (1, 300)):
        writers.add(name(slot))
        writers.mark(name(slot), at, bye=True)
        writers.mark_gone(name(slot))
    writers.advance()
    assert writers.watermark_ms == 500


def test_writers_die_by_bye_by_a_successor_and_with_their_run() -> None:
    writers = Writers()
    for one in (name(0), name(0, spawn=101), name(1), name(2)):
        writers.add(one)
    writers.mark(name(2), 150, bye=True)
    assert writers.dead() == {name(0), name(2)}
    assert writers.dead(run=f"{200:012x}") == {name(0), name(0, spawn=101), name(1), name(2)}
    writers.add(name(0, spawn=300, run=300))
    assert name(0, spawn=300, run=300) not in writers.dead()
    assert name(1) in writers.dead()


def test_only_what_changed_is_written_again() -> None:
    writers = Writers({name(): Writer(100)})
    writers.add(name())
    writers.mark(name(), 90)
    assert writers.take_changed() == []
    writers.mark(name(), 200)
    assert writers.take_changed() == [(name(), Writer(200))]
    assert writers.take_changed() == []
