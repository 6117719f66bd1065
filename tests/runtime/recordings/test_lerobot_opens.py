"""The real LeRobot opens what is written, without a network, and trains on it.

Its packages take 600 MB and want another torch, so they live in a folder of their own; torchcodec,
which decodes videos for it, finds its FFmpeg in PyAV's wheel.
"""

import os
import re
from pathlib import Path

import pytest

pytest.importorskip("mcap", reason="needs the extra memorywam[record]")
pytest.importorskip("pyarrow", reason="needs the extra memorywam[lerobot]")
pytest.importorskip("av", reason="needs the extra memorywam[lerobot]")

import av
from tests.fakes.package_folders import LEROBOT, packages, program
from tests.fakes.recordings import events_of, mcap_bytes
from tests.fakes.step_recordings import another, episode, recording_of, saw, sent

from memorywam_runtime.cli import main
from memorywam_runtime.recordings.lerobot_dataset import write_dataset

pytestmark = pytest.mark.proof

TORCHCODEC = "torchcodec==0.11.1"
PRELUDE = """
import sys
import numpy as np
import torch
# Its torchvision was built for CUDA and finds none; nothing here detects objects.
for name in ("nms", "qnms"):
    torch.library.define(f"torchvision::{name}", "(Tensor a, Tensor b, float c) -> Tensor")
import lerobot.utils.import_utils as parts
parts._transformers_available = False  # one of its policies is written for an older one
from lerobot.datasets.lerobot_dataset import LeRobotDataset
root = sys.argv[1]
dataset = LeRobotDataset("local/none", root=root)
"""

EQUAL = (
    PRELUDE
    + """
from memorywam_runtime.recording import open_recordings
from memorywam_runtime.recordings.lerobot_rows import EpisodeRows
number = 0
for episode, recording in enumerate(open_recordings(sys.argv[2])):
    for frame, row in enumerate(EpisodeRows(recording)):
        found = dataset[number]
        assert found["episode_index"].item() == episode and found["index"].item() == number
        assert found["frame_index"].item() == frame
        assert found["timestamp"].item() == np.float32(frame / recording.header.control_hz)
        assert found["observation.state"].numpy().tobytes() == row.state.tobytes()
        assert found["action"].numpy().tobytes() == row.action.tobytes()
        assert found["task"] == row.task
        assert found["observed_step"].item() == row.sight.step
        for name, image in row.sight.images.items():
            shown = found["observation.images." + name].numpy().transpose(1, 2, 0)
            assert np.array_equal(np.rint(shown * 255), image), (number, name)
        number += 1
    assert found["next.done"].item() and found["next.success"].item()
assert number == len(dataset) == dataset.meta.total_frames
assert dataset.num_episodes == episode + 1
assert dataset.fps == 10 and dataset.meta.robot_type == "sim:fake"

from lerobot.datasets.compute_stats import aggregate_stats
assert set(dataset.meta.stats) == set(dataset.meta.features)
aggregate_stats([dataset.meta.stats, dataset.meta.stats])  # checks types and shapes
one = LeRobotDataset("local/none", root=root, episodes=[1])
assert one[0]["index"].item() == dataset.meta.episodes[1]["dataset_from_index"]
print("equal", number, dataset.video_backend)
"""
)

