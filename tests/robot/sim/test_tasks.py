"""The scripts keep the promises that make the tasks need memory."""

import itertools

import pytest

from memorywam_robot.sim.tasks import (
    BUTTONS,
    HORIZON,
    INSTRUCTIONS,
    LAMPS,
    TASKS,
    frame_from_step,
    script_from_seed,
)
from memorywam_runtime.errors import InputError

SEEDS = range(400)
WINDOW = 4  # recent frames that a policy of the demo preset sees beside anchors and gists


@pytest.mark.parametrize("task", TASKS)
def test_same_seed_gives_same_script(task):
    assert script_from_seed(task, 5) == script_from_seed(task, 5)
    assert len({script_from_seed(task, seed) for seed in SEEDS}) == len(SEEDS)


def test_tasks_do_not_share_chance():
    assert len({script_from_seed(task, 5).button_offsets for task in TASKS}) == len(TASKS)


@pytest.mark.parametrize("task", TASKS)
def test_every_target_is_as_likely(task):
    targets = [script_from_seed(task, seed).target for seed in SEEDS]
    for target in range(len(BUTTONS)):
        assert 0.24 < targets.count(target) / len(SEEDS) < 0.43


@pytest.mark.parametrize("task", TASKS)
def test_script_fits_the_instruction_and_the_table(task):
    for seed in SEEDS:
        script = script_from_seed(task, seed)
        assert script.instruction == INSTRUCTIONS[task]
        assert script.num_frames == script.go_frame + 2 <= 15
        assert script.num_steps == HORIZON * script.num_frames
        assert all(abs(metres) <= 0.01 for pair in script.button_offsets for metres in pair)
        assert len(script.home_offsets) == 12
        assert all(abs(radians) <= 0.03 for radians in script.home_offsets)


def test_recall_shows_the_cue_in_the_anchor_frames_alone():
    for seed in SEEDS:
        script = script_from_seed("recall", seed)
        assert script.cue_frames == (0, 1)
        assert 7 <= script.go_frame <= 11
        assert script.go_frame - script.cue_frames[-1] > WINDOW


def test_glimpse_shows_the_cue_once_after_the_anchors_and_before_the_window():
    for seed in SEEDS:
        script = script_from_seed("glimpse", seed)
        (flash,) = script.cue_frames
        assert 2 <= flash <= 4
        assert flash + 5 <= script.go_frame <= flash + 8
        assert script.go_frame - flash > WINDOW


def test_count_blinks_as_often_as_the_target_says_with_dark_between():
    for seed in SEEDS:
        script = script_from_seed("count", seed)
        assert len(script.cue_frames) == script.target + 1
        assert script.cue_frames[0] >= 1
        assert script.cue_frames[-1] < min(8, script.go_frame - 1)
        assert all(b - a >= 2 for a, b in itertools.pairwise(script.cue_frames))
        assert 8 <= script.go_frame <= 11


@pytest.mark.parametrize("task", TASKS)
def test_moments_reach_all_their_values(task):
    scripts = [script_from_seed(task, seed) for seed in SEEDS]
    go_frames = {script.go_frame for script in scripts}
    expected = {"recall": range(7, 12), "glimpse": range(7, 13), "count": range(8, 12)}
    assert go_frames == set(expected[task])


@pytest.mark.parametrize("task", TASKS)
def test_lit_lamps_follow_the_script(task):
    for seed in range(30):
        script = script_from_seed(task, seed)
        for frame in range(script.num_frames + 1):
            lit = script.lit_lamps(frame)
            assert lit <= set(LAMPS)
            assert ("go" in lit) == (frame >= script.go_frame)
            assert (script.cue_lamp in lit) == (frame in script.cue_frames)
            assert len(lit) <= 1, "a cue and the go lamp never meet"


@pytest.mark.parametrize(
    ("step", "frame"), [(0, 0), (1, 1), (4, 1), (16, 1), (17, 2), (32, 2), (33, 3)]
)
def test_frame_from_step(step, frame):
    assert frame_from_step(step) == frame


def test_unknown_task_lists_the_tasks():
    with pytest.raises(InputError, match=r"'fetch'.*recall, glimpse, count"):
        script_from_seed("fetch", 0)


@pytest.mark.parametrize("seed", [-1, 1.5, True, "7", None])
def test_bad_seed_is_refused(seed):
    with pytest.raises(InputError, match="seed"):
        script_from_seed("recall", seed)
