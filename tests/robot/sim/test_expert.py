"""The expert solves every task, and only what the tasks ask for counts as solved."""

import numpy as np
import pytest

pytest.importorskip("mujoco", reason="needs the extra memorywam[sim]")

from memorywam_robot.sim import scene
from memorywam_robot.sim.expert import Expert
from memorywam_robot.sim.tasks import TASKS

SEEDS = range(20)


@pytest.mark.parametrize("task", TASKS)
def test_expert_succeeds(worlds, plan, play, task):
    world = worlds[task]
    for seed in SEEDS:
        world.reset(seed)
        assert not world.is_success
        assert play(world, plan(world)), f"{task}, seed {seed}"
        assert world.first_pressed == world.script.target
        np.testing.assert_allclose(world.state, world.home, atol=0.02)


@pytest.mark.parametrize("task", TASKS)
def test_expert_presses_within_the_go_chunk(worlds, plan, task):
    world = worlds[task]
    world.reset(1)
    chunks = plan(world)
    go_frame = world.script.go_frame
    for chunk in chunks[:go_frame]:
        for action in chunk:
            world.step(action)
    assert world.frame_index == go_frame
    assert world.first_pressed == -1
    for action in chunks[go_frame]:
        world.step(action)
    assert world.is_success
    assert not world.is_done


@pytest.mark.parametrize("task", TASKS)
def test_pressing_the_nominal_place_succeeds(worlds, plan, play, task):
    world = worlds[task]
    for seed in SEEDS:
        world.reset(seed)
        assert play(world, plan(world, button_offsets=((0.0, 0.0),) * 3)), f"seed {seed}"


@pytest.mark.parametrize("task", TASKS)
def test_holding_still_fails(worlds, play, task):
    world = worlds[task]
    world.reset(2)
    hold = np.repeat(world.home[None], 16, axis=0)
    assert not play(world, [hold] * world.script.num_frames)
    assert world.first_pressed == -1


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("turn", [1, 2])
def test_pressing_another_button_fails(worlds, plan, play, task, turn):
    world = worlds[task]
    world.reset(3)
    wrong = (world.script.target + turn) % 3
    assert not play(world, plan(world, target=wrong))
    assert world.first_pressed == wrong


@pytest.mark.parametrize("task", TASKS)
def test_pressing_early_fails_even_if_pressed_again(worlds, plan, play, task):
    world = worlds[task]
    world.reset(4)
    chunks, early = plan(world), plan(world, go_frame=3)
    chunks[3:5] = early[3:5]
    assert not play(world, chunks)
    assert world.first_pressed == world.script.target


@pytest.mark.parametrize("task", TASKS)
def test_chunks_hold_until_go_then_move_smoothly(worlds, task):
    world = worlds[task]
    world.reset(6)
    expert, script = Expert(world), world.script
    chunks = np.concatenate([expert.chunk(frame) for frame in range(script.num_frames + 1)])
    before = chunks[: 16 * script.go_frame]
    assert chunks.shape == (16 * (script.num_frames + 1), 14)
    assert chunks.dtype == np.float64
    np.testing.assert_array_equal(before, np.broadcast_to(world.home, before.shape))
    np.testing.assert_allclose(chunks[16 * script.num_frames - 1 :], world.home[None].repeat(17, 0))
    assert np.abs(np.diff(chunks, axis=0)).max() < 0.35, "rad in 0.1 s"
    arm = scene.JOINT_NAMES.index("right_waist") if script.target else 0
    other = chunks[:, 7 - arm : 14 - arm]
    np.testing.assert_array_equal(other, other[:1].repeat(len(other), axis=0))


def test_expert_follows_the_world_to_another_seed(worlds):
    world = worlds["recall"]
    world.reset(0)
    expert = Expert(world)
    first = expert.chunk(world.script.go_frame)
    world.reset(1)
    again = expert.chunk(world.script.go_frame)
    np.testing.assert_array_equal(again, Expert(world).chunk(world.script.go_frame))
    assert not np.array_equal(first, again)
