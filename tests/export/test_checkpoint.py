"""Checkpoints of every family: every name is used, unused by name, or refused by name."""

import json
import pickle
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from safetensors.numpy import save_file as save_numpy
from safetensors.torch import load_file, save_file

from memorywam_export.bundle import model_from_weights
from memorywam_export.checkpoint import checkpoint_from_argument, is_unused, model_shapes
from memorywam_export.presets import PRESETS, contract_from_preset
from memorywam_export.weights import random_weights, write_weights
from memorywam_runtime.contract import contract_to_json
from memorywam_runtime.errors import CheckpointError, ContractError, InputError

TINY = contract_from_preset("tiny")
FASTWAM = contract_from_preset("tiny-fastwam")


def tensors_of(contract, dtype=torch.float32):
    return {w.name: w.load() for w in random_weights(model_shapes(contract).items(), dtype, 0)}


def write_stats(folder, contract):
    def group(size):
        return {"joint": {"global_mean": [0.5] * size, "global_std": [2.0] * size}}

    stats = {
        "state": group(contract.actions.state_dim),
        "action": group(contract.actions.action_dim),
    }
    (folder / "dataset_stats.json").write_text(json.dumps(stats))


@pytest.fixture
def fastwam(tmp_path):
    """A checkpoint as FastWAM saves it: {mot, step, torch_dtype, proprio_encoder}, VAE aside."""
    tensors = tensors_of(FASTWAM)
    parts: dict[str, Any] = {
        "mot": {n: t for n, t in tensors.items() if n.startswith("mixtures.")},
        "proprio_encoder": {
            n.removeprefix("proprio_encoder."): t
            for n, t in tensors.items()
            if n.startswith("proprio_encoder.")
        },
        "step": 10_000,
        "torch_dtype": "torch.bfloat16",
    }
    # What upstream's state dict has beside: the video head, which predicts pictures.
    parts["mot"] |= {
        "mixtures.video.head.head.weight": torch.zeros(24, 24),
        "mixtures.video.head.head.bias": torch.zeros(24),
        "mixtures.video.head.modulation": torch.zeros(1, 2, 24),
    }
    vae = {n.removeprefix("vae."): t for n, t in tensors.items() if n.startswith("vae.")}
    vae |= {
        "conv2.weight": torch.zeros(6, 6, 1, 1, 1),
        "conv2.bias": torch.zeros(6),
        "decoder.conv1.weight": torch.zeros(8, 6, 3, 3, 3),
        "decoder.head.0.gamma": torch.zeros(8, 1, 1, 1),
    }
    torch.save(vae, tmp_path / "Wan2.2_VAE.pth")
    write_stats(tmp_path, FASTWAM)
    return tmp_path, parts, tensors


def read(folder, parts, contract=FASTWAM, **options):
    torch.save(parts, folder / "step_010000.pt")
    return checkpoint_from_argument(
        str(folder / "step_010000.pt"),
        contract=contract,
        **{"vae_path": folder / "Wan2.2_VAE.pth"} | options,
    )


def test_a_fastwam_checkpoint_loads_strictly(fastwam, tmp_path):
    folder, parts, tensors = fastwam
    checkpoint = read(folder, parts)
    assert checkpoint.contract == FASTWAM
    assert checkpoint.name == "step_010000.pt"
    assert len(checkpoint.sha256) == 64
    assert checkpoint.weights_path is None
    assert checkpoint.prompts == {}
    assert checkpoint.normalization.state.scale[0] == pytest.approx(0.5)
    found = {weight.name: weight.load() for weight in checkpoint.weights}
    assert set(found) == set(tensors)
    for name, tensor in tensors.items():
        assert torch.equal(found[name], tensor), name
    write_weights(tmp_path / "w.safetensors", checkpoint.weights)
    model = model_from_weights(checkpoint, tmp_path / "w.safetensors")
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, tensors[name]), name


def test_a_fastwam_checkpoint_may_bring_its_encoder(fastwam):
    folder, parts, _ = fastwam
    vae = torch.load(folder / "Wan2.2_VAE.pth", weights_only=True)
    checkpoint = read(folder, {**parts, "vae": vae}, vae_path=None)
    assert {w.name for w in checkpoint.weights} == set(model_shapes(FASTWAM))
    with pytest.raises(
        CheckpointError, match=r"holds an encoder, and .* was given too; expected one"
    ):
        read(folder, {**parts, "vae": vae})


def test_files_from_before_torch_1_6_are_read(fastwam):
    folder, parts, _ = fastwam
    torch.save(parts, folder / "old.pt", _use_new_zipfile_serialization=False)
    found = checkpoint_from_argument(
        str(folder / "old.pt"), contract=FASTWAM, vae_path=folder / "Wan2.2_VAE.pth"
    )
    assert len(found.weights) == len(model_shapes(FASTWAM))


def test_gist_tokens_are_a_part_of_their_own(tmp_path):
    tensors = tensors_of(TINY)
    write_stats(tmp_path, TINY)
    parts = {
        "mot": {n: t for n, t in tensors.items() if n.startswith("mixtures.")},
        "proprio_encoder": {n: tensors[f"proprio_encoder.{n}"] for n in ("weight", "bias")},
        "vae": {n[4:]: t for n, t in tensors.items() if n.startswith("vae.")},
        "gist_tokens": tensors["gist_tokens"],
    }
    found = read(tmp_path, parts, TINY, vae_path=None)
    weights = {weight.name: weight.load() for weight in found.weights}
    assert torch.equal(weights["gist_tokens"], tensors["gist_tokens"])
    del parts["gist_tokens"]
    with pytest.raises(CheckpointError, match=r"missing \[gist_tokens\]; left over \[\]"):
        read(tmp_path, parts, TINY, vae_path=None)


