"""The world is deterministic, refuses bad actions, and shows each lamp in its frames."""

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("mujoco", reason="needs the extra memorywam[sim]")

from memorywam_robot.sim import scene
from memorywam_robot.sim.tasks import TASKS
from memorywam_robot.sim.world import World
from memorywam_runtime.errors import InputError, MissingPartError


def bright_lamps(image: NDArray[np.uint8]) -> set[str]:
    """Return the kinds of lamp that are lit in a head image at half its size."""
    small = image.reshape(32, 2, 32, 2, 3).mean(axis=(1, 3))
    red, green, blue = np.moveaxis(small, -1, 0)
    lit = {
        "cue": (red > 190) & (green > 150) & (blue < 90),
        "blink": (red > 190) & (green < 110) & (blue > 190),
        "go": (red < 110) & (green > 190) & (blue < 130),
    }
    # 3 x 3 pixels less the corners of a round lamp.
    return {name for name, mask in lit.items() if mask.sum() >= 5}


@pytest.mark.parametrize("task", TASKS)
def test_cameras_shapes_and_state(worlds, task):
    seen = worlds[task].reset(0)
    assert {name: image.shape for name, image in seen.images.items()} == {
        "left_wrist": (32, 32, 3),
        "right_wrist": (32, 32, 3),
        "head": (64, 64, 3),
    }
    for image in seen.images.values():
        assert image.dtype == np.uint8
        assert image.std() > 10
    assert seen.step == 0
    assert seen.state.shape == (14,)
    np.testing.assert_allclose(seen.state, worlds[task].home, atol=1e-9)
    assert worlds[task].instruction == worlds[task].script.instruction


@pytest.mark.parametrize("task", TASKS)
def test_lamps_are_seen_in_their_frames_alone(worlds, plan, task):
    world = worlds[task]
    world.reset(7)
    script = world.script
    kind = "blink" if task == "count" else "cue"
    actions = np.concatenate(plan(world))
    for step in range(script.num_steps + 1):
        if step:
            world.step(actions[step - 1])
        assert world.step_count == step
        if step % 16 not in {0, 2, 3, 4}:
            continue
        assert world.frame_index == -(-step // 16)
        shown = -(-max(0, step - 2) // 16)  # lamps change between two images, not at one
        expected = {kind} if shown in script.cue_frames else set()
        expected |= {"go"} if shown >= script.go_frame else set()
        assert bright_lamps(world.observe().images["head"]) == expected, f"step {step}"


@pytest.mark.parametrize("task", ["recall", "glimpse"])
def test_cue_lamps_are_told_apart(worlds, task):
    world = worlds[task]
    columns: dict[int, list[float]] = {}
    for seed in range(12):
        world.reset(seed)
        first = world.script.cue_frames[0]
        while world.step_count < max(0, 16 * first - 12):  # the first image of the frame
            world.step(world.home)
        head = world.observe().images["head"].astype(int)
        lit = (head[..., 0] > 190) & (head[..., 1] > 150) & (head[..., 2] < 90)
        columns.setdefault(world.script.target, []).append(np.nonzero(lit)[1].mean())
    assert set(columns) == {0, 1, 2}
    assert max(columns[0]) + 8 < min(columns[1])
    assert max(columns[1]) + 8 < min(columns[2])


def test_same_seed_and_actions_give_the_same_bits(worlds, plan):
    used = worlds["glimpse"]
    used.reset(8)
    actions = np.concatenate(plan(used))
    with World("glimpse", 8) as fresh:
        first = used.reset(8)
        np.testing.assert_array_equal(first.images["head"], fresh.observe().images["head"])
        for step, action in enumerate(actions):
            used.step(action)
            fresh.step(action)
            if step % 4 == 0:
                used.observe()  # looking leaves no trace in the physics
            np.testing.assert_array_equal(used.state, fresh.state)
        for ours, theirs in zip(
            used.observe().images.values(), fresh.observe().images.values(), strict=True
        ):
            np.testing.assert_array_equal(ours, theirs)


def test_reset_without_a_seed_starts_the_same_episode_again(worlds):
    world = worlds["count"]
    before = world.reset(9)
    for _ in range(20):
        world.step(np.zeros(14))
    after = world.reset()
    assert world.script.seed == 9
    assert world.step_count == world.frame_index == 0
    np.testing.assert_array_equal(before.state, after.state)
    for name, image in before.images.items():
        np.testing.assert_array_equal(image, after.images[name])


@pytest.mark.parametrize(
    "action",
    [
        np.zeros(13),
        np.zeros((1, 14)),
        np.full(14, np.nan),
        np.array([np.inf] + [0.0] * 13),
        ["left"] * 14,
        [[0.0], [0.0, 1.0]],
        None,
    ],
    ids=["short", "batched", "nan", "inf", "words", "ragged", "none"],
)
def test_bad_action_is_refused_and_nothing_moves(worlds, action):
    world = worlds["recall"]
    world.reset(0)
    world.step(world.home)
    before = world.state
    with pytest.raises(InputError, match=r"action.*14 finite"):
        world.step(action)
    np.testing.assert_array_equal(world.state, before)
    assert world.step_count == 1


def test_targets_out_of_range_are_clipped(worlds):
    world = worlds["recall"]
    world.reset(0)
    for _ in range(30):
        world.step(np.full(14, 100.0))
    limits = world._model.actuator_ctrlrange
    assert (world._data.ctrl <= limits[:, 1]).all()
    assert np.abs(world.state).max() < 3.1
    assert world.state[6] == pytest.approx(1.0, abs=0.05)


def test_bad_seed_leaves_the_episode_as_it_was(worlds):
    world = worlds["recall"]
    world.reset(3)
    world.step(world.home)
    with pytest.raises(InputError, match="seed"):
        world.reset(-3)
    assert world.step_count == 1
    assert world.script.seed == 3


def test_unknown_task_is_refused():
    with pytest.raises(InputError, match="recall, glimpse, count"):
        World("fetch", 0)


def test_film_has_the_size_asked_for(worlds):
    world = worlds["recall"]
    assert world.render_film(90, 120).shape == (90, 120, 3)
    assert world.render_film(64, 80).shape == (64, 80, 3)


def test_closing_twice_is_fine():
    world = World("recall", 0)
    world.close()
    world.close()
    with World("recall", 0) as other:
        other.close()


def test_missing_egl_says_what_to_install(monkeypatch):
    def no_display(*_):
        raise ImportError("Cannot initialize a EGL device display")

    monkeypatch.setattr("memorywam_robot.sim.world.mujoco.Renderer", no_display)
    with pytest.raises(MissingPartError, match=r"memorywam\[sim\].*libegl1 libgl1-mesa-dri"):
        World("recall", 0)


def test_names_are_those_of_the_demo_preset():
    presets = pytest.importorskip("memorywam_export.checkpoints.presets")
    assert presets.contract_from_preset("demo").actions.names == scene.JOINT_NAMES
