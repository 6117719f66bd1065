"""Checkpoints as folders, safetensors and random weights: what each needs beside its tensors."""

import msgspec
import numpy as np
import pytest
import torch
from safetensors.numpy import save_file as save_numpy
from safetensors.torch import load_file, save_file
from tests.fakes.checkpoints import FASTWAM, TINY, tensors_of, write_stats

from memorywam_export.bundles.bundle import model_from_weights
from memorywam_export.checkpoints.checkpoint import (
    Companions,
    checkpoint_from_argument,
    model_shapes,
)
from memorywam_export.checkpoints.weights import write_weights
from memorywam_runtime.contract import contract_to_json
from memorywam_runtime.errors import CheckpointError, ContractError, InputError


@pytest.fixture
def ours(tmp_path):
    """A folder as this project publishes one."""
    folder = tmp_path / "ours"
    folder.mkdir()
    save_file(tensors_of(TINY), folder / "model.safetensors")
    (folder / "contract.json").write_bytes(contract_to_json(TINY))
    write_stats(folder, TINY)
    rows = np.random.default_rng(0).standard_normal((4, TINY.text_dim)).astype(np.float32)
    save_numpy({"put it back": rows}, folder / "prompts.safetensors")
    return folder


def test_a_folder_brings_all_that_it_needs(ours):
    checkpoint = checkpoint_from_argument(str(ours))
    assert checkpoint.contract == TINY
    assert checkpoint.weights_path == ours / "model.safetensors"
    assert list(checkpoint.prompts) == ["put it back"]
    assert checkpoint.name_map == "memorywam"
    found = {weight.name: weight.load() for weight in checkpoint.weights}
    for name, tensor in load_file(ours / "model.safetensors").items():
        assert torch.equal(found[name], tensor)
    by_file = checkpoint_from_argument(str(ours / "model.safetensors"))
    assert by_file.contract == TINY
    assert by_file.sha256 == checkpoint.sha256


def test_weights_that_are_unused_are_not_copied_into_a_bundle(ours):
    tensors = tensors_of(TINY) | {"mixtures.video.head.head.bias": torch.zeros(1)}
    save_file(tensors, ours / "model.safetensors")
    checkpoint = checkpoint_from_argument(str(ours))
    assert checkpoint.weights_path is None
    assert {w.name for w in checkpoint.weights} == set(model_shapes(TINY))


def test_a_file_without_the_empty_gist_bank_is_not_copied_either(tmp_path):
    """One unused tensor more and one empty tensor less: the counts are equal, the names not."""
    tensors = tensors_of(FASTWAM) | {"mixtures.video.head.head.bias": torch.zeros(1)}
    del tensors["gist_tokens"]
    save_file(tensors, tmp_path / "model.safetensors")
    (tmp_path / "contract.json").write_bytes(contract_to_json(FASTWAM))
    write_stats(tmp_path, FASTWAM)
    checkpoint = checkpoint_from_argument(str(tmp_path))
    assert checkpoint.weights_path is None
    write_weights(tmp_path / "w.safetensors", checkpoint.weights)
    model_from_weights(checkpoint, tmp_path / "w.safetensors")


@pytest.mark.parametrize("damage", [b"", b"abc", b"\xff" * 100])
def test_damaged_safetensors_are_refused(ours, damage):
    (ours / "model.safetensors").write_bytes(damage)
    with pytest.raises(CheckpointError, match=r"model.safetensors is not a whole safetensors file"):
        checkpoint_from_argument(str(ours))


def test_a_truncated_safetensors_is_refused(ours):
    path = ours / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(CheckpointError, match="is not a whole safetensors file"):
        checkpoint_from_argument(str(ours))


def test_damaged_prompts_are_refused(ours):
    (ours / "prompts.safetensors").write_bytes(b"abc")
    with pytest.raises(
        CheckpointError, match=r"prompts.safetensors is not a whole safetensors file"
    ):
        checkpoint_from_argument(str(ours))


@pytest.mark.parametrize(
    "rows",
    [np.zeros((4, 9), np.float32), np.zeros(10, np.float32), np.full((4, 10), np.nan, np.float32)],
    ids=["width", "flat", "nan"],
)
def test_prompts_that_do_not_fit_are_named(ours, rows):
    save_numpy({"put it back": rows}, ours / "prompts.safetensors")
    with pytest.raises(CheckpointError, match=r"'put it back' is .*; expected finite rows of 10"):
        checkpoint_from_argument(str(ours))


