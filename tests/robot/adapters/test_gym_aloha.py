"""gym-aloha's real environment through the loop: it runs, fits, and hears our policy's actions.

It wants an older MuJoCo than ours, so it lives in a folder of its own. A policy that was trained on
another table does not succeed on this one; nobody expects it to.
"""

import pytest
from tests.fakes.package_folders import GYM_ALOHA, packages, program

pytestmark = pytest.mark.proof

EPISODE = """
import sys, time
from pathlib import Path
import numpy as np
from memorywam_export.checkpoints.presets import contract_from_preset
from memorywam_robot.adapters.gym_opening import robot_from_gym
from memorywam_robot.adapters.robot_words import words_from_argument
from memorywam_robot.loop import run_episode
from memorywam_robot.runs import policy_from_bundle
from memorywam_runtime.errors import InputError
from memorywam_runtime.opening import Opening

CONTRACT = contract_from_preset("tiny")
NAME = "gym_aloha/" + sys.argv[2]
VIEWS = "views=head:top+left_wrist:left_wrist+right_wrist:right_wrist"
robot = robot_from_gym(words_from_argument(f"{NAME},{VIEWS},instruction=random,steps=18"), CONTRACT)
assert "mujoco" in sys.modules and not sys.modules["mujoco"].__version__.startswith("4")

env, told, taken = robot._env.unwrapped, [], []
step = env.step
def heard(action):
    taken.append(action.copy())
    return step(action)
env.step = heard

class Witness:
    def on_observation(self, observation, captured_ns):
        told.append(observation)
    def __getattr__(self, name):
        return lambda *_: None

policies = [policy_from_bundle(Path(sys.argv[1]), Opening(num_threads=1)) for _ in range(2)]
began = time.monotonic()
result = run_episode(policies[0], robot, seed=1, subscribers=[Witness()])
print(f"{len(taken)} steps in {time.monotonic() - began:.0f} s")

assert [one.step for one in told] == [0, 4, 8, 12, 16]
assert result.num_frames == 2 and result.num_steps == 18
assert len(taken) == 18 * 5  # 50 Hz for each action of 10 Hz
for one in told:
    assert set(one.images) == {"head", "left_wrist", "right_wrist"}
    assert all(i.shape == (480, 640, 3) and i.std() > 1 for i in one.images.values())
assert not np.array_equal(told[0].images["head"], told[0].images["left_wrist"])
assert not np.array_equal(told[0].images["left_wrist"], told[0].images["right_wrist"])
assert not np.array_equal(told[0].images["head"], told[-1].images["head"])
# Its arms start where its package says, in rad, with grippers as an open share.
start = [0, -0.96, 1.16, 0, -0.3, 0]
np.testing.assert_allclose(told[0].state[:6], start, atol=1e-6)
np.testing.assert_allclose(told[0].state[7:13], start, atol=1e-6)
assert 0 <= told[0].state[6] <= 1

inner = policies[1]
inner.reset("random", seed=1)
inner.remember(told[:1])
given = [inner.act(told[0].state)]
inner.remember(told[1:])
given.append(inner.act(told[4].state)[:2])
np.testing.assert_array_equal(np.array(taken[::5]), np.concatenate(given))
assert result.success is False and result.remark.startswith("best reward 0 in 90")

for text, said in [(f"{NAME},views=head:ceiling", "no camera 'ceiling'"),
                   (f"{NAME},{VIEWS},speed=2", "cannot make")]:
    try:
        robot_from_gym(words_from_argument(text), CONTRACT).start(0)
    except InputError as error:
        assert said in str(error), error
    else:
        raise AssertionError(text)
robot.close()
print("whole")
"""


@pytest.fixture(scope="module")
def aloha(tmp_path_factory):
    return packages(GYM_ALOHA, tmp_path_factory.mktemp("packages"))


@pytest.mark.parametrize("name", ["AlohaInsertion-v0", "AlohaTransferCube-v0"])
def test_an_episode_on_alohas_table(aloha, tiny_bundle, name):
    assert "whole" in program(EPISODE, aloha, tiny_bundle, name)
