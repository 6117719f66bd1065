"""d follows the newest chunks: a stall is forgotten, a slow device is not; there is a bound."""

from dataclasses import replace

import pytest
from tests.fakes.live import BenchPolicy, small_contract
from tests.fakes.live_bench import AMPLE, bench, ramp

from memorywam_robot.live.delay import ExpectedDelay
from memorywam_robot.live.load import LoadRules, load_from_measured
from memorywam_runtime.errors import InputError

LOAD = load_from_measured(small_contract(32), remember_ms=40, act_ms=160)
"""3 steps of 100 ms, with the margin."""


@pytest.mark.parametrize("num_before", [0, 1, 49, 50, 77])
def test_one_stall_never_raises_it(num_before):
    delay = ExpectedDelay(LOAD)
    for _ in range(num_before):
        delay.note(40, 160)
    delay.note(40, 2000)
    assert delay.num_steps == LOAD.num_delayed == 3
    for _ in range(60):
        delay.note(40, 160)
        assert delay.num_steps == 3


def test_a_device_that_grows_slow_is_followed_and_forgiven():
    delay = ExpectedDelay(LOAD)
    for steps in (3, 3, 5, 5):
        delay.note(40, 360)
        assert delay.num_steps == steps, "two of fifty may be stalls"
    for _ in range(50):
        delay.note(40, 160)
    assert delay.num_steps == 3
    for _ in range(50):
        delay.note(10, 60)
    assert delay.num_steps == 1


def test_it_grows_no_further_than_the_check_of_the_load_lets_a_device_start():
    for horizon in (16, 20, 32, 48):
        contract = small_contract(horizon)
        load = load_from_measured(contract, remember_ms=10, act_ms=100)
        delay = ExpectedDelay(load)
        for _ in range(50):
            delay.note(40, 60_000)
        assert delay.num_steps == load.most_delayed
        ample = LoadRules(margin=1.0, most=99.0)
        most_ms = load.most_delayed * load.step_ms
        if horizon < 48:  # or more delay lets chunks be asked for more often
            found = load_from_measured(contract, remember_ms=0, act_ms=most_ms, rules=ample)
            assert found.num_delayed == load.most_delayed
        with pytest.raises(InputError, match="expected"):
            load_from_measured(contract, remember_ms=0, act_ms=most_ms + 1600, rules=ample)
        with pytest.raises(InputError, match="expected"):
            load_from_measured(contract, remember_ms=0, act_ms=most_ms + 1, rules=ample)


def asked_with(slow):
    """How many actions each chunk of an episode had to begin with; these frames' are slow."""
    rig = bench(BenchPolicy(ramp), rules=AMPLE, num_steps=128)
    assert rig.virtual is not None
    usual = rig.virtual._latency
    while rig.episode.phase != "ended":
        step_ms = 90.0 if rig.asked and rig.asked[-1].frame in slow else usual.step_ms
        rig.virtual._latency = replace(usual, step_ms=step_ms)
        rig.tick()
    rig.finish()
    assert rig.episode.aborted == ""
    found = [0 if task.prefix is None else len(task.prefix) for task in rig.asked]
    assert rig.episode.counts.delayed_last == found[-1]
    assert rig.episode.counts.delayed_most == max(found)
    return found


def test_chunks_are_made_to_begin_with_as_much_as_is_expected():
    assert asked_with({2}) == [0, 3, 3, 3, 3, 3, 3, 3]
    assert asked_with({0, 1, 2, 3, 4, 5, 6, 7}) == [0, 3, 3, 5, 5, 5, 5, 5]
    assert asked_with({2, 4, 5}) == [0, 3, 3, 3, 3, 3, 5, 5]
    assert asked_with({2, 4, 5}) == asked_with({2, 4, 5}), "the same every time"
