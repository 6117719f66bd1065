"""Every graph is the same in ONNX as in torch: both ways to write memory, other conventions."""

import msgspec
import numpy as np
import pytest
import torch
from tests.fakes.episodes import contract_with, identity
from tests.fakes.rungs import NEWEST_OPSET

from memorywam_export.bundles.bundle import ExportOptions, export_bundle
from memorywam_export.checkpoints.checkpoint import Checkpoint, model_shapes
from memorywam_export.checkpoints.weights import random_weights
from memorywam_export.verify.verify_report import VerifyOptions, verify_bundle

CONTRACTS = {
    "fastwam": contract_with("tiny-fastwam"),
    "history": contract_with(
        "tiny",
        action_history=True,
        proprio_in_video_context=True,
        visual_sees_own_gist=True,
        recent_includes_current=False,
        vae_history="windowed",
        gist_timestep=500.0,
    ),
}
NUM_FRAMES = 8


def random_checkpoint(contract, seed=0):
    weights = random_weights(model_shapes(contract).items(), torch.float32, seed)
    prompt = np.random.default_rng(seed).standard_normal((3, contract.text_dim))
    return Checkpoint(
        name="random",
        sha256="",
        contract=msgspec.structs.replace(contract, name="test"),
        weights=tuple(weights),
        normalization=identity(contract),
        prompts={"go": prompt.astype(np.float32)},
        weights_path=None,
    )


# Both forms of memory, and both contracts; the other two of their pairs are left to the proofs.
CASES = [
    pytest.param(
        name,
        opset,
        marks=[pytest.mark.proof] if (name == "fastwam") != (opset == NEWEST_OPSET) else [],
    )
    for name in CONTRACTS
    for opset in sorted({NEWEST_OPSET, 20})
]


@pytest.mark.parametrize(("name", "opset"), CASES)
def test_every_graph_is_the_same_in_onnx(name, opset, tmp_path):
    checkpoint = random_checkpoint(CONTRACTS[name])
    # action_denoise never writes memory: it is the same graph in both forms.
    extra = ("action_denoise",) if name == "history" and opset == NEWEST_OPSET else ()
    options = ExportOptions(opset=opset, max_frames=32, graphs=extra)
    manifest = export_bundle(checkpoint, tmp_path / "bundle", options)
    assert manifest.cache_write == ("in_place" if opset == 24 else "copy")
    checks, data = verify_bundle(
        tmp_path / "bundle", checkpoint, VerifyOptions(num_frames=NUM_FRAMES)
    )
    assert [check for check in checks if not check.ok] == []
    assert set(data["graphs"]) == set(manifest.graphs)
    assert max(graph["max_abs"] for graph in data["graphs"].values()) <= 1e-4
    history = {n for n in data["memory"] if n.startswith("history")}
    assert len(history) == (6 if name == "history" else 0)
