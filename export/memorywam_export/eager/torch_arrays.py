"""Tensors of a session where torch keeps them: the tensor half of a backend, on any device."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from memorywam_runtime.backends import Run
from memorywam_runtime.errors import InputError
from memorywam_runtime.tensors import DType, TensorSpec, storage_dtype

__all__ = ["TorchArrays", "tensor_from_array"]

_DTYPES: dict[DType, torch.dtype] = {
    "float64": torch.float64,
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "int64": torch.int64,
    "int8": torch.int8,
    "float8e4m3fn": torch.uint8,  # bits, as the host carries them
}


class TorchArrays:
    """The tensor half of a backend: calls are queued on the device's current stream."""

    def __init__(self, device: str) -> None:
        self.device = torch.device(device)
        self.is_async = self.device.type != "cpu"

    def flat(self, num_elements: int, spec: TensorSpec) -> torch.Tensor:
        """Return a zeroed one-dimensional buffer of the spec's type."""
        return torch.zeros(num_elements, dtype=_DTYPES[spec.dtype], device=self.device)

    def view(self, flat: torch.Tensor, spec: TensorSpec, first: int = 0) -> torch.Tensor:
        """Return elements of a flat buffer, from `first` on, in the spec's shape, shared.

        Raises:
            InputError: elements beyond the buffer.
        """
        shape = spec.fixed_shape
        count = math.prod(shape)
        if first < 0 or first + count > flat.numel():
            raise InputError(
                f"found a view of {count} elements from {first} on; expected it within the "
                f"buffer's {flat.numel()}"
            )
        return flat[first : first + count].view(shape)

    def write(self, array: torch.Tensor, values: NDArray[Any]) -> None:
        """Copy host values of the same shape into an array.

        Raises:
            InputError: another shape.
            TypeError: another kind of numbers.
        """
        # Torch warns of sharing what may not be written, though it only reads here.
        found = tensor_from_array(np.require(values, requirements=["C", "W"]))
        if found.is_floating_point() and not array.is_floating_point():
            raise TypeError(f"cannot cast {values.dtype} to {array.dtype}")
        if found.shape != array.shape:
            raise InputError(f"found shape {list(found.shape)}; expected {list(array.shape)}")
        array.copy_(found)

    def read(self, array: torch.Tensor) -> NDArray[Any]:
        """Return a host copy of an array; bfloat16 as its bits."""
        host = array.detach().to("cpu", copy=True).contiguous()
        if host.dtype == torch.bfloat16:
            return host.view(torch.int16).numpy().view(storage_dtype("bfloat16"))
        found: NDArray[Any] = host.numpy()
        return found

    def copy_rows(
        self,
        target: torch.Tensor,
        target_row: int,
        source: torch.Tensor,
        source_row: int,
        num_rows: int,
    ) -> None:
        """Copy rows (axis 2 of [N, H, rows, D]) between arrays, or within one.

        Raises:
            InputError: rows of one array that overlap.
        """
        if target is source and abs(target_row - source_row) < num_rows:
            raise InputError(
                f"found {num_rows} rows to copy from {source_row} to {target_row} of the same "
                "array; expected rows that do not overlap"
            )
        rows = source[:, :, source_row : source_row + num_rows]
        target[:, :, target_row : target_row + num_rows] = rows

    def regrow(self, flat: torch.Tensor, old: TensorSpec, new: TensorSpec) -> None:
        """Re-lay [N, H, rows, D] in one flat buffer for more rows; new rows are zero.

        Heads move from the last to the first: each moves up, onto heads that have moved already.
        """
        before, after = self.view(flat, old).flatten(0, 1), self.view(flat, new).flatten(0, 1)
        num_rows = before.shape[1]
        for head in reversed(range(before.shape[0])):
            after[head, :num_rows] = before[head].clone()
            after[head, num_rows:] = 0

    def zero(self, array: torch.Tensor) -> None:
        """Fill an array with zeros."""
        array.zero_()

    def sequence(self, runs: Sequence[Run]) -> Run:
        """Return one call that makes several in their order."""
        calls = tuple(runs)

        def run_all() -> None:
            for call in calls:
                call()

        return run_all

    def finish(self) -> None:
        """Wait until everything asked of the device is done."""
        if self.is_async:
            torch.cuda.synchronize(self.device)

    def save_caches(self) -> list[Path]:
        """Write nothing: torch keeps what it compiles where it wants to."""
        return []


def tensor_from_array(array: NDArray[np.generic]) -> torch.Tensor:
    """Return a tensor in an array's memory; 16-bit storage is bfloat16, which numpy has not."""
    if array.dtype == storage_dtype("bfloat16"):
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)
