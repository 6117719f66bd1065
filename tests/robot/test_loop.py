"""The loop keeps the trained grid, executes what it is told, and holds the arms at the end."""

import msgspec
import numpy as np
import pytest

from memorywam_export.checkpoints.presets import contract_from_preset
from memorywam_robot.loop import run_episode
from memorywam_robot.robot import Job, Verdict
from memorywam_robot.sim.tasks import TASKS
from memorywam_runtime.errors import InputError


class BenchRobot:
    """An arm that is where it was sent, and one black camera; it counts what happens to it."""

    def __init__(self, num_steps=48):
        self.arm = self.cameras = self
        self.num_steps = num_steps
        self.commands: list[np.ndarray] = []
        self.holds = self.pictures = 0

    def start(self, seed):
        self.commands = []
        return Job(instruction=f"job {seed}", num_steps=self.num_steps)

    def verdict(self):
        return Verdict(success=None)

    def close(self):
        pass

    def state(self):
        return self.commands[-1].copy() if self.commands else np.zeros(14)

    def command(self, action):
        if not np.isfinite(action).all():
            raise InputError("not finite")
        self.commands.append(np.asarray(action))

    def hold(self):
        self.holds += 1

    def images(self):
        self.pictures += 1
        return {"head": np.zeros((4, 4, 3), np.uint8)}


class Diary:
    """A subscriber that writes everything down."""

    def __init__(self, fail_at=None):
        self.lines: list[str] = []
        self.fail_at = fail_at

    def on_episode_start(self, start):
        self.lines.append(f"start {start.instruction} {start.num_steps}")

    def on_observation(self, observation, captured_ns):
        assert captured_ns > 0
        self.lines.append(f"observation {observation.step}")

    def on_frame(self, frame, steps):
        self.lines.append(f"frame {frame} of {list(steps)}")

    def on_chunk(self, state, chunk):
        self.lines.append(f"chunk {state[0]:.0f} {chunk[0, 0]:.0f}")

    def on_step(self, step, action):
        if step == self.fail_at:
            raise OSError("disk full")
        self.lines.append(f"step {step} {action[0]:.0f}")

    def on_episode_end(self, result):
        self.lines.append(f"end {result.num_steps}")


def counting(frame, _state):
    """Actions whose every number is their own: 0 to 15 after frame 0, and so on."""
    return np.repeat(np.arange(16.0)[:, None] + 16 * frame, 14, axis=1)


def test_the_grid_of_observations(scripted):
    robot, policy = BenchRobot(48), scripted(counting)
    result = run_episode(policy, robot, seed=7)
    assert policy.resets == [("job 7", 7, 48)]
    assert policy.groups == [(0,), (4, 8, 12, 16), (20, 24, 28, 32)]
    assert result.num_frames == 3
    assert len(result.remember_ms) == len(result.act_ms) == 3
    assert result.num_steps == len(robot.commands) == 48
    np.testing.assert_array_equal(result.executed[:, 0], np.arange(48.0))
    np.testing.assert_array_equal(result.executed, np.array(robot.commands))
    # Nobody acts on what would be seen after the last step.
    assert robot.pictures == 9
    assert robot.holds == 1
    assert result.success is None


def test_images_are_seen_as_they_are_made(scripted):
    """All but a group's last, which `remember` gets: then the others are encoded already."""
    robot, policy, seen = BenchRobot(48), scripted(counting), []
    take = policy.see

    def see(observation):
        seen.append(len(robot.commands))
        take(observation)

    policy.see = see
    run_episode(policy, robot)
    assert seen == [4, 8, 12, 20, 24, 28]
    assert policy.groups == [(0,), (4, 8, 12, 16), (20, 24, 28, 32)]


def test_an_episode_that_ends_within_a_chunk(scripted):
    robot, policy = BenchRobot(20), scripted(counting)
    result = run_episode(policy, robot)
    assert result.num_steps == len(robot.commands) == 20
    assert result.num_frames == 2


def test_the_state_after_the_last_command_is_acted_on(scripted):
    states = []

    def chunk(frame, state):
        states.append(state[0])
        return counting(frame, state)

    run_episode(scripted(chunk), BenchRobot(48))
    assert states == [0, 15, 31]


@pytest.mark.parametrize("history", [True, False])
def test_executed_actions_go_to_memory_where_it_keeps_them(scripted, history):
    contract = contract_from_preset("demo")
    conventions = msgspec.structs.replace(contract.conventions, action_history=history)
    policy = scripted(counting, msgspec.structs.replace(contract, conventions=conventions))
    run_episode(policy, BenchRobot(48))
    assert policy.executed[0] is None
    if history:
        np.testing.assert_array_equal(policy.executed[1], counting(0, None))
        np.testing.assert_array_equal(policy.executed[2], counting(1, None))
    else:
        assert policy.executed == [None] * 3


def test_an_instruction_of_the_users(scripted):
    policy = scripted(counting)
    result = run_episode(policy, BenchRobot(16), instruction="other")
    assert policy.resets[0][0] == result.instruction == "other"


def test_subscribers_hear_everything_in_order(scripted):
    diary = Diary()
    run_episode(scripted(counting), BenchRobot(18), seed=3, subscribers=(diary,))
    steps = [f"step {k} {k - 1}" for k in range(1, 19)]
    for index, step in ((16, 16), (12, 12), (8, 8), (4, 4)):
        steps.insert(index, f"observation {step}")
    steps[20:20] = ["frame 1 of [4, 8, 12, 16]", "chunk 15 16"]
    first = ["observation 0", "frame 0 of [0]", "chunk 0 0"]
    assert diary.lines == ["start job 3 18", *first, *steps, "end 18"]


def test_the_arms_are_held_when_something_fails(scripted):
    robot, diary = BenchRobot(48), Diary(fail_at=5)
    with pytest.raises(OSError, match="disk full"):
        run_episode(scripted(counting), robot, subscribers=(diary,))
    assert (robot.holds, len(robot.commands)) == (1, 5)
    assert not any(line.startswith("end") for line in diary.lines)

    def broken(frame, _state):
        return np.full((16, 14), np.nan if frame else 0.0)

    robot = BenchRobot(48)
    with pytest.raises(InputError):
        run_episode(scripted(broken), robot)
    assert (robot.holds, len(robot.commands)) == (1, 16)


def test_a_chunk_that_ends_before_the_next_frame_is_refused(scripted):
    robot = BenchRobot(48)
    with pytest.raises(InputError, match="8 actions; the next frame is complete only after 16"):
        run_episode(scripted(lambda frame, state: counting(frame, state)[:8]), robot)
    assert not robot.commands


@pytest.mark.parametrize("task", TASKS)
def test_the_expert_succeeds_through_the_loop(robots, expert, task):
    robot = robots(task)
    policy = expert(robot)
    for seed in (0, 1):
        result = run_episode(policy, robot, seed=seed)
        assert result.success is True
        assert result.remark.startswith("pressed ")
        assert result.num_frames == robot.world.script.num_frames
        assert result.num_steps == robot.world.script.num_steps


def test_waiting_is_no_success(robots, scripted):
    robot = robots("recall")
    wait = scripted(lambda _frame, _state: np.repeat(robot.world.home[None], 16, axis=0))
    result = run_episode(wait, robot, seed=0)
    assert result.success is False
    assert result.remark.startswith("pressed none, not ")
