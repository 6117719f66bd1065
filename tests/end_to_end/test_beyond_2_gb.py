"""A checkpoint of the real widths, cut to three layers: 3.4 GB, exported, verified and run."""

import json

import msgspec
import numpy as np
import pytest
import torch
from safetensors.numpy import save_file as save_arrays
from safetensors.torch import save_file as save_tensors

from memorywam_export.checkpoints.checkpoint import model_shapes
from memorywam_export.checkpoints.presets import contract_from_preset
from memorywam_export.checkpoints.weights import random_weights
from memorywam_runtime.cli import main
from memorywam_runtime.contract import contract_to_json

pytestmark = [pytest.mark.proof, pytest.mark.timeout(1800)]
LIMIT = 1 << 31
"""Bytes that one message of protobuf holds, and an offset of 32 bits reaches."""


@pytest.fixture
def checkpoint(tmp_path):
    """Small images: what they cost here is time alone."""
    real = contract_from_preset("robotwin-384x320")
    views = msgspec.structs.replace(real.observations, height=96, width=64)
    contract = msgspec.structs.replace(real, name="three-layers", num_layers=3, observations=views)
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    (folder / "contract.json").write_bytes(contract_to_json(contract))
    unit = {"default": {"global_mean": [0.0] * 14, "global_std": [1.0] * 14}}
    (folder / "dataset_stats.json").write_text(json.dumps({"action": unit, "state": unit}))
    shapes = model_shapes(contract).items()
    weights = {one.name: one.load() for one in random_weights(shapes, torch.float32, 0)}
    save_tensors(weights, folder / "model.safetensors")
    prompt = np.random.default_rng(0).standard_normal((8, contract.text_dim))
    save_arrays({"random": prompt.astype(np.float32)}, folder / "prompts.safetensors")
    assert (folder / "model.safetensors").stat().st_size > LIMIT
    return folder


def test_it_is_exported_verified_and_run(checkpoint, tmp_path):
    bundle, told = tmp_path / "bundle", tmp_path / "told.json"
    assert main(["export", str(checkpoint), "--out", str(bundle), "--max-frames", "16"]) == 0
    assert (bundle / "weights.safetensors").stat().st_size > LIMIT
    assert main(["verify", str(bundle), "--checkpoint", str(checkpoint), "--frames", "3"]) == 0
    bench = ["bench", str(bundle), "--frames", "2", "--repeat", "1", "--json", str(told)]
    assert main(bench) == 0
    assert json.loads(told.read_text())["ok"] is True
