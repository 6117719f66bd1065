"""The contracts that ship: listed, or written to be changed; torch is not waited for."""

from pathlib import Path

import msgspec

from memorywam_export.checkpoints.presets import PRESETS
from memorywam_runtime.contract import InferenceContract, contract_to_json
from memorywam_runtime.errors import InputError
from memorywam_runtime.files import atomic_write
from memorywam_runtime.report import Outcome

__all__ = ["contract_outcome", "presets_outcome"]


def presets_outcome() -> Outcome:
    """List the contracts that ship."""
    return Outcome(
        ok=True,
        headers=("preset", "hash", "layers", "video", "action", "mosaic", "tokens", "memory"),
        rows=[
            (
                name,
                c.hash[:12],
                c.num_layers,
                f"{c.video.hidden}/{c.video.ffn}",
                f"{c.action.hidden}/{c.action.ffn}",
                f"{c.observations.height} x {c.observations.width}",
                c.num_visual,
                f"{c.memory.num_anchors}+{c.memory.num_recent}, {c.memory.num_gists} gist",
            )
            for name, c in PRESETS.items()
        ],
        data={
            "presets": {
                name: {"hash": c.hash, "contract": msgspec.to_builtins(c)}
                for name, c in PRESETS.items()
            }
        },
        note="use one with --preset NAME, or as random:NAME[:SEED]; --preset NAME "
        "--write-contract FILE writes all its fields, to be changed",
    )


def contract_outcome(contract: InferenceContract, path: Path) -> Outcome:
    """Write a contract, to be changed by hand, and say what becomes of it.

    Raises:
        InputError: the file is there; somebody may have changed it.
    """
    if path.exists():
        raise InputError(f"{path} exists, and may have been changed; name another, or remove it")
    atomic_write(path, contract_to_json(contract))
    return Outcome(
        ok=True,
        data={"contract": str(path), "contract_hash": contract.hash},
        note=f"{path}: contract '{contract.name}' {contract.hash[:12]}; make it what the training "
        "did, give it a name of its own, and pass it with --contract FILE, or leave it beside the "
        "weights as contract.json",
    )
