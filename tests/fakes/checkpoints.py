"""The tensors and statistics of tiny checkpoints."""

import json
from pathlib import Path

import torch

from memorywam_export.checkpoints.checkpoint import model_shapes
from memorywam_export.checkpoints.presets import contract_from_preset
from memorywam_export.checkpoints.weights import random_weights
from memorywam_runtime.contract import InferenceContract

__all__ = ["FASTWAM", "TINY", "tensors_of", "write_stats"]

TINY = contract_from_preset("tiny")
FASTWAM = contract_from_preset("tiny-fastwam")


def tensors_of(
    contract: InferenceContract, dtype: torch.dtype = torch.float32
) -> dict[str, torch.Tensor]:
    """Return random tensors of every weight that a contract's model has."""
    return {w.name: w.load() for w in random_weights(model_shapes(contract).items(), dtype, 0)}


def write_stats(folder: Path, contract: InferenceContract) -> None:
    """Write dataset statistics of a contract's sizes."""

    def group(size: int) -> dict[str, dict[str, list[float]]]:
        return {"joint": {"global_mean": [0.5] * size, "global_std": [2.0] * size}}

    stats = {
        "state": group(contract.actions.state_dim),
        "action": group(contract.actions.action_dim),
    }
    (folder / "dataset_stats.json").write_text(json.dumps(stats))
