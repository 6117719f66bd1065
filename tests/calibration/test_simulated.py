"""Recordings that the robot's own loop writes are what calibration replays."""

import pytest

pytest.importorskip("mcap", reason="needs the extra memorywam[record]")

from memorywam_calibration.episodes.episodes import episodes_in
from memorywam_calibration.episodes.samples import chosen_samples, fill_cells
from memorywam_calibration.episodes.survey import surveyed
from memorywam_calibration.replay.replay import policy_from_bundle, replayed
from memorywam_robot.recorder import Recorder
from memorywam_robot.runs import policy_from_bundle as robot_policy
from memorywam_robot.runs import run_episodes
from memorywam_robot.simulated import SimulatedRobot
from memorywam_runtime.opening import Opening


@pytest.fixture(scope="module")
def recorded(tiny_bundle, tmp_path_factory):
    """Two simulated episodes, and how they went."""
    folder = tmp_path_factory.mktemp("simulated")
    policy = robot_policy(tiny_bundle, Opening(num_threads=1))
    robot = SimulatedRobot("recall")
    with Recorder(folder, policy, robot="sim:recall", num_threads=1) as recorder:
        results = run_episodes(
            policy, robot, seeds=(0, 1), instruction="random", subscribers=(recorder,)
        )
    robot.close()
    return folder, results


def test_simulated_episodes_are_replayed(recorded, tiny_bundle):
    folder, results = recorded
    policy = policy_from_bundle(tiny_bundle)
    contract, manifest = policy.contract, policy.session.manifest
    episodes = episodes_in(folder, contract, manifest.contract_hash)
    assert [one.name for one in episodes] == ["sim-recall-seed-0", "sim-recall-seed-1"]
    surveys = surveyed(episodes, contract)
    assert [one.num_frames for one in surveys] == [one.num_frames for one in results]
    samples = chosen_samples(surveys, fill_cells(contract, 256), 10)
    (found,) = replayed(policy, surveys, samples)
    assert found.samples == set(samples)
    assert found.counts["step/00"] == found.counts["token/gist"] == 10
    assert found.sites["memory.00.k"].absmax > 0
