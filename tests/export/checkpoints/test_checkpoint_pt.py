"""Checkpoints in .pt files: every name is used, unused by name, or refused by name."""

import pickle
from typing import Any

import pytest
import torch
from tests.fakes.checkpoints import FASTWAM, TINY, tensors_of, write_stats
from tests.fakes.upstream import write_fastwam

from memorywam_export.bundles.bundle import model_from_weights
from memorywam_export.checkpoints.checkpoint import (
    Companions,
    checkpoint_from_argument,
    model_shapes,
)
from memorywam_export.checkpoints.weights import write_weights
from memorywam_runtime.errors import CheckpointError


@pytest.fixture
def fastwam(tmp_path):
    """A checkpoint as FastWAM saves it: {mot, step, torch_dtype, proprio_encoder}, VAE aside."""
    tensors = write_fastwam(tmp_path, FASTWAM)
    parts: dict[str, Any] = torch.load(tmp_path / "step_010000.pt", weights_only=True)
    tensors["gist_tokens"] = torch.zeros(0, 24)
    return tmp_path, parts, tensors


def read(folder, parts, contract=FASTWAM, *, has_vae_file=True):
    torch.save(parts, folder / "step_010000.pt")
    beside = Companions(vae_path=folder / "Wan2.2_VAE.pth" if has_vae_file else None)
    return checkpoint_from_argument(
        str(folder / "step_010000.pt"), contract=contract, companions=beside
    )


def test_a_fastwam_checkpoint_loads_strictly(fastwam, tmp_path):
    folder, parts, tensors = fastwam
    checkpoint = read(folder, parts)
    assert checkpoint.contract == FASTWAM
    assert checkpoint.name == "step_010000.pt"
    assert len(checkpoint.sha256) == 64
    assert checkpoint.weights_path is None
    assert checkpoint.name_map == "fastwam"
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
    checkpoint = read(folder, {**parts, "vae": vae}, has_vae_file=False)
    assert {w.name for w in checkpoint.weights} == set(model_shapes(FASTWAM))
    with pytest.raises(
        CheckpointError, match=r"holds an encoder, and .* was given too; expected one"
    ):
        read(folder, {**parts, "vae": vae})


def test_files_from_before_torch_1_6_are_read(fastwam):
    folder, parts, _ = fastwam
    torch.save(parts, folder / "old.pt", _use_new_zipfile_serialization=False)
    beside = Companions(vae_path=folder / "Wan2.2_VAE.pth")
    found = checkpoint_from_argument(str(folder / "old.pt"), contract=FASTWAM, companions=beside)
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
    found = read(tmp_path, parts, TINY, has_vae_file=False)
    weights = {weight.name: weight.load() for weight in found.weights}
    assert torch.equal(weights["gist_tokens"], tensors["gist_tokens"])
    del parts["gist_tokens"]
    with pytest.raises(CheckpointError, match=r"missing \[gist_tokens\]; left over \[\]"):
        read(tmp_path, parts, TINY, has_vae_file=False)


def test_trained_gists_are_not_ignored_by_a_contract_without_any(fastwam):
    folder, parts, _ = fastwam
    with pytest.raises(CheckpointError, match=r"missing \[\]; left over \[gist_tokens\]"):
        read(folder, {**parts, "gist_tokens": torch.ones(2, 24)})


MISSING, EXTRA = "mixtures.action.head.bias", "mixtures.action.extra"


def test_missing_left_over_and_misshapen_weights_are_each_named(fastwam):
    folder, parts, _ = fastwam
    del parts["mot"][MISSING]
    parts["mot"][EXTRA] = torch.zeros(1)
    parts["proprio_encoder"]["bias"] = torch.zeros(11)
    with pytest.raises(CheckpointError) as error:
        read(folder, parts)
    assert str(error.value) == (
        f"{folder / 'step_010000.pt'} does not fit contract 'tiny-fastwam' (name map 'fastwam'): "
        f"missing [mot.{MISSING}]; left over [mot.{EXTRA}]; of another shape or type "
        "[proprio_encoder.bias [11] (expected [10])]; `memorywam export --describe` says which "
        "presets have its sizes"
    )


def test_long_lists_are_cut_and_counted(fastwam):
    folder, parts, _ = fastwam
    parts["mot"] |= {f"extra.{i}": torch.zeros(1) for i in range(9)}
    with pytest.raises(
        CheckpointError,
        match=r"left over \[mot.extra.0, mot.extra.1, mot.extra.2, mot.extra.3 and 5 more\]",
    ):
        read(folder, parts)


def test_without_its_encoder_a_checkpoint_is_refused(fastwam):
    folder, parts, _ = fastwam
    with pytest.raises(CheckpointError, match=r"no video encoder: missing \[vae\..* --vae FILE"):
        read(folder, parts, has_vae_file=False)
    del parts["mot"][MISSING]
    with pytest.raises(CheckpointError, match=rf"fit contract .* missing \[mot.{MISSING}, vae\."):
        read(folder, parts, has_vae_file=False)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda p: p.pop("mot"),
            r"found the names \[proprio_encoder.bias, .*no name map fits, of ",
        ),
        (lambda p: p.update(ema={}, lr={"a": 1}), "'lr.a' is refused: found int, not a tensor"),
        (lambda p: p.update(ema={"w": torch.ones(1)}), r"left over \[ema.w\]"),
        (lambda p: p.update(mot=[1]), "no name map fits"),
        (lambda p: p["mot"].update(lr=0.1), "'mot.lr' is refused: found float, not a tensor"),
        (
            lambda p: p["proprio_encoder"].update(weight=None),
            "'proprio_encoder.weight' is refused: found NoneT",
        ),
        (lambda p: p.update(gist_tokens=3), "'gist_tokens' is refused: found int, not a tensor"),
        (lambda p: p.update({"mot.lr": 1, "mot": {**p["mot"], "lr": 2}}), "entries are named 'mot"),
    ],
)
def test_parts_that_are_no_weights_are_refused(fastwam, change, message):
    folder, parts, _ = fastwam
    change(parts)
    with pytest.raises(CheckpointError, match=message):
        read(folder, parts)


def test_an_optimizer_in_the_file_is_left_out_by_name(fastwam):
    folder, parts, tensors = fastwam
    weight = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.AdamW([weight])
    weight.sum().backward()
    optimizer.step()
    found = read(folder, {**parts, "optimizer": optimizer.state_dict()})
    assert {w.name for w in found.weights} == set(tensors)


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
