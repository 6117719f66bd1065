"""A gymnasium environment through the loop: rates, cameras, success, and what does not fit."""

from typing import Any

import gymnasium
import msgspec
import numpy as np
import pytest

from memorywam_export.checkpoints.presets import contract_from_preset
from memorywam_robot.adapters.gym_opening import robot_from_gym
from memorywam_robot.adapters.gym_robot import GymRobot
from memorywam_robot.adapters.robot_words import words_from_argument
from memorywam_robot.loop import run_episode
from memorywam_runtime.errors import InputError, MissingPartError

CONTRACT = contract_from_preset("tiny")
VIEWS = {"head": "top", "left_wrist": "left_wrist", "right_wrist": "right_wrist"}
CAMERAS = tuple(VIEWS.values())


class Table(gymnasium.Env):
    """Joints that go where they are sent; success at the step it is told."""

    metadata: dict[str, Any] = {"render_fps": 50, "render_modes": ["rgb_array"]}  # noqa: RUF012

    def __init__(self, obs_type="pixels", succeeds_at=10_000, cameras=CAMERAS):
        box = gymnasium.spaces.Box
        pixels: Any = {name: box(0, 255, (12, 16, 3), np.uint8) for name in cameras}
        self.observation_space = gymnasium.spaces.Dict(
            {"pixels": gymnasium.spaces.Dict(pixels), "agent_pos": box(-9, 9, (14,), np.float64)}
        )
        self.action_space = box(-1, 1, (14,), np.float32)
        self.obs_type, self.succeeds_at, self.cameras = obs_type, int(succeeds_at), cameras
        self.taken: list[np.ndarray] = []
        self.is_closed = False

    def look(self):
        pixels = {
            name: np.full((12, 16, 3), (len(self.taken) + 50 * index) % 256, np.uint8)
            for index, name in enumerate(self.cameras)
        }
        return {"pixels": pixels, "agent_pos": self.at.copy()}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.at = self.np_random.uniform(-1, 1, 14)
        self.taken = []
        return self.look(), {"is_success": False}

    def step(self, action):
        self.taken.append(action.copy())
        self.at = np.array(action, np.float64)
        done = len(self.taken) >= self.succeeds_at
        return self.look(), 4.0 * done, done, False, {"is_success": done}

    def close(self):
        self.is_closed = True


gymnasium.register(
    "memorywam_tests/Table-v0",
    entry_point=lambda **options: Table(**options),
    max_episode_steps=200,
)


def robot_of(text="", **contract):
    views = "views=" + "+".join(f"{ours}:{theirs}" for ours, theirs in VIEWS.items())
    words = words_from_argument(f"memorywam_tests/Table-v0,{views},instruction=random{text}")
    return robot_from_gym(words, with_(**contract))


def with_(control_hz=10.0):
    views = msgspec.structs.replace(CONTRACT.observations, control_hz=control_hz)
    return msgspec.structs.replace(CONTRACT, observations=views)


def test_the_loop_with_a_real_policy(served_policy, direct_policy):
    """Each action is that of the policy asked without an environment, bit for bit."""
    told = []

    class Witness:
        def on_observation(self, observation, captured_ns):
            told.append(observation)

        def __getattr__(self, name):
            return lambda *_: None

    witness: Any = Witness()
    robot = robot_of(",steps=36")
    result = run_episode(served_policy, robot, seed=3, subscribers=[witness])
    env = robot._env.unwrapped
    # 50 steps a second of the environment, 10 of the contract: each action for five.
    assert len(env.taken) == 5 * 36
    direct_policy.reset("random", seed=3)
    given = []
    for group, count in ((told[:1], 16), (told[1:5], 16), (told[5:9], 4)):
        direct_policy.remember(group)
        given.append(direct_policy.act(group[-1].state)[:count])
    np.testing.assert_array_equal(np.array(env.taken[::5]), np.concatenate(given))
    np.testing.assert_array_equal(np.array(env.taken[4::5]), np.concatenate(given))
    np.testing.assert_array_equal(result.executed, np.concatenate(given))
    assert [observation.step for observation in told] == list(range(0, 33, 4))
    assert len(told) == 1 + 8
    assert result.num_frames == 3
    assert (told[1].images["head"] == 4 * 5).all()
    assert result.success is False
    assert result.remark == "best reward 0 in 180 steps"


