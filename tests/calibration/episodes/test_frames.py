"""A recording gives the frames that the policy's grid asks for, and says where it has gaps."""

import msgspec
import numpy as np
import pytest

from memorywam_calibration.episodes.frames import frames_of
from memorywam_runtime.errors import InputError
from memorywam_runtime.recording import Instructed, Observed, open_recording


@pytest.fixture
def recorded(writer, tmp_path):
    def recorded(*args, **how):
        return open_recording(writer.write(tmp_path, "one", *args, **how))

    return recorded


def test_groups_stand_on_the_grid(recorded, writer):
    frames = list(frames_of(recorded(3), writer.contract))
    steps = [[seen.step for seen in frame.observations] for frame in frames]
    assert steps == [[0], [4, 8, 12, 16], [20, 24, 28, 32]]
    assert [frame.number for frame in frames] == [0, 1, 2]
    assert [len(frame.executed) for frame in frames] == [0, 16, 16]
    assert all((frame.state == frame.observations[-1].state).all() for frame in frames)


def test_what_is_no_whole_group_is_no_frame(recorded, writer):
    recording = recorded(3)
    events = list(recording.events())
    shorter = [
        one for one in events if not (isinstance(one, Observed) and one.observation.step > 28)
    ]
    cut = _with(recording, shorter)
    assert [frame.number for frame in frames_of(cut, writer.contract)] == [0, 1]


def test_a_gap_is_refused(recorded, writer):
    recording = recorded(3)
    events = [
        one
        for one in recording.events()
        if not (isinstance(one, Observed) and one.observation.step == 12)
    ]
    with pytest.raises(InputError, match="observation of step 16 and none of step 12"):
        list(frames_of(_with(recording, events), writer.contract))


def test_another_instruction_on_the_way_is_refused(recorded, writer):
    recording = recorded(3)
    events = list(recording.events())
    other = Instructed(step=20, instruction="other", keep_memory=True, received_ns=1)
    with pytest.raises(InputError, match="another instruction after step 20; expected one"):
        list(frames_of(_with(recording, [*events[:-1], other, events[-1]]), writer.contract))


def test_single_frames_are_one_observation_each(recorded, writer):
    changed = msgspec.structs.replace(
        writer.contract,
        conventions=msgspec.structs.replace(
            writer.contract.conventions, vae_history="single_frame"
        ),
        memory=msgspec.structs.replace(writer.contract.memory, num_anchors=0, num_gists=0),
    )
    frames = list(frames_of(recorded(3), changed))
    assert [frame.observations[0].step for frame in frames] == [0, 16, 32]


def test_joints_that_are_not_finite_are_refused(recorded, writer):
    def broken(step, state):
        return np.where(np.arange(len(state)) == 3, np.nan, state) if step == 20 else state

    with pytest.raises(InputError, match=r"one\.mcap: joint 3 is nan at step 20"):
        list(frames_of(recorded(3, state_of=broken), writer.contract))


def test_cameras_by_other_names(recorded, writer):
    recording = recorded(1)
    names = {camera: camera for camera in writer.contract.observations.cameras}
    (frame,) = frames_of(recording, writer.contract, {"head": "left_wrist"})
    images = frame.observations[0].images
    np.testing.assert_array_equal(images["head"], images["left_wrist"])
    with pytest.raises(InputError, match="no camera \\['top'\\]; the recording has"):
        list(frames_of(recording, writer.contract, names | {"head": "top"}))
    with pytest.raises(InputError, match="cameras \\['tail'\\] for a contract without"):
        list(frames_of(recording, writer.contract, {"tail": "head"}))


def _with(recording, events):
    """Return a recording with other events."""
    import dataclasses

    return dataclasses.replace(recording, read=lambda: iter(events))