def test_another_contract_than_the_checkpoints_is_refused(ours):
    changed = msgspec.structs.replace(TINY.conventions, recent_includes_current=False)
    other = msgspec.structs.replace(TINY, name="other", conventions=changed)
    with pytest.raises(
        CheckpointError, match=r"contract.json is contract .*, but .*\('other'\) was"
    ):
        checkpoint_from_argument(str(ours), contract=other)
    same = msgspec.structs.replace(TINY, name="another name")
    assert checkpoint_from_argument(str(ours), contract=same).contract == TINY


def test_without_a_contract_the_conventions_are_unknown(ours):
    (ours / "contract.json").unlink()
    with pytest.raises(
        CheckpointError, match=r"has no contract.json.*pass --contract FILE or --pre"
    ):
        checkpoint_from_argument(str(ours))
    assert checkpoint_from_argument(str(ours), contract=TINY).contract == TINY


def test_a_damaged_contract_is_refused(ours):
    (ours / "contract.json").write_bytes(b"\xff")
    with pytest.raises(ContractError, match="not an inference contract"):
        checkpoint_from_argument(str(ours))


@pytest.mark.parametrize("content", [None, b"", b"\xff", b"[" * 99999])
def test_statistics_that_cannot_be_read_are_named(ours, content):
    path = ours / "dataset_stats.json"
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"cannot read .*dataset_stats.json: .*pass --stats"):
        checkpoint_from_argument(str(ours))


def test_statistics_may_lie_elsewhere(ours, tmp_path):
    (ours / "dataset_stats.json").rename(tmp_path / "mine.json")
    checkpoint = checkpoint_from_argument(
        str(ours), companions=Companions(stats_path=tmp_path / "mine.json")
    )
    assert checkpoint.normalization.action.clamp == 5.0


def test_statistics_named_after_the_checkpoint_come_first(ours):
    stats = (ours / "dataset_stats.json").read_text()
    (ours / "model_dataset_stats.json").write_text(stats.replace("2.0", "4.0"))
    checkpoint = checkpoint_from_argument(str(ours))
    assert checkpoint.normalization.state.scale[0] == pytest.approx(0.25)


def test_types_that_no_graph_takes_are_refused(ours):
    tensors = tensors_of(TINY)
    tensors["proprio_encoder.bias"] = tensors["proprio_encoder.bias"].to(torch.int64)
    save_file(tensors, ours / "model.safetensors")
    with pytest.raises(
        CheckpointError, match=r"of another shape or type \[proprio_encoder.bias torch.int64 \(exp"
    ):
        checkpoint_from_argument(str(ours))


def test_what_is_no_checkpoint_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match=r"no checkpoint at .*nowhere; expected a .pt, a"):
        checkpoint_from_argument(str(tmp_path / "nowhere"), contract=TINY)
    (tmp_path / "model.onnx").write_bytes(b"")
    with pytest.raises(
        CheckpointError, match=r"found suffix '.onnx'; expected .pt, .pth or .safetensors"
    ):
        checkpoint_from_argument(str(tmp_path / "model.onnx"), contract=TINY)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "step_1.pt").write_bytes(b"")
    with pytest.raises(
        CheckpointError, match=r"has no model.safetensors; found \[step_1.pt\]; nam"
    ):
        checkpoint_from_argument(str(tmp_path / "folder"), contract=TINY)


def test_random_checkpoints_are_the_same_for_the_same_seed():
    first, same, other = (
        checkpoint_from_argument(f"random:tiny{seed}") for seed in ("", ":0", ":1")
    )
    for a, b, c in zip(first.weights, same.weights, other.weights, strict=True):
        assert a.name == b.name == c.name
        assert torch.equal(a.load(), b.load())
    assert not torch.equal(first.weights[0].load(), other.weights[0].load())
    np.testing.assert_array_equal(first.prompts["random"], same.prompts["random"])


@pytest.mark.parametrize("seed", ["x", "-1", "1.5", "0:1"])
def test_a_seed_that_is_no_number_is_refused(seed):
    with pytest.raises(InputError, match=f"found seed '{seed}' in 'random:tiny:{seed}'; expected"):
        checkpoint_from_argument(f"random:tiny:{seed}")


def test_random_checkpoints_know_their_contract():
    with pytest.raises(ContractError, match="unknown preset 'huge'; available presets"):
        checkpoint_from_argument("random:huge")
    with pytest.raises(CheckpointError, match=r"'random:tiny' is contract .*'tiny-fastwam'\) was"):
        checkpoint_from_argument("random:tiny", contract=FASTWAM)
    assert checkpoint_from_argument("random:tiny", contract=TINY).contract == TINY
