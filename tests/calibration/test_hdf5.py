"""Episodes of RoboTwin and RMBench calibrate as any other, by the contract's cameras and rate."""

import numpy as np
import pytest
from tests.fakes.hdf5 import write_hdf5

from memorywam_calibration.calibrate import Options, calibrated
from memorywam_calibration.episodes.episodes import episodes_in
from memorywam_runtime.errors import InputError

pytest.importorskip("h5py", reason="needs the extra memorywam[hdf5]")
NUM_EPISODES = 24
THEIRS = ("left_camera", "right_camera", "head_camera")


@pytest.fixture(scope="module")
def data_set(writer, tmp_path_factory):
    """Episodes of what the contract's arms have, by the data set's names for its cameras."""
    root = tmp_path_factory.mktemp("robotwin")
    contract = writer.contract
    grippers = [k for k, unit in enumerate(contract.actions.units) if unit == "fraction"]
    assert contract.actions.state_dim == contract.actions.action_dim
    cameras = THEIRS[-len(contract.observations.cameras) :]
    for number in range(NUM_EPISODES):
        count = 1 + contract.steps_per_frame * (8 + number % 4)
        rng = np.random.default_rng(number)
        vector = rng.standard_normal((count, contract.actions.state_dim))
        vector[:, grippers] = 0.5
        half = vector.shape[1] // 2
        parts = {
            "left_arm": vector[:, : half - 1],
            "left_gripper": vector[:, half - 1],
            "right_arm": vector[:, half:-1],
            "right_gripper": vector[:, -1],
        }
        pictures = {
            camera: list(rng.integers(0, 256, (count, 24, 20, 3), np.uint8)) for camera in cameras
        }
        write_hdf5(
            root / "data" / f"episode{number}.hdf5",
            pictures,
            parts,
            seen=("random",),
            is_newer=number % 2 == 1,
        )
    return root, dict(zip(contract.observations.cameras, cameras, strict=True))


def test_a_data_set_calibrates(tiny_bundle, data_set):
    place, cameras = data_set
    found = calibrated(tiny_bundle, place, Options(num_samples=16, cameras=cameras))
    assert found.table is not None
    made = found.table.provenance
    assert set(made.recordings) == {f"episode{number}" for number in range(NUM_EPISODES)}
    assert made.num_samples == 16
    assert {one.instruction for one in found.plan.surveys} == {"random"}
    assert all(made.coverage[f"camera/{camera}"] == 16 for camera in cameras)


def test_its_cameras_have_to_be_named(tiny_bundle, data_set):
    place, _ = data_set
    with pytest.raises(InputError, match="name them with --cameras CONTRACT=RECORDED"):
        calibrated(tiny_bundle, place, Options(num_samples=16))


def test_its_rate_is_the_contracts_where_it_has_none(writer, data_set):
    place, _ = data_set
    found = episodes_in(place, writer.contract, writer.manifest.contract_hash)
    rates = {one.recording.header.control_hz for one in found}
    assert rates == {writer.contract.observations.control_hz, 15.0}
