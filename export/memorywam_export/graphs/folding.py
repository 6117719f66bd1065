"""Exact rewrites of the weights: constant modulation folded in, rotary pairs moved apart."""

import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property, partial

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it

from memorywam_export.checkpoints.weights import Weight
from memorywam_export.graphs.rewrites import Rewrites, RewrittenModel, halves_order
from memorywam_export.reference.schedule import time_sinusoid
from memorywam_runtime.contract import InferenceContract

__all__ = ["rewritten_weights"]

_BLOCK_ROWS = 1024
"""Rows of a matrix that are widened to float64 at once: 25 MB of a 3072 wide one."""
_SMALL = 1 << 20
"""Elements below which a weight is made again rather than kept."""
_IN_BLOCK = re.compile(r"mixtures\.(video|action)\.blocks\.(\d+)\.(.+)")
_ROTATED = re.compile(r"self_attn\.(q\.weight|q\.bias|k\.weight|k\.bias|norm_[qk]\.weight)")
# Place of each part in a block's modulation (FastWAM, `wan_video_dit.py`, `DiTBlock.forward`).
_SHIFT1, _SCALE1, _GATE1, _SHIFT2, _SCALE2, _GATE2 = range(6)


@dataclass(frozen=True, slots=True)
class _Affine:
    """What stands around a linear map: y = out * (W (scale * x + shift) + b)."""

    scale: torch.Tensor | None = None
    """[in], float64."""
    shift: torch.Tensor | None = None
    """[in], float64."""
    out: torch.Tensor | None = None
    """[out], float64."""


def rewritten_weights(
    weights: Iterable[Weight], contract: InferenceContract, rewrites: Rewrites, dtype: torch.dtype
) -> list[Weight]:
    """Return the weights of the rewritten model, each made from the checkpoint's when loaded.

    Products are taken in float32, or float64 where source or target are, sums in float64; what
    comes out is rounded once to `dtype`. No more than a few matrices are in memory at a time.

    Args:
        weights: Of the reference model.
        contract: Sizes and conventions.
        rewrites: Which rewrites are in effect.
        dtype: Of the weights to return.
    """
    source = _Source(weights, contract)
    with torch.device("meta"):
        wanted = RewrittenModel(contract, rewrites).state_dict()
    return [
        Weight(name, tuple(tensor.shape), dtype, _maker(name, source, contract, rewrites, dtype))
        for name, tensor in wanted.items()
    ]


class _Source:
    """The checkpoint's weights by name; the last matrix stays, as its bias needs it too."""

    def __init__(self, weights: Iterable[Weight], contract: InferenceContract) -> None:
        self._weights = {weight.name: weight for weight in weights}
        self._contract = contract
        self._last: tuple[str, torch.Tensor] | None = None

    def load(self, name: str) -> torch.Tensor:
        """Return a weight as the checkpoint has it; not to be written to."""
        if self._last is not None and self._last[0] == name:
            return self._last[1]
        weight = self._weights[name]
        if math.prod(weight.shape) < _SMALL:
            return weight.checked()
        self._last = None  # before the next one is made: two would not be needed
        self._last = (name, weight.checked())
        return self._last[1]

    def parts(self, layer: int) -> torch.Tensor:
        """Return shift1, scale1, gate1, shift2, scale2, gate2 of a video block [6, D], float64."""
        own = self.load(f"mixtures.video.blocks.{layer}.modulation")
        return own[0].double() + self._modulation

    @cached_property
    def _modulation(self) -> torch.Tensor:
        """The video's timestep modulation e [6, D], float64: constant, as every frame is clean."""
        stem = "mixtures.video.time_"
        timestep = torch.tensor(self._contract.conventions.clean_timestep, dtype=torch.float64)
        hidden: torch.Tensor = time_sinusoid(timestep, self._contract.time_dim)
        for name, last in (("embedding.0", False), ("embedding.2", False), ("projection.1", True)):
            weight, bias = self.load(f"{stem}{name}.weight"), self.load(f"{stem}{name}.bias")
            hidden = _product(weight, hidden) + bias.double()
            hidden = hidden if last else F.silu(hidden)
        e: torch.Tensor = hidden.unflatten(0, (6, -1))
        return e

    def around(self, layer: int, linear: str) -> _Affine | None:
        """Return what folds into one linear map of a video block; None where nothing does."""
        match linear:
            case "self_attn.q" | "self_attn.k" | "self_attn.v":
                parts = self.parts(layer)
                return _Affine(scale=1 + parts[_SCALE1], shift=parts[_SHIFT1])
            case "self_attn.o":
                return _Affine(out=self.parts(layer)[_GATE1])
            case "cross_attn.q":
                norm = f"mixtures.video.blocks.{layer}.norm3."
                scale, shift = self.load(norm + "weight"), self.load(norm + "bias")
                return _Affine(scale=scale.double(), shift=shift.double())
            case "ffn.0":
                parts = self.parts(layer)
                return _Affine(scale=1 + parts[_SCALE2], shift=parts[_SHIFT2])
            case "ffn.2":
                return _Affine(out=self.parts(layer)[_GATE2])
            case _:
                return None


def _maker(
    name: str,
    source: _Source,
    contract: InferenceContract,
    rewrites: Rewrites,
    dtype: torch.dtype,
) -> Callable[[], torch.Tensor]:
    """Return what makes one weight."""
    make: Callable[[], torch.Tensor] = partial(source.load, name)
    found = _IN_BLOCK.fullmatch(name)
    if found is not None:
        expert, layer, rest = found[1], int(found[2]), found[3]
        if expert == "video" and "fold-modulation" in rewrites:
            make = partial(_folded, source, name, layer, rest, dtype)
        if "rope-halves" in rewrites and _ROTATED.fullmatch(rest):
            make = partial(_in_halves, make, contract)
    return partial(_in_dtype, make, dtype)


def _folded(source: _Source, name: str, layer: int, rest: str, dtype: torch.dtype) -> torch.Tensor:
    """Return one weight of a video block with all that surrounds it folded in."""
    linear, _, part = rest.rpartition(".")
    around = source.around(layer, linear)
    if around is None:
        return source.load(name)
    if part == "bias":
        bias = source.load(name).double()
        if around.shift is not None:
            bias = bias + _product(source.load(name.removesuffix("bias") + "weight"), around.shift)
        return bias if around.out is None else around.out * bias
    weight = source.load(name)
    wide = torch.promote_types(torch.promote_types(weight.dtype, dtype), torch.float32)
    weight = weight.to(wide)
    if around.scale is not None:
        weight = weight * around.scale.to(wide)
    return weight if around.out is None else weight * around.out[:, None].to(wide)


def _product(matrix: torch.Tensor, vector: torch.Tensor) -> torch.Tensor:
    """Return matrix @ vector, summed in float64, a block of rows at a time."""
    return torch.cat([rows.double() @ vector for rows in matrix.split(_BLOCK_ROWS)])


def _in_halves(make: Callable[[], torch.Tensor], contract: InferenceContract) -> torch.Tensor:
    """Return a weight with each head's rows in the order of half-split rotary pairs."""
    rows: torch.Tensor = make().unflatten(0, (contract.num_heads, contract.head_dim))
    return rows[:, halves_order(contract.head_dim)].flatten(0, 1)


def _in_dtype(make: Callable[[], torch.Tensor], dtype: torch.dtype) -> torch.Tensor:
    """Return a weight in its final type: the only time that it is rounded."""
    return make().to(dtype)
