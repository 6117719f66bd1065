"""`Wan2.2_VAE.pth`: all of upstream's names, the encoder used and the decoder left out by name."""

import math

import pytest
import torch
from tests.fakes.checkpoints import FASTWAM
from tests.fakes.upstream import decoder_shapes, write_fastwam

from memorywam_export.checkpoints.checkpoint import (
    Companions,
    checkpoint_from_argument,
    model_shapes,
)
from memorywam_export.checkpoints.name_maps import shipped_maps
from memorywam_export.checkpoints.presets import contract_from_preset
from memorywam_runtime.errors import CheckpointError


@pytest.fixture
def folder(tmp_path):
    write_fastwam(tmp_path, FASTWAM)
    return tmp_path


def read(folder, change):
    path = folder / "Wan2.2_VAE.pth"
    content = torch.load(path, weights_only=True)
    torch.save(change(content), path)
    return checkpoint_from_argument(
        str(folder / "step_010000.pt"), contract=FASTWAM, companions=Companions(vae_path=path)
    )


def test_at_the_real_width_all_names_and_shapes_are_the_published_ones():
    """196 tensors, 704,688,668 parameters: the published file, counted by others."""
    contract = contract_from_preset("fastwam")
    ours = {n: s for n, s in model_shapes(contract).items() if n.startswith("vae.")}
    shapes = {n.removeprefix("vae."): s for n, s in ours.items()} | decoder_shapes(contract.vae)
    assert len(shapes) == 196
    assert sum(map(math.prod, shapes.values())) == 704_688_668
    assert shapes["encoder.conv1.weight"] == (160, 12, 3, 3, 3)
    assert shapes["encoder.downsamples.1.downsamples.2.time_conv.weight"] == (320, 320, 3, 1, 1)
    assert shapes["encoder.downsamples.2.downsamples.2.time_conv.weight"] == (640, 640, 3, 1, 1)
    assert shapes["encoder.downsamples.1.downsamples.0.residual.2.weight"] == (320, 160, 3, 3, 3)
    assert "encoder.downsamples.0.downsamples.2.time_conv.weight" not in shapes
    assert shapes["encoder.head.2.weight"] == (96, 640, 3, 3, 3)
    assert shapes["conv1.weight"] == (96, 96, 1, 1, 1)
    assert shapes["decoder.upsamples.0.upsamples.3.time_conv.weight"] == (2048, 1024, 3, 1, 1)
    name_map = shipped_maps()["wan22-vae"]
    name_map.check_bijective(ours)
    assert {name_map.upstream_of(name) for name in ours} == {
        name for name in shapes if name.startswith(("encoder.", "conv1."))
    }


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c,
        lambda c: {"model_state": c},
        lambda c: {f"model.{name}": tensor for name, tensor in c.items()},
    ],
    ids=["flat", "model_state", "model."],
)
def test_the_forms_in_which_it_is_found(folder, change):
    checkpoint = read(folder, change)
    assert {w.name for w in checkpoint.weights} == set(model_shapes(FASTWAM))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c | {"extra": torch.ones(1)}, r"left over \[extra\]"),
        (lambda c: c | {"encoder.extra": torch.ones(1)}, r"left over \[encoder.extra\]"),
        (lambda c: c | {"lr": 1}, "'lr' is refused: found int"),
        (lambda c: c | {"conv1.bias": torch.ones(3)}, r"type \[conv1.bias \[3\] \(expected \[12\]"),
        (
            lambda c: {n: t for n, t in c.items() if n != "conv1.bias"},
            r"missing \[vae.conv1.bias\]",
        ),
        (lambda c: {n: t for n, t in c.items() if "encoder" not in n}, "no name map fits, of wan"),
    ],
)
def test_what_is_not_the_encoder_is_refused_by_name(folder, change, message):
    with pytest.raises(CheckpointError, match=message):
        read(folder, change)