def test_trained_gists_are_not_ignored_by_a_contract_without_any(fastwam):
    folder, parts, _ = fastwam
    with pytest.raises(CheckpointError, match=r"missing \[\]; left over \[gist_tokens\]"):
        read(folder, {**parts, "gist_tokens": torch.ones(2, 24)})


def test_only_what_inference_never_reads_is_unused():
    for preset in PRESETS.values():
        assert not any(is_unused(name) for name in model_shapes(preset))


MISSING, EXTRA, WRONG = "mixtures.action.head.bias", "mixtures.action.extra", "proprio_encoder.bias"


def test_missing_left_over_and_misshapen_weights_are_each_named(fastwam):
    folder, parts, _ = fastwam
    del parts["mot"][MISSING]
    parts["mot"][EXTRA] = torch.zeros(1)
    parts["proprio_encoder"]["bias"] = torch.zeros(11)
    with pytest.raises(CheckpointError) as error:
        read(folder, parts)
    assert str(error.value) == (
        f"{folder / 'step_010000.pt'} does not fit contract 'tiny-fastwam': missing [{MISSING}]; "
        f"left over [{EXTRA}]; of another shape [{WRONG} [11] (expected [10])]"
    )


def test_long_lists_are_cut_and_counted(fastwam):
    folder, parts, _ = fastwam
    parts["mot"] |= {f"extra.{i}": torch.zeros(1) for i in range(9)}
    with pytest.raises(
        CheckpointError, match=r"left over \[extra.0, extra.1, extra.2, extra.3 and 5 more\]"
    ):
        read(folder, parts)


def test_without_its_encoder_a_checkpoint_is_refused(fastwam):
    folder, parts, _ = fastwam
    with pytest.raises(CheckpointError, match=r"missing \[vae\..* more\]; left over \[\]"):
        read(folder, parts, vae_path=None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: p.pop("mot"), r"found the keys \['proprio_encoder', .*expected a FastWAM check"),
        (lambda p: p.update(optimizer={}), r"unknown parts \['optimizer'\]; refused by name"),
        (lambda p: p.update(mot=[1]), "found list; expected tensors"),
        (lambda p: p["mot"].update(lr=0.1), "'lr': found float, not a tensor"),
        (
            lambda p: p["proprio_encoder"].update(weight=None),
            "'proprio_encoder.weight': found NoneT",
        ),
        (lambda p: p.update(gist_tokens=3), "'gist_tokens': found int, not a tensor"),
    ],
)
def test_parts_that_are_no_weights_are_refused(fastwam, change, message):
    folder, parts, _ = fastwam
    change(parts)
    with pytest.raises(CheckpointError, match=message):
        read(folder, parts)


class Evil:
    def __reduce__(self):
        return (print, ("this ran",))


def test_a_pickled_object_is_refused_and_never_run(fastwam, capsys):
    folder, parts, _ = fastwam
    with pytest.raises(CheckpointError, match=r"cannot be read as plain tensors.*would run code"):
        read(folder, {**parts, "step": Evil()})
    (folder / "plain.pt").write_bytes(pickle.dumps({"mot": Evil()}))
    with pytest.raises(CheckpointError, match="cannot be read as plain tensors"):
        checkpoint_from_argument(str(folder / "plain.pt"), contract=FASTWAM)
    assert "this ran" not in capsys.readouterr().out


@pytest.mark.parametrize("cut", [0, 10, 0.5, -1])
def test_a_damaged_pt_is_refused(fastwam, cut):
    folder, parts, _ = fastwam
    read(folder, parts)
    path = folder / "step_010000.pt"
    content = path.read_bytes()
    path.write_bytes(content[: int(cut * len(content)) if isinstance(cut, float) else cut])
    with pytest.raises(CheckpointError, match="cannot be read as plain tensors"):
        checkpoint_from_argument(str(path), contract=FASTWAM)


def test_a_pt_that_is_no_dictionary_is_refused(fastwam):
    folder, _, _ = fastwam
    with pytest.raises(CheckpointError, match="found list; expected a dictionary"):
        read(folder, [1, 2])


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
    checkpoint = checkpoint_from_argument(str(ours), stats_path=tmp_path / "mine.json")
    assert checkpoint.normalization.action.clamp == 5.0


def test_what_is_no_checkpoint_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match=r"no checkpoint at .*nowhere; expected a .pt, a"):
        checkpoint_from_argument(str(tmp_path / "nowhere"), contract=TINY)
    (tmp_path / "model.onnx").write_bytes(b"")
    with pytest.raises(
        CheckpointError, match=r"found suffix '.onnx'; expected .pt or .safetensors"
    ):
        checkpoint_from_argument(str(tmp_path / "model.onnx"), contract=TINY)
    (tmp_path / "folder").mkdir()
    with pytest.raises(CheckpointError, match=r"model.safetensors is not a whole safetensors file"):
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