TRAIN = (
    PRELUDE
    + """
from lerobot.configs.types import FeatureType
from lerobot.datasets.utils import dataset_to_policy_features
from lerobot.policies.act.configuration_act import ACTConfig
from lerobot.policies.act.modeling_act import ACTPolicy
from lerobot.policies.factory import make_pre_post_processors
features = dataset_to_policy_features(dataset.meta.features)
inputs = {k: v for k, v in features.items() if v.type is not FeatureType.ACTION}
assert set(features) - set(inputs) == {"action"}
assert set(inputs) == {"observation.state", "observation.images.head", "observation.images.wrist"}
config = ACTConfig(
    input_features=inputs, output_features={"action": features["action"]}, chunk_size=4,
    n_action_steps=4, pretrained_backbone_weights=None, dim_model=32, n_heads=2,
    dim_feedforward=32, device="cpu",
)
times = {"action": [step / dataset.fps for step in range(4)]}
dataset = LeRobotDataset("local/none", root=root, delta_timestamps=times)
prepare, _ = make_pre_post_processors(config, dataset_stats=dataset.meta.stats)
policy = ACTPolicy(config)
rates = torch.optim.Adam(policy.parameters(), 1e-3)
torch.manual_seed(0)
losses = []
for batch in [b for _ in range(4) for b in torch.utils.data.DataLoader(dataset, batch_size=8)]:
    loss, _ = policy.forward(prepare(batch))
    rates.zero_grad()
    loss.backward()
    rates.step()
    losses.append(loss.item())
assert np.isfinite(losses).all() and losses[-1] < losses[0], losses
print("trained", losses)
"""
)

ODD = (
    PRELUDE
    + """
assert dataset.fps == 1000 / 60, dataset.fps
tasks = [dataset[number]["task"] for number in range(len(dataset))]
assert tasks == ["press « the » button"] * 3 + ["stop « 😀 »\\n\\u202e"] * 3 + [""], tasks
assert dataset[0]["observation.state"].shape == (3,)
assert not dataset[5]["next.done"].item() and dataset[6]["next.done"].item()
assert "next.success" not in dataset.meta.features
print("odd ok")
"""
)


@pytest.fixture(scope="module")
def lerobot(tmp_path_factory):
    return packages(LEROBOT, tmp_path_factory.mktemp("packages"))


@pytest.fixture(params=["png", "video"])
def form(request, tmp_path, tmp_path_factory, monkeypatch):
    """The option that asks for this form; what LeRobot keeps of it stays here."""
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    if request.param == "png":
        return []
    libraries = tmp_path / "libraries"
    libraries.mkdir()
    for file in (Path(av.__file__).parents[1] / "av.libs").iterdir():
        plain = re.sub(r"-[0-9a-f]{8}(\.so\.\d+).*", r"\1", file.name)
        (libraries / plain).symlink_to(file)
    monkeypatch.setenv("LD_LIBRARY_PATH", str(libraries))
    codec = packages((TORCHCODEC,), tmp_path_factory.mktemp("torchcodec"))
    paths = [str(codec), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    return ["--video"]


@pytest.fixture
def dataset(tmp_path, form):
    source = tmp_path / "recordings"
    source.mkdir()
    for name, frames in (("a.mcap", 2), ("b.mcap", 3), ("c.mcap", 1)):
        (source / name).write_bytes(mcap_bytes(events_of(frames)))
    assert main(["convert", str(source), "--out", str(tmp_path / "set"), *form]) == 0
    return tmp_path / "set", source


def test_every_bit_comes_back(lerobot, dataset, form):
    said = program(EQUAL, lerobot, *dataset)
    assert "equal 24" in said
    assert "torchcodec" in said or not form


def test_a_policy_trains_on_it(lerobot, tmp_path, form):
    recordings = [
        recording_of([saw(0, shape=(64, 64)), *[sent(step) for step in range(1, 9)]], f"{k}.mcap")
        for k in range(3)
    ]
    write_dataset(recordings, tmp_path / "set", as_video=bool(form))
    assert "trained" in program(TRAIN, lerobot, tmp_path / "set")


def test_odd_ones(lerobot, tmp_path, form):
    """Another task on the way, a rate that is no whole number, a damaged one, one of one row."""
    events = episode(6, 2)
    events.insert(4, another(3, "stop « 😀 »\n\u202e", keep_memory=True))
    recordings = [
        recording_of(events, control_hz=1000 / 60, ended=None, damage="cut off"),
        recording_of(episode(1), "two.mcap", control_hz=1000 / 60, instruction=""),
    ]
    write_dataset(recordings, tmp_path / "set", as_video=bool(form))
    assert "odd ok" in program(ODD, lerobot, tmp_path / "set")
