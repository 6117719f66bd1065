"""The verb replay: the same bits again, or what differs; and others' episodes beside a policy."""

import dataclasses
import io
from typing import Any, cast

import msgspec
import numpy as np
import pytest
from tests.fakes.bundles import copy_of, edit_manifest

from memorywam_runtime.cli import main

pytest.importorskip("mcap", reason="needs the extra memorywam[record]")
pytest.importorskip("mujoco", reason="needs the extra memorywam[sim]")
pytest.importorskip("onnxruntime", reason="needs the extra memorywam[cpu]")

from memorywam_robot.replay import policy_for_replay, replay_exactly
from memorywam_runtime.files import sha256_of
from memorywam_runtime.opening import Opening
from memorywam_runtime.policy import Policy
from memorywam_runtime.recording import Acted, Observed, Remembered, Sent, open_recording
from memorywam_runtime.recordings.recording_mcap import McapRecorder
from memorywam_runtime.recordings.recording_messages import (
    SCHEMA_VERSION,
    StartMessage,
    time_from_ns,
)

CAMERAS = ("left_wrist", "right_wrist", "head")


def rewritten(path, target, change=lambda event: event, *, ends=True, **changes):
    """Write a recording again with some of its events changed; return where."""
    recording = open_recording(path)
    assert recording.provenance is not None
    start = StartMessage(
        schema_version=SCHEMA_VERSION,
        header=recording.header,
        provenance=msgspec.structs.replace(recording.provenance, **changes),
        monotonic=time_from_ns(1),
        wall=time_from_ns(10**18),
    )
    stream = io.BytesIO()
    writer = McapRecorder(stream, start)
    number = 0
    for event in recording.events():
        kept = change(event)
        if kept is not None:
            number += 1
            writer.write(number, kept)
    writer.finish(number + 1, recording.ending if ends else None, 10**12)
    target.write_bytes(stream.getvalue())
    return target


def test_the_same_bits_again(replay, recorded):
    status, data, said = replay(recorded, "--assert-equal")
    assert status == 0
    assert data["is_equal"]
    assert data["num_chunks"] == data["num_equal_chunks"] > 8
    # After every frame, and in the end.
    assert data["num_digests"] == data["num_chunks"] + 1
    assert data["unequal_memory_after_frames"] == []
    assert set(data["worst_difference"].values()) == {0}
    assert data["provenance"]["hidden"] == ["anchors"]
    assert data["header"]["seed"] == 2
    assert data["damage"] is None
    assert "equal; " in said
    assert "left_waist" in said


@pytest.mark.parametrize(
    ("words", "expected"),
    [(("--seed", "3"), True), (("--backend", "eager"), None)],
)
def test_what_is_not_the_same_is_caught(replay, recorded, words, expected):
    status, data, said = replay(recorded, "--assert-equal", *words)
    assert status == 1
    assert "NOT equal" in said
    assert data["num_equal_chunks"] < data["num_chunks"]
    assert max(data["worst_difference"].values()) > 0
    if expected:  # the noise is no part of memory
        assert data["unequal_memory_after_frames"] == []
    else:
        assert "recorded on backend ort: bits may differ" in said
    assert replay(recorded, *words)[0] == 0


def test_one_pixel_is_caught_where_it_is(replay, recorded, tmp_path):
    def change(event):
        if isinstance(event, Observed) and event.observation.step == 36:
            images = {name: image.copy() for name, image in event.observation.images.items()}
            images["head"][5, 7, 1] ^= 0x40
            seen = dataclasses.replace(event.observation, images=images)
            return dataclasses.replace(event, observation=seen)
        return event

    path = rewritten(recorded, tmp_path / "pixel.mcap", change)
    status, data, _ = replay(path, "--assert-equal")
    assert status == 1
    # Steps 36 to 48 make frame 3; all after it remember it.
    assert data["unequal_memory_after_frames"] == list(range(3, data["num_chunks"] + 1))
    assert data["unequal_chunks_after_frames"] == list(range(3, data["num_chunks"]))


def test_another_action_is_caught(replay, recorded, tmp_path):
    def change(event):
        if isinstance(event, Acted) and event.frame == 5:
            event.chunk[3, 6] = np.nextafter(event.chunk[3, 6], 9)
        return event

    status, data, _ = replay(rewritten(recorded, tmp_path / "one.mcap", change), "--assert-equal")
    assert status == 1
    assert data["unequal_chunks_after_frames"] == [5]
    assert data["unequal_memory_after_frames"] == []
    worst = {name: value for name, value in data["worst_difference"].items() if value}
    assert list(worst) == ["left_gripper"]


def test_other_denoising_steps_and_memory_parts_are_replayed(replay, recorded, tmp_path):
    """They are taken from the recording: told otherwise, the bits are others."""
    different: list[dict[str, Any]] = [{"num_denoising_steps": 7}, {"hidden": ()}]
    for changes in different:
        status, data, _ = replay(
            rewritten(recorded, tmp_path / "one.mcap", **changes), "--assert-equal"
        )
        assert status == 1, changes
        assert data["num_equal_chunks"] < data["num_chunks"]


