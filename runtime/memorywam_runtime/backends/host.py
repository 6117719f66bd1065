"""Tensors in host memory, for every backend that computes on the CPU."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from memorywam_runtime.tensors import TensorSpec, storage_dtype

__all__ = ["HostArrays"]


class HostArrays:
    """The tensor half of a backend, on numpy arrays."""

    def flat(self, num_elements: int, spec: TensorSpec) -> NDArray[Any]:
        """Return a zeroed one-dimensional buffer of the spec's type."""
        return np.zeros(num_elements, storage_dtype(spec.dtype))

    def view(self, flat: NDArray[Any], spec: TensorSpec) -> NDArray[Any]:
        """Return the first elements of a flat buffer in the spec's shape, shared."""
        shape = spec.fixed_shape
        return flat[: int(np.prod(shape))].reshape(shape)

    def write(self, array: NDArray[Any], values: NDArray[Any]) -> None:
        """Copy host values of the same shape into an array."""
        np.copyto(array, values, casting="same_kind")

    def read(self, array: NDArray[Any]) -> NDArray[Any]:
        """Return a copy of an array."""
        return array.copy()

    def copy_rows(
        self,
        target: NDArray[Any],
        target_row: int,
        source: NDArray[Any],
        source_row: int,
        num_rows: int,
    ) -> None:
        """Copy rows (axis 2 of [1, H, rows, D]) between arrays, or within one."""
        rows = source[:, :, source_row : source_row + num_rows]
        target[:, :, target_row : target_row + num_rows] = rows

    def regrow(self, flat: NDArray[Any], old: TensorSpec, new: TensorSpec) -> None:
        """Re-lay [1, H, rows, D] in one flat buffer for more rows; new rows are zero.

        Heads move from the last to the first: each moves up, onto heads that have moved already.
        """
        before, after = self.view(flat, old), self.view(flat, new)
        num_rows = before.shape[2]
        for head in reversed(range(before.shape[1])):
            after[0, head, :num_rows] = before[0, head].copy()
            after[0, head, num_rows:] = 0

    def zero(self, array: NDArray[Any]) -> None:
        """Fill an array with zeros."""
        array.fill(0)
