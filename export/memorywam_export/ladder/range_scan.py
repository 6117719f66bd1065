"""How large activations and weights get, site by site: do they fit float16?"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import msgspec
import torch
from torch import nn

from memorywam_export.checkpoints.checkpoint import Checkpoint
from memorywam_export.checkpoints.weights import Weight
from memorywam_export.eager.eager import eager_session
from memorywam_export.graphs.folding import rewritten_weights
from memorywam_export.graphs.rewrites import FoldedBlock, Rewrites, RewrittenModel, rewrites_for
from memorywam_export.parity.parity import drive, random_script
from memorywam_export.reference import attention, vae_blocks
from memorywam_export.reference.blocks import Block
from memorywam_runtime.contract import InferenceContract
from memorywam_runtime.errors import CheckpointError
from memorywam_runtime.manifest import Precision

__all__ = ["SAFE_MAX_ABS", "SiteRange", "ranges_for", "scanned_ranges"]

SAFE_MAX_ABS = 65504 / 2
"""Half of float16's largest number: a robot will see pictures that no scan has seen."""
_NUM_FRAMES = 3
_NUM_STEPS = 2
"""Of a chunk: from pure noise and from half of it."""
_STREAMED = (nn.Linear, nn.Conv2d, nn.Conv3d)
_NOTED = (*_STREAMED, Block, FoldedBlock, attention.RmsNorm, vae_blocks.RmsNorm)


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteRange:
    """The largest absolute value at one place of the model."""

    site: str
    """A module, whose output this is, or one of its weights."""
    max_abs: float


def ranges_for(
    checkpoint: Checkpoint,
    precision: Precision,
    *,
    is_wanted: bool = True,
    no_rewrites: Iterable[str] = (),
) -> list[SiteRange] | str:
    """Return the ranges of a checkpoint that is to become float16, or why there is no scan.

    Args:
        checkpoint: What will be exported.
        precision: To which type.
        is_wanted: False where the user knows the ranges.
        no_rewrites: Rewrites that will be left out: folding moves the ranges.

    Raises:
        CheckpointError: a value above `SAFE_MAX_ABS`; the worst site is named.
    """
    if precision != "fp16":
        return f"not needed: {precision} has float32's range"
    if checkpoint.name.startswith("random:"):
        return "skipped: random weights are near 1, and say nothing about a checkpoint's"
    if not is_wanted:
        return "left out, as asked with --no-range-scan"
    rewrites = rewrites_for(checkpoint.contract, unwanted=no_rewrites)
    ranges = scanned_ranges(checkpoint, rewrites)
    worst = ranges[0]
    if worst.max_abs > SAFE_MAX_ABS:
        above = sum(r.max_abs > SAFE_MAX_ABS for r in ranges)
        raise CheckpointError(
            f"precision fp16: found {worst.max_abs:,.4g} at {worst.site}"
            + (f", and too much at {above - 1} more sites" if above > 1 else "")
            + f"; expected at most {SAFE_MAX_ABS:,.0f}, half of float16's range: export with "
            "--precision bf16, or with --no-range-scan if you know better"
        )
    return ranges


@torch.no_grad()
def scanned_ranges(checkpoint: Checkpoint, rewrites: Rewrites, seed: int = 0) -> list[SiteRange]:
    """Return the largest absolute value of every linear map, norm, block and weight, largest first.

    A few frames of random pictures and one chunk after each run in float32, through the graphs
    as they will be exported. The matrices are loaded a layer at a time, so that memory stays
    below a few hundred megabytes even at the real size, which takes minutes.

    Args:
        checkpoint: Weights, statistics and instructions; the first instruction is used.
        rewrites: Of the graphs.
        seed: Of pictures, states and noise.

    Raises:
        CheckpointError: a value that is not finite; the first site that has one is named.
    """
    contract = _with_few_steps(checkpoint.contract)
    weights = rewritten_weights(checkpoint.weights, contract, rewrites, torch.float32)
    largest: dict[str, float] = {}
    model = _watched(contract, rewrites, {w.name: w for w in weights}, largest)
    session = eager_session(model, checkpoint.normalization, max_frames=_NUM_FRAMES)
    embedding = next(iter(checkpoint.prompts.values()), None)
    script = random_script(contract, _NUM_FRAMES, seed, embedding)
    drive(session, script, lambda doing: None, "range scan")
    found = [SiteRange(site=site, max_abs=value) for site, value in largest.items()]
    return sorted(found, key=lambda r: (-r.max_abs, r.site))


def _with_few_steps(contract: InferenceContract) -> InferenceContract:
    """Return the contract with chunks that are cheap: ranges hardly change between steps."""
    conventions = msgspec.structs.replace(contract.conventions, num_steps=_NUM_STEPS)
    return msgspec.structs.replace(contract, conventions=conventions)


def _watched(
    contract: InferenceContract,
    rewrites: Rewrites,
    weights: dict[str, Weight],
    largest: dict[str, float],
) -> RewrittenModel:
    """Return a model whose matrices come when they are used, and that notes what it makes."""
    with torch.device("meta"):
        model = RewrittenModel(contract, rewrites)
    model.eval().requires_grad_(requires_grad=False)
    streamed: set[str] = set()
    for name, module in model.named_modules():
        if isinstance(module, _STREAMED):
            own = {part: weights[f"{name}.{part}"] for part, _ in module.named_parameters()}
            streamed |= {weight.name for weight in own.values()}
            module.register_forward_pre_hook(partial(_load, own, largest))
            module.register_forward_hook(_unload)
        if isinstance(module, _NOTED):
            module.register_forward_hook(partial(_note, name, largest))
    kept = {name: weights[name].load() for name in weights if name not in streamed}
    for name, tensor in kept.items():
        _note_tensor(name, tensor, largest)
    model.load_state_dict(kept, strict=False, assign=True)
    return model


def _load(
    own: dict[str, Weight], largest: dict[str, float], module: nn.Module, _: tuple[Any, ...]
) -> None:
    """Give a module its weights for one call."""
    for part, weight in own.items():
        tensor = weight.load()
        _note_tensor(weight.name, tensor, largest)
        setattr(module, part, nn.Parameter(tensor, requires_grad=False))


def _unload(module: nn.Module, _: tuple[Any, ...], __: torch.Tensor) -> None:
    """Take a module's weights away again; their shapes and types stay."""
    for part, parameter in list(module.named_parameters(recurse=False)):
        setattr(module, part, nn.Parameter(parameter.to("meta"), requires_grad=False))


def _note(
    name: str, largest: dict[str, float], _: nn.Module, __: tuple[Any, ...], output: torch.Tensor
) -> None:
    """Note the largest absolute value of a module's output."""
    _note_tensor(name, output, largest)


def _note_tensor(site: str, tensor: torch.Tensor, largest: dict[str, float]) -> None:
    """Note the largest absolute value of a tensor, if it is larger than before."""
    value = float(tensor.abs().max())  # of a tensor with a NaN: NaN
    if not math.isfinite(value):
        raise CheckpointError(
            f"range scan: found {value} at {site}, in float32; expected finite numbers: the "
            "checkpoint is damaged, or not of this contract"
        )
    largest[site] = max(value, largest.get(site, 0.0))
