"""Torch files, read without running code from them: nested dictionaries as flat names."""

import zipfile
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

import torch

from memorywam_export.checkpoints.weights import Weight
from memorywam_runtime.errors import CheckpointError

__all__ = ["flat_leaves", "read_torch_file", "weight_of_tensor"]

_MOST_LEAVES = 1 << 20
_MOST_DEPTH = 32
"""Dictionaries may hold each other, or themselves: a kilobyte is then a tree without an end."""
_LONGEST_KEY = 1 << 10


def read_torch_file(path: Path) -> dict[object, object]:
    """Read a torch file; its tensors stay mapped on disk.

    Raises:
        CheckpointError: damaged, objects that would run code, or no dictionary.
    """
    if not path.is_file():
        raise CheckpointError(
            f"{path} is no file; expected weights: name a file that torch has written"
        )
    try:
        # Files from before torch 1.6 are no zip archives, and cannot be mapped.
        mapped = zipfile.is_zipfile(path)
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except Exception as error:  # torch raises many kinds for damaged and for unsafe files
        # Torch's own text is a page that advises to load the file unsafely: keep the reason alone.
        lines = str(error).splitlines() or [type(error).__name__]
        reason = next((line for line in lines if "WeightsUnpickler" in line), lines[0])
        raise CheckpointError(
            f"{path} cannot be read as plain tensors: {reason.partition(' Please')[0].strip()}; it "
            "is damaged, or holds objects that would run code"
        ) from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: found {type(content).__name__}; expected a dictionary")
    return content


def flat_leaves(content: Mapping[object, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    """Yield every tensor and value of nested dictionaries; names are keys joined by dots.

    Raises:
        CheckpointError: dictionaries without an end, a key that is no name, or a tensor that has
            no plain numbers behind it.
    """
    for count, (name, leaf) in enumerate(_leaves(content, prefix, 1)):
        if count >= _MOST_LEAVES:
            raise CheckpointError(
                f"found more than {_MOST_LEAVES:,} entries in one file; expected weights"
            )
        if isinstance(leaf, torch.Tensor) and not _is_plain(leaf):
            raise CheckpointError(
                f"'{name}' is a tensor {leaf.layout} on {leaf.device.type}; expected plain numbers"
            )
        yield name, leaf


def _leaves(
    content: Mapping[object, object], prefix: str, depth: int
) -> Iterator[tuple[str, object]]:
    """Yield what `flat_leaves` does, unchecked but for the depth and the keys."""
    if depth > _MOST_DEPTH:
        raise CheckpointError(
            f"'{prefix[:80]}...' is nested deeper than {_MOST_DEPTH} dictionaries; expected weights"
        )
    for key, value in content.items():
        name = f"{prefix}{_key(key)}"
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{name}.", depth + 1)
        else:
            yield name, value


def _key(key: object) -> str:
    """Return a key as a part of a name."""
    if isinstance(key, int) and key.bit_length() > 64:
        raise CheckpointError(f"found a key of {key.bit_length()} bits; expected a name or number")
    name = str(key)
    if len(name) > _LONGEST_KEY:
        raise CheckpointError(f"found a key of {len(name):,} characters; expected a name")
    return name


def _is_plain(tensor: torch.Tensor) -> bool:
    """Does a tensor have its numbers in memory, each in its place?"""
    is_here = tensor.device.type == "cpu" and tensor.layout == torch.strided
    return is_here and not tensor.is_quantized


def weight_of_tensor(name: str, tensor: torch.Tensor) -> Weight:
    """Return a tensor that is there already, as a weight."""
    return Weight(name, tuple(tensor.shape), tensor.dtype, partial(_same, tensor))


def _same(tensor: torch.Tensor) -> torch.Tensor:
    """Return the tensor."""
    return tensor
