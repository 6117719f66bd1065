"""Tensors in host memory, for every backend that computes on the CPU."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memorywam_runtime.backends import Run
from memorywam_runtime.errors import InputError
from memorywam_runtime.tensors import TensorSpec, storage_dtype

__all__ = ["HostArrays"]


class HostArrays:
    """The tensor half of a backend, on numpy arrays."""

    is_async = False
    num_fallbacks = 0
    fallback_reason = ""

    def flat(self, num_elements: int, spec: TensorSpec) -> NDArray[Any]:
        """Return a zeroed one-dimensional buffer of the spec's type."""
        return np.zeros(num_elements, storage_dtype(spec.dtype))

    def view(self, flat: NDArray[Any], spec: TensorSpec, first: int = 0) -> NDArray[Any]:
        """Return elements of a flat buffer, from `first` on, in the spec's shape, shared."""
        shape = spec.fixed_shape
        return flat[first : first + math.prod(shape)].reshape(shape)

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

    def regrow(self, flat: NDArray[Any], old: TensorSpec, new: TensorSpec) -> None:
        """Re-lay [N, H, rows, D] in one flat buffer for more rows; new rows are zero.

        Heads move from the last to the first: each moves up, onto heads that have moved already.
        """
        before, after = self.view(flat, old), self.view(flat, new)
        num_rows = before.shape[2]
        heads = [divmod(index, before.shape[1]) for index in range(math.prod(before.shape[:2]))]
        for head in reversed(heads):
            after[(*head, slice(num_rows))] = before[head].copy()
            after[(*head, slice(num_rows, None))] = 0

    def zero(self, array: NDArray[Any]) -> None:
        """Fill an array with zeros."""
        array.fill(0)

    def sequence(self, runs: Sequence[Run]) -> Run:
        """Return one call that makes several in their order."""
        calls = tuple(runs)

        def run_all() -> None:
            for call in calls:
                call()

        return run_all

    def finish(self) -> None:
        """Nothing to wait for: calls return when they are done."""

    def save_caches(self) -> list[Path]:
        """Write nothing: what is compiled here ends with the process."""
        return []
