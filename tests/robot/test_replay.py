"""The verb replay: the same bits again, or what differs; and others' episodes beside a policy."""

import dataclasses
import io
import json
from typing import Any, cast

import msgspec
import numpy as np
import pytest
from tests.fakes.bundles import copy_of, edit_manifest
from tests.fakes.recordings import write_folder, write_lerobot

from memorywam_runtime.cli import main

pytest.importorskip("mcap", reason="needs the extra memorywam[record]")
pytest.importorskip("mujoco", reason="needs the extra memorywam[sim]")
pytest.importorskip("onnxruntime", reason="needs the extra memorywam[cpu]")

from memorywam_robot.replay import policy_for_replay, replay_exactly
from memorywam_runtime.errors import InputError
from memorywam_runtime.files import sha256_of
from memorywam_runtime.images import png_from_image
from memorywam_runtime.observation import Observation
from memorywam_runtime.opening import Opening, opened
from memorywam_runtime.policy import Policy
from memorywam_runtime.recording import Acted, Observed, Remembered, Sent, open_recording
from memorywam_runtime.recording_mcap import McapRecorder
from memorywam_runtime.recording_messages import SCHEMA_VERSION, StartMessage, time_from_ns

CAMERAS = ("left_wrist", "right_wrist", "head")


@pytest.fixture(scope="module")
def recorded(tiny_bundle, tmp_path_factory):
    """One simulated episode, recorded by the verb run."""
    directory = tmp_path_factory.mktemp("recorded")
    assert main(
        ["run", str(tiny_bundle), "--robot", "sim:recall", "--instruction", "random", "--seed", "2",
         "--threads", "1", "--hide", "anchors", "--record", str(directory), "--record-memory"]
    ) == 0  # fmt: skip
    (path,) = directory.iterdir()
    return path


@pytest.fixture
def replay(tiny_bundle, tmp_path, capsys):
    """Call the verb; return status, JSON data if any, and what was said."""

    def call(recording, *words, bundle=tiny_bundle):
        path = tmp_path / "result.json"
        path.unlink(missing_ok=True)
        status = main(
            ["replay", str(recording), "--bundle", str(bundle), *words, "--json", str(path)]
        )
        data = json.loads(path.read_bytes())["data"] if path.exists() else None
        said = capsys.readouterr()
        return status, data, said.out + said.err

    return call


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


@pytest.mark.parametrize("video", [True, False])
def test_a_lerobot_dataset_beside_the_policy(replay, tmp_path, video):
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (48, 64, 3), np.uint8)
    root = write_lerobot(
        tmp_path / "set", lengths=(5, 40), video=video, dim=14, cameras=("top", *CAMERAS[:2]),
        image_of=lambda *_: picture,
    )  # fmt: skip
    words = ("--episode", "1", "--instruction", "random", "--cameras", "head=top")
    status, data, said = replay(root, *words)
    assert status == 0
    assert data["num_chunks"] == 3  # after steps 0, 16 and 32; the last of 8 actions
    assert data["kind"] == "lerobot"
    assert data["header"]["instruction"] == "put it down"
    assert len(data["mean_error_by_step"]) == 16
    errors = list(data["mean_error"].values())
    assert len(errors) == 14
    assert all(
        0 < mean <= worst for mean, worst in zip(errors, data["worst_error"].values(), strict=True)
    )
    assert "3 chunks beside the recorded actions" in said
    assert replay(root, *words)[1] == data


def test_errors_are_those_of_the_actions(tiny_bundle, replay, tmp_path):
    """Against the policy's own chunks the error is nothing; one number away, it is that."""
    root = tmp_path / "folder"
    picture = np.full((24, 20, 3), 9, np.uint8)
    for camera in CAMERAS:
        (root / "images" / camera).mkdir(parents=True)
        for step in range(0, 33, 4):
            (root / "images" / camera / f"{step}.png").write_bytes(png_from_image(picture))
    states = np.random.default_rng(1).standard_normal((33, 14))
    policy = Policy(opened(tiny_bundle, Opening(num_threads=1)))
    policy.reset("random", seed=6)
    chunks = []
    for _ in range(2):
        steps = policy.expected_steps()
        images = dict.fromkeys(map(str, CAMERAS), picture)
        policy.remember([Observation(images=images, state=states[s], step=s) for s in steps])
        chunks.append(policy.act(states[steps[-1]]))
    actions = np.concatenate(chunks)
    actions[20, 2] += 0.25
    np.save(root / "states.npy", states)
    np.save(root / "actions.npy", actions)
    (root / "recording.json").write_text('{"instruction": "random", "control_hz": 50}')
    status, data, said = replay(root, "--seed", "6", "--threads", "1")
    assert status == 0
    worst = list(data["worst_error"].values())
    assert worst[2] == pytest.approx(0.25)
    assert max(worst[:2] + worst[3:]) == 0
    assert list(data["mean_error"].values())[2] == pytest.approx(0.25 / 32)
    assert data["mean_error_by_step"][4] == pytest.approx(0.25 / 2 / 14)
    assert "recorded at 50 steps a second, the contract is for 10" in said


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--assert-equal",), "nothing can be equal to it; leave out --assert-equal"),
        ((), "states of 3 numbers and actions of 3; the contract"),
        (("--episode", "1"), "which holds one; expected 0"),
        (("--seed", "-1"), "found --seed -1"),
        (("--cameras", "head"), "found 'head' in --cameras; expected NAME=RECORDED"),
    ],
)
def test_refusals_of_a_folder(replay, tmp_path, words, expected):
    status, data, said = replay(write_folder(tmp_path / "one"), *words)
    assert status == 2
    assert data is None
    assert expected in said
    assert "Traceback" not in said


def test_cameras_and_steps_that_are_missing(replay, tmp_path):
    root = write_lerobot(
        tmp_path / "set", lengths=(20,), video=False, dim=14, cameras=("top", *CAMERAS[:2]),
        image_of=lambda *_: np.zeros((4, 4, 3), np.uint8),
    )  # fmt: skip
    instruct = ("--instruction", "random")
    status, _, said = replay(root, *instruct)
    assert status == 2
    assert "no camera ['head']; the recording has ['left_wrist', 'right_wrist', 'top']" in said
    status, _, said = replay(root, *instruct, "--cameras", "head=top,rear=top")
    assert status == 2
    assert "cameras ['rear'] for a contract without" in said
    assert "does not hold the instruction 'pick it up'" in replay(root, "--cameras", "head=top")[2]


def test_refusals_of_a_policys_recording(replay, recorded, tmp_path):
    status, _, said = replay(recorded, "--cameras", "head=top")
    assert status == 2
    assert "which has the contract's own; leave it out" in said
    assert replay(tmp_path / "nothing.mcap")[0] == 2
    assert replay(recorded, bundle=tmp_path)[0] == 2


def test_a_folder_has_nothing_to_be_equal_to(tiny_bundle, tmp_path):
    recording = open_recording(write_folder(tmp_path / "one"))
    policy = policy_for_replay(recording, tiny_bundle, Opening())
    with pytest.raises(InputError, match="nothing to be equal to"):
        replay_exactly(policy, recording)


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