def test_another_contract_is_refused(replay, recorded, tmp_path):
    path = rewritten(recorded, tmp_path / "other.mcap", contract_hash="f" * 64)
    status, data, said = replay(path, "--assert-equal")
    assert status == 2
    assert data is None
    assert "was recorded with contract ffffffffffff..." in said
    assert "expected the same: replay on a bundle of the checkpoint" in said


def test_another_checkpoint_is_caught(replay, recorded, tiny_bundle, tmp_path):
    bundle = copy_of(tiny_bundle, tmp_path)
    weights = bundle / "weights.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 0x80  # the sign of one weight
    weights.write_bytes(bytes(content))

    def change(manifest):
        manifest["files"]["weights.safetensors"]["sha256"] = sha256_of(weights)
        manifest["source"]["sha256"] = "0" * 64

    edit_manifest(bundle, change)
    status, data, said = replay(recorded, "--assert-equal", bundle=bundle)
    assert status == 1
    assert not data["is_equal"]
    assert data["num_equal_chunks"] < data["num_chunks"]
    assert "recorded with another checkpoint" in said


def test_a_damaged_recording_is_equal_as_far_as_it_goes(replay, recorded, tmp_path):
    path = tmp_path / "cut.mcap"
    content = recorded.read_bytes()
    path.write_bytes(content[: len(content) * 2 // 3])
    status, data, said = replay(path, "--assert-equal")
    assert status == 1
    assert not data["is_equal"]
    assert not data["is_whole"]
    assert "equal as far as it goes" in said
    assert "the recording is DAMAGED: the file is cut off" in said
    assert data["num_chunks"] == data["num_equal_chunks"]
    assert replay(path)[0] == 0
    # Without its index it is still all there.
    path.write_bytes(content[:-30])
    status, data, said = replay(path, "--assert-equal")
    assert (status, data["is_equal"]) == (0, True)
    assert "DAMAGED" in said


def test_an_unfinished_recording(replay, recorded, tmp_path):
    path = rewritten(recorded, tmp_path / "one.mcap.part", ends=False)
    status, data, said = replay(path)
    assert status == 0
    assert data["num_digests"] == data["num_chunks"]
    assert "was not finished" in said


def test_executed_actions_go_to_memory_where_it_keeps_them(tiny_bundle, recorded):
    """A contract with action history gets the actions that were sent between the frames."""
    recording = open_recording(recorded)
    policy = policy_for_replay(recording, tiny_bundle, Opening())
    given = []
    conventions = msgspec.structs.replace(policy.contract.conventions, action_history=True)
    contract = msgspec.structs.replace(policy.contract, conventions=conventions)
    remember = policy.remember

    def spy(observations=(), executed=None):
        given.append(executed)
        return remember(observations)

    class WithHistory:
        """The policy, but that its contract keeps actions."""

        def __init__(self):
            self.contract, self.remember = contract, spy

        def __getattr__(self, name):
            return getattr(policy, name)

    replay_exactly(cast("Policy", WithHistory()), recording)
    actions = [one.action for one in recording.events() if isinstance(one, Sent)]
    assert given[0] is None
    for index, executed in enumerate(given[1:]):
        np.testing.assert_array_equal(executed, actions[16 * index : 16 * index + 16])


def test_a_policy_that_refuses_says_why(replay, recorded, tmp_path):
    """A step that is missing is refused by the policy, as it was on the robot."""

    def change(event):
        is_gone = isinstance(event, Observed) and event.observation.step == 20
        return None if is_gone else event

    status, _, said = replay(rewritten(recorded, tmp_path / "gap.mcap", change))
    assert status == 2
    assert "expected step 20" in said


def test_refusals_of_a_policys_recording(replay, recorded, tmp_path):
    status, _, said = replay(recorded, "--cameras", "head=top")
    assert status == 2
    assert "which has the contract's own; leave it out" in said
    assert replay(tmp_path / "nothing.mcap")[0] == 2
    assert replay(recorded, bundle=tmp_path)[0] == 2


def test_the_digest_after_each_frame_is_asked_for(tiny_bundle, tmp_path):
    words = ["run", str(tiny_bundle), "--robot", "sim:recall", "--instruction", "random"]
    assert main([*words, "--record", str(tmp_path)]) == 0
    (path,) = tmp_path.iterdir()
    frames = [one for one in open_recording(path).events() if isinstance(one, Remembered)]
    assert frames
    assert not any(one.memory_digest for one in frames)
    ending = open_recording(path).ending
    assert ending is not None
    assert ending.memory_digest
    # Nothing is written over, and nothing is run before that is said.
    assert main([*words, "--record", str(tmp_path)]) == 2
    assert main([*words, "--record-memory"]) == 2


def test_a_bundle_that_was_edited_is_refused(replay, recorded, tiny_bundle, tmp_path):
    bundle = copy_of(tiny_bundle, tmp_path)
    edit_manifest(bundle, lambda manifest: manifest["contract"].update(trained_frames=5))
    status, _, said = replay(recorded, bundle=bundle)
    assert status == 2
    assert "the contract was edited" in said
