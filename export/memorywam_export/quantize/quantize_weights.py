"""One weight to its narrow type and scales, as they stand in the weights file, and back."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open

from memorywam_export.checkpoints.weights import Weight
from memorywam_export.recipes.recipes import LARGEST, Recipe, block_length

__all__ = ["SCALE_SUFFIX", "Quantized", "in_floats", "quantized_weight", "tensor_in_floats"]

SCALE_SUFFIX = "_scale"
"""Behind a weight's name: its scales, in the type of what stays wide."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantized:
    """A weight as it will be stored: in its own order, int4 always as [inputs, outputs].

    In that order alone ONNX Runtime and TensorRT have kernels for blocks.
    """

    values: Weight
    """int4 as bytes [inputs, outputs / 2], the first of two in the low half."""
    scales: Weight
    """[outputs]; [] for one in all; int4: [inputs / block, outputs]."""
    axis: int | None
    """Of the weight: of its outputs, or of the inputs that are in blocks; None for one scale."""
    block: int | None
    shape: tuple[int, ...]
    """Of the weight's elements as they are stored."""


def quantized_weight(
    weight: Weight,
    recipe: Recipe,
    *,
    is_transposed: bool,
    given: tuple[float, ...] | None = None,
) -> Quantized:
    """Return what a recipe makes of a weight; it is read now for its scales, and when written.

    Args:
        weight: [outputs, inputs] if transposed, else [inputs, outputs]; float.
        recipe: Recipe.
        is_transposed: Is the weight stored as [outputs, inputs]?
        given: Scales of a table, one an output or one in all; None: the largest value's.
    """
    assert recipe.weight is not None
    kind, is_turned = recipe.weight, recipe.granularity == "block" and is_transposed

    def whole() -> torch.Tensor:
        wide = weight.checked().float()
        return wide.T if is_turned else wide

    outputs, inputs = (0, 1) if is_transposed and not is_turned else (1, 0)
    shape = weight.shape[::-1] if is_turned else weight.shape
    block = block_length(shape[inputs]) if recipe.granularity == "block" else None
    if given is not None:
        scales = torch.tensor(given if recipe.granularity == "channel" else given[0])
    else:
        scales = _largest(whole(), recipe, inputs, block) / LARGEST[kind]
        scales = torch.where(scales > 0, scales, 1.0)  # a row of zeros
    # Rounded first, so that the weights are rounded to the scales that will be read.
    scales = scales.to(weight.dtype)

    def values() -> torch.Tensor:
        return _rounded(whole() / _spread(scales.float(), outputs, inputs, block), kind)

    stored = {"int8": torch.int8, "fp8": torch.float8_e4m3fn, "int4": torch.uint8}[kind]
    packed = (shape[0], shape[1] // 2) if kind == "int4" else shape
    return Quantized(
        values=Weight(weight.name, packed, stored, values),
        scales=Weight(weight.name + SCALE_SUFFIX, tuple(scales.shape), weight.dtype, _kept(scales)),
        axis={"channel": outputs, "tensor": None, "block": inputs}[recipe.granularity],
        block=block,
        shape=shape,
    )


def tensor_in_floats(path: Path, name: str) -> torch.Tensor:
    """Return a tensor of a weights file; one that was quantized, as what it stands for.

    Args:
        path: A bundle's weights file.
        name: Of the tensor.

    Returns:
        In the type of what stays wide, as [outputs, inputs].
    """
    with safe_open(path, "pt") as file:
        stored: torch.Tensor = file.get_tensor(name)
        if name + SCALE_SUFFIX not in file.keys():  # noqa: SIM118 - not a dict
            return stored
        scales: torch.Tensor = file.get_tensor(name + SCALE_SUFFIX)
    return in_floats(stored, scales)


def in_floats(stored: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    """Return what a quantized weight stands for, as [outputs, inputs] in the type of its scales.

    Args:
        stored: As in a weights file, of outputs that are its rows; int4 as bytes.
        scales: One in all, one for each output, or one for each block of inputs.
    """
    if stored.dtype == torch.uint8:
        low, high = stored << 4, stored & 0xF0
        whole = torch.stack((low, high), dim=-1).flatten(-2).view(torch.int8) // 16
        wide = scales.float().repeat_interleave(len(whole) // len(scales), dim=0)
        floats = (whole.float() * wide).T
    else:  # one scale in all, or one for each row
        floats = stored.float() * (scales.float()[:, None] if scales.ndim else scales.float())
    return floats.to(scales.dtype)


def _largest(whole: torch.Tensor, recipe: Recipe, inputs: int, block: int | None) -> torch.Tensor:
    """Return the largest absolute value of each part that gets a scale of its own."""
    if recipe.granularity == "tensor":
        return whole.abs().amax()
    if block is None:
        return whole.abs().amax(dim=inputs)
    blocks: torch.Tensor = whole.abs().unflatten(inputs, (-1, block))
    return blocks.amax(dim=inputs + 1)


def _spread(scales: torch.Tensor, outputs: int, inputs: int, block: int | None) -> torch.Tensor:
    """Return the scales so that they divide the whole weight."""
    if block is not None:
        return scales.repeat_interleave(block, dim=inputs)
    return scales.unsqueeze(1 - outputs) if scales.ndim else scales


def _rounded(steps: torch.Tensor, kind: str) -> torch.Tensor:
    """Return a weight in units of its scales in its stored type."""
    largest = LARGEST[kind]
    steps = steps.clamp(-largest, largest)
    if kind == "fp8":
        return steps.to(torch.float8_e4m3fn)
    whole = steps.round().to(torch.int8)
    if kind == "int8":
        return whole
    pairs: torch.Tensor = whole.unflatten(-1, (-1, 2)).view(torch.uint8) & 0xF
    return pairs[..., 0] | (pairs[..., 1] << 4)


def _kept(tensor: torch.Tensor) -> Callable[[], torch.Tensor]:
    """Return what gives a tensor that is made already."""
    return lambda: tensor
