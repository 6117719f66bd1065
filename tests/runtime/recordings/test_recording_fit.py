"""A recording's joints and cameras are the contract's, or it is said what to do."""

import msgspec
import pytest
from tests.fakes.recordings import write_folder

from memorywam_export.checkpoints.presets import contract_from_preset
from memorywam_runtime.errors import InputError
from memorywam_runtime.recording import open_recording
from memorywam_runtime.recordings.recording_fit import camera_names, check_joints

TINY = contract_from_preset("tiny")


@pytest.fixture
def recording(tmp_path):
    return open_recording(write_folder(tmp_path / "one"))


@pytest.fixture
def contract(recording):
    observations = msgspec.structs.replace(TINY.observations, cameras=("head",), mosaic="single")
    actions = msgspec.structs.replace(
        TINY.actions,
        state_dim=recording.header.state_dim,
        action_dim=recording.header.action_dim,
        names=(),
        units=(),
    )
    return msgspec.structs.replace(TINY, observations=observations, actions=actions)


def test_names_are_the_same_unless_given(recording, contract):
    assert camera_names(recording, contract) == {"head": "head"}
    assert camera_names(recording, contract, {"head": "wrist"}) == {"head": "wrist"}


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"head": "top"}, r"found no camera \['top'\]; the recording has \['head', 'wrist'\]"),
        ({"top": "head"}, r"found cameras \['top'\] for a contract without"),
    ],
)
def test_other_cameras_are_refused(given, complaint, recording, contract):
    with pytest.raises(InputError, match=complaint):
        camera_names(recording, contract, given)


@pytest.mark.parametrize("field", ["state_dim", "action_dim"])
def test_other_joints_are_refused(field, recording, contract):
    check_joints(recording, contract)
    actions = msgspec.structs.replace(contract.actions, **{field: 5}, units=())
    with pytest.raises(InputError, match="this episode is of another robot; move it elsewhere"):
        check_joints(recording, msgspec.structs.replace(contract, actions=actions))
