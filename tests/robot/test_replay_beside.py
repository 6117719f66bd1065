"""Episodes of others beside a policy: how far its chunks are from the recorded actions."""

import numpy as np
import pytest
from tests.fakes.recordings import write_folder, write_lerobot

pytest.importorskip("av", reason="needs the extra memorywam[lerobot]")
pytest.importorskip("onnxruntime", reason="needs the extra memorywam[cpu]")

from memorywam_robot.replay import policy_for_replay, replay_exactly
from memorywam_runtime.errors import InputError
from memorywam_runtime.images import png_from_image
from memorywam_runtime.observation import Observation
from memorywam_runtime.opening import Opening, opened
from memorywam_runtime.policy import Policy
from memorywam_runtime.recording import open_recording

CAMERAS = ("left_wrist", "right_wrist", "head")


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


def test_a_folder_has_nothing_to_be_equal_to(tiny_bundle, tmp_path):
    recording = open_recording(write_folder(tmp_path / "one"))
    policy = policy_for_replay(recording, tiny_bundle, Opening())
    with pytest.raises(InputError, match="nothing to be equal to"):
        replay_exactly(policy, recording)
