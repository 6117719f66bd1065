"""Torch files, read without running code from them: nested dictionaries as flat names."""

import zipfile
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

import torch

from memorywam_export.checkpoints.weights import Weight
from memorywam_runtime.errors import CheckpointError

__all__ = ["flat_leaves", "read_torch_file", "weight_of_tensor"]


def read_torch_file(path: Path) -> dict[object, object]:
    """Read a torch file; its tensors stay mapped on disk.

    Raises:
        CheckpointError: damaged, objects that would run code, or no dictionary.
    """
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
    """Yield every tensor and value of nested dictionaries; names are keys joined by dots."""
    for key, value in content.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from flat_leaves(value, f"{name}.")
        else:
            yield name, value


def weight_of_tensor(name: str, tensor: torch.Tensor) -> Weight:
    """Return a tensor that is there already, as a weight."""
    return Weight(name, tuple(tensor.shape), tensor.dtype, partial(_same, tensor))


def _same(tensor: torch.Tensor) -> torch.Tensor:
    """Return the tensor."""
    return tensor
