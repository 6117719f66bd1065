"""The options that name a checkpoint, and all that may lie apart from it."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from memorywam_export.checkpoints.checkpoint import Checkpoint, Companions
    from memorywam_runtime.contract import InferenceContract

__all__ = [
    "CACHE_HELP",
    "CHECKPOINT_HELP",
    "add_checkpoint_options",
    "checkpoint_of",
    "companions_of",
    "contract_of",
]

CHECKPOINT_HELP = "a .pt, a .safetensors file or folder, or random:PRESET[:SEED]"
CACHE_HELP = "FastWAM's cache of text embeddings, <sha256>.t5_len128.wan22ti2v5b.pt"


def add_checkpoint_options(parser: argparse.ArgumentParser) -> None:
    """Declare what a checkpoint may lack."""
    contract = parser.add_mutually_exclusive_group()
    contract.add_argument("--contract", metavar="FILE", help="its contract, if it brings none")
    contract.add_argument("--preset", metavar="NAME", help="the same, of those that ship")
    parser.add_argument("--stats", metavar="FILE", help="dataset_stats.json, if not beside it")
    parser.add_argument("--vae", metavar="FILE", help="Wan2.2_VAE.pth, if not among the weights")
    parser.add_argument(
        "--name-map", metavar="NAME|FILE",
        help="what the weights are called, if that is not recognised",
    )  # fmt: skip
    parser.add_argument("--text-cache", metavar="DIR", help=CACHE_HELP)
    parser.add_argument(
        "--instruction", action="append", default=[], metavar="TEXT",
        help="take this instruction from the text cache; may be repeated",
    )  # fmt: skip


def checkpoint_of(
    args: argparse.Namespace,
    *,
    dtype: "torch.dtype | None" = None,
    of_bundle: "InferenceContract | None" = None,
) -> "Checkpoint":
    """Read the checkpoint that was named.

    Args:
        args: The parsed options.
        dtype: Of random weights; float32 by default.
        of_bundle: Stands in where neither the checkpoint nor an option brings a contract.
    """
    import torch

    from memorywam_export.checkpoints.checkpoint import (
        checkpoint_from_argument,
        contract_path_of,
    )

    contract = contract_of(args)
    brings_own = args.checkpoint.startswith("random:") or (
        contract_path_of(Path(args.checkpoint)).exists()
    )
    return checkpoint_from_argument(
        args.checkpoint,
        contract=contract if brings_own else contract or of_bundle,
        dtype=dtype or torch.float32,
        companions=companions_of(args),
    )


def contract_of(args: argparse.Namespace) -> "InferenceContract | None":
    """Return the contract that was named, if any."""
    from memorywam_export.checkpoints.checkpoint_json import read_contract
    from memorywam_export.checkpoints.presets import contract_from_preset

    if args.preset:
        return contract_from_preset(args.preset)
    if args.contract:
        return read_contract(Path(args.contract))
    return None


def companions_of(args: argparse.Namespace) -> "Companions":
    """Return what was named beside the checkpoint."""
    from memorywam_export.checkpoints.checkpoint import Companions

    return Companions(
        stats_path=Path(args.stats) if args.stats else None,
        vae_path=Path(args.vae) if args.vae else None,
        name_map=args.name_map,
        text_cache=Path(args.text_cache) if args.text_cache else None,
        instructions=tuple(args.instruction),
    )
