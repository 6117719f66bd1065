"""Another instruction in the middle of an episode: anew, or with the memory that there is."""

import pytest
from tests.fakes.live_bench import bench

from memorywam_robot.live.tasks import Begin, Instruct
from memorywam_runtime.errors import InputError


def test_another_instruction_begins_anew():
    rig = bench(num_steps=200)
    rig.until(lambda: len(rig.remembered) > 3)
    before, num_taken = len(rig.asked), rig.queue.num_taken
    assert num_taken > 16
    rig.episode.set_instruction("another")
    assert rig.episode.phase == "gate"
    begin = rig.of(Begin)[-1]
    assert (begin.instruction, begin.epoch) == ("another", 2)
    assert rig.queue.num_taken == 0
    assert rig.queue.num_left == 0
    first = len(rig.remembered)
    rig.until(lambda: len(rig.remembered) > first + 1)
    assert [task.frame for task in rig.remembered[first:]] == [0, 1]
    assert {task.epoch for task in rig.remembered[first:]} == {2}
    assert {task.epoch for task in rig.asked[before:]} <= {1, 2}
    assert rig.asked[-1].epoch == 2


def test_another_instruction_may_keep_memory_and_asks_for_the_chunk_again():
    rig = bench(num_steps=200)
    rig.until(lambda: len(rig.remembered) > 2)
    asked = rig.asked[-1]
    rig.episode.set_instruction("another", keep_memory=True)
    assert rig.episode.phase == "running"
    (task,) = rig.of(Instruct)
    assert (task.instruction, task.epoch) == ("another", 1)
    frames = len(rig.remembered)
    rig.until(lambda: len(rig.remembered) > frames)
    assert rig.remembered[-1].frame == frames
    assert len(rig.of(Begin)) == 1
    assert rig.asked[-1].frame >= asked.frame


def test_an_episode_that_has_ended_takes_no_instruction():
    rig = bench(num_steps=200)
    rig.episode.abort("enough")
    with pytest.raises(InputError, match="start another"):
        rig.episode.set_instruction("another")
