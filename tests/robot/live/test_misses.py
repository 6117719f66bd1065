"""Each deadline that is missed has its step and its time, in rows that do not grow."""

from dataclasses import replace

from tests.fakes.live import MS, BenchPolicy, small_contract
from tests.fakes.live_bench import AMPLE, STEP_MS, bench, dark, ramp

from memorywam_robot.live.misses import Misses


def rows_of(misses):
    return [tuple(row.values()) for row in misses.report()]


def test_steps_in_a_row_are_one_miss_and_others_are_others():
    misses = Misses()
    for step in (3, 4, 5, 9):
        misses.since_ns = step * STEP_MS * MS
        misses.bridge(step)
    misses.note("skipped", 10, 2)
    misses.bridge(10)
    assert rows_of(misses) == [
        ("bridged", 3, 300.0, 3), ("bridged", 9, 900.0, 2), ("skipped", 10, 900.0, 2),
    ]  # fmt: skip
    misses.begin(11)
    misses.bridge(0)
    assert rows_of(misses)[3:] == [("bridged", 11, 900.0, 1)], "steps are the episode's"


def test_no_more_are_kept_than_there_are_rows():
    misses = Misses()
    rows = misses._rows
    for step in range(0, 2100, 3):
        misses.bridge(step)
        if step % 2:
            misses.bridge(step + 1)
    assert misses._rows is rows
    assert (misses.count, misses.num_kept, len(misses.report())) == (700, 512, 512)
    assert rows_of(misses)[-1] == ("bridged", 1533, 0.0, 2)


def test_a_late_chunk_is_noted_when_it_comes():
    rig = bench(BenchPolicy(ramp), rules=AMPLE, num_steps=96)
    assert rig.virtual is not None
    usual = rig.virtual._latency
    while rig.episode.phase != "ended":
        step_ms = 300.0 if rig.asked and rig.asked[-1].frame == 2 else usual.step_ms
        rig.virtual._latency = replace(usual, step_ms=step_ms)
        rig.tick()
    rig.finish()
    counts = rig.episode.counts
    # Nothing was there to begin with; of frame 2's 1240 ms, 3 steps were expected.
    (first, late) = rows_of(counts.misses)
    assert first == ("bridged", 0, 20.0, counts.bridged)
    what, step, since_ms, num_steps = late
    assert (what, step, num_steps) == ("late chunk", 32 + 13, 13 - 3)
    assert step * STEP_MS - STEP_MS <= since_ms <= step * STEP_MS
    assert counts.report()["misses"] == counts.misses.report()
    assert counts.report()["misses_not_kept"] == 0


def test_a_chunk_too_late_for_any_action_is_noted_and_so_are_the_pauses():
    rig = bench(BenchPolicy(lambda f: ramp(f, 16)), contract=small_contract(16), rules=AMPLE,
                num_steps=96, act_ms=120.0)  # fmt: skip
    assert rig.virtual is not None
    usual = rig.virtual._latency
    while rig.episode.phase != "ended":
        step_ms = 600.0 if rig.asked and rig.asked[-1].frame == 2 else usual.step_ms
        rig.virtual._latency = replace(usual, step_ms=step_ms)
        rig.tick()
    rig.finish()
    counts = rig.episode.counts
    rows = rows_of(counts.misses)
    assert counts.chunks_dropped + counts.chunks_replaced >= 1
    bridged = [row for row in rows if row[0] == "bridged"]
    assert sum(row[3] for row in bridged) == counts.bridged
    assert max(row[3] for row in bridged) > 16


def test_a_tick_that_comes_late_is_noted_and_a_hold_is_not():
    rig = bench(BenchPolicy(ramp), rules=AMPLE, num_steps=96)
    while rig.since_ms < 2000:
        rig.tick()
    before = rig.episode.counts.misses.count
    rig.now_ns += 350 * MS
    rig.tick()
    row = rows_of(rig.episode.counts.misses)[before]
    assert (row[0], row[3]) == ("skipped", rig.episode.counts.skipped)
    assert row[3] == 2
    assert row[1] == 21, "the 22nd step was to begin next"
    assert row[2] == rig.since_ms
    held = bench(num_steps=96)
    dark(held, 3300, 4290)
    assert held.episode.counts.holds == 1
    steps = sum(row[3] for row in rows_of(held.episode.counts.misses) if row[0] == "bridged")
    assert steps < held.episode.counts.bridged, "the pause of a hold has a reason of its own"