def test_cameras_go_by_the_contracts_names():
    robot = robot_of()
    robot.start(0)
    robot.command(np.zeros(14))
    images = robot.images()
    assert set(images) == set(VIEWS)
    for index, ours in enumerate(VIEWS):
        assert (images[ours] == 5 + 50 * index).all()


def test_the_same_seed_makes_the_same_episode():
    robot = robot_of()
    robot.start(7)
    first = robot.state()
    robot.command(np.zeros(14))
    robot.start(7)
    np.testing.assert_array_equal(robot.state(), first)
    robot.start(8)
    assert not np.array_equal(robot.state(), first)


def test_an_episode_is_as_long_as_the_environments():
    assert robot_of().start(0).num_steps == 40  # 200 steps of 50 Hz
    assert robot_of(",steps=7").start(0).num_steps == 7
    assert robot_of(control_hz=50.0).start(0).num_steps == 200


def test_success_stops_the_world(scripted):
    robot = robot_of(",steps=40,succeeds_at=33")
    policy = scripted(lambda frame, state: np.full((16, 14), 0.5), CONTRACT)
    result = run_episode(policy, robot)
    assert result.success is True
    assert result.remark == "best reward 4 in 33 steps"
    assert len(robot._env.unwrapped.taken) == 33
    assert robot.start(0).num_steps == 40
    assert robot.verdict().success is False  # of the episode that begins
    robot.command(np.zeros(14))
    assert len(robot._env.unwrapped.taken) == 5
    assert robot.verdict().remark == "best reward 0 in 5 steps"


def test_truncation_stops_the_world_without_success():
    robot = robot_of()
    robot.start(0)
    for _ in range(41):
        robot.command(np.zeros(14))
    assert len(robot._env.unwrapped.taken) == 200
    assert robot.verdict().success is False


def test_joints_are_not_clipped_to_the_action_space():
    robot = robot_of()
    robot.start(0)
    robot.command(np.full(14, 1.5))
    np.testing.assert_array_equal(robot.state(), np.full(14, 1.5))


@pytest.mark.parametrize("bad", [np.zeros(7), np.full(14, np.nan)])
def test_a_bad_command_moves_nothing(bad):
    robot = robot_of()
    robot.start(0)
    with pytest.raises(InputError):
        robot.command(bad)
    assert robot._env.unwrapped.taken == []


def test_what_does_not_fit_is_refused():
    with pytest.raises(InputError, match="a whole multiple"):
        robot_of(control_hz=15.0)
    with pytest.raises(InputError, match="a whole multiple"):
        robot_of(control_hz=100.0)
    seven = msgspec.structs.replace(CONTRACT.actions, action_dim=7, state_dim=7, names=(), units=())
    with pytest.raises(InputError, match=r"actions are \[14\]; expected \[7\]"):
        GymRobot(Table(), msgspec.structs.replace(CONTRACT, actions=seven), VIEWS)
    robot = GymRobot(Table(), CONTRACT, VIEWS | {"head": "ceiling"})
    with pytest.raises(InputError, match="no camera 'ceiling'"):
        robot.start(0)

    class Blind(Table):
        def look(self):
            return {"agent_pos": self.at}

    with pytest.raises(InputError, match="obs_type=pixels_agent_pos"):
        GymRobot(Blind(), CONTRACT, VIEWS).start(0)


def test_options_are_the_environments_own_and_closing_closes():
    robot = robot_of(",obs_type=other")
    env = robot._env.unwrapped
    assert env.obs_type == "other"
    assert robot_of()._env.unwrapped.obs_type == "pixels_agent_pos"
    robot.close()
    assert env.is_closed
    with pytest.raises(InputError, match="cannot make"):
        robot_of(",speed=2")


def test_what_is_not_installed_or_not_there():
    with pytest.raises(MissingPartError, match="pip install gym-nowhere"):
        robot_from_gym(words_from_argument("gym_nowhere/Table-v0"), CONTRACT)
    with pytest.raises(InputError, match="cannot make 'Nothing-v0'"):
        robot_from_gym(words_from_argument("Nothing-v0"), CONTRACT)
