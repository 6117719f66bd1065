"""Tensors on a GPU: what every backend shares that computes there."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memorywam_runtime.backends import Run
from memorywam_runtime.backends.cuda import Device, Graph, Memory, Pinned
from memorywam_runtime.backends.staging import Staging
from memorywam_runtime.errors import DeviceError, InputError
from memorywam_runtime.tensors import TensorSpec, storage_dtype

__all__ = ["DeviceArray", "DeviceArrays"]

_STAGING_BYTES = 32 << 20
"""Holds five of the largest groups of images (5.9 MB): a tick never waits for its own writes."""
_LANDING_BYTES = 4 << 20


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DeviceArray:
    """A C-contiguous tensor in device memory, or a view of one."""

    memory: Memory
    """Kept alive by every view."""
    address: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    """The storage type: bfloat16 is carried as uint16."""

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def num_bytes(self) -> int:
        """Size, bytes."""
        return self.size * self.dtype.itemsize


class DeviceArrays:
    """The tensor half of a backend, on one GPU and one stream."""

    is_async = True
    why_no_graphs = ""
    """Why this backend's runs cannot be captured; empty where they can."""

    def __init__(self, device: int = 0, *, staging_bytes: int = _STAGING_BYTES) -> None:
        """Take a GPU.

        Args:
            device: The GPU's number.
            staging_bytes: Pinned host memory for writes, at least 4 KiB.

        Raises:
            MissingPartError: no such GPU, or no driver for it.
        """
        if staging_bytes < 1 << 12:
            raise InputError(f"found staging_bytes {staging_bytes}; expected at least 4096")
        self.device = Device(device)
        self.target = self.device.target
        """The GPU's architecture, as `sm_89`."""
        self.num_fallbacks = 0
        """Sequences that run call by call because they could not be one CUDA graph."""
        self.fallback_reason = ""
        """Of the last of them."""
        self.in_sequence = False
        self._staging = Staging(self.device, staging_bytes)
        self._landing = Pinned(_LANDING_BYTES)
        self._head: Memory | None = None

    def flat(self, num_elements: int, spec: TensorSpec) -> DeviceArray:
        """Return a zeroed one-dimensional buffer of the spec's type.

        Raises:
            DeviceError: the device has not that much memory left.
        """
        self._refuse_in_sequence("allocation")
        dtype = storage_dtype(spec.dtype)
        memory = Memory(num_elements * dtype.itemsize)
        self.device.zero(memory.address, memory.num_bytes)
        self._reserve_head(spec, dtype.itemsize)
        return DeviceArray(
            memory=memory, address=memory.address, shape=(num_elements,), dtype=dtype
        )

    def view(self, flat: DeviceArray, spec: TensorSpec, first: int = 0) -> DeviceArray:
        """Return elements of a flat buffer, from `first` on, in the spec's shape, shared.

        Raises:
            InputError: they lie outside, or are of another type.
        """
        shape, dtype = spec.fixed_shape, storage_dtype(spec.dtype)
        count = math.prod(shape)
        if first < 0 or first + count > flat.size or dtype != flat.dtype:
            raise InputError(
                f"tensor '{spec.name}': found a buffer of {flat.size} x {flat.dtype}; expected "
                f"{dtype} and elements {first} to {first + count}"
            )
        address = flat.address + first * dtype.itemsize
        return DeviceArray(memory=flat.memory, address=address, shape=shape, dtype=dtype)

    def write(self, array: DeviceArray, values: NDArray[Any]) -> None:
        """Copy host values of the same shape into an array; they may be changed at once.

        Waits only while more than the staging memory is under way.

        Raises:
            InputError: another shape.
            TypeError: a type that would not keep its kind.
        """
        self._refuse_in_sequence("a write")
        if values.shape != array.shape:
            raise InputError(
                f"found values {list(values.shape)} to write; expected {list(array.shape)}"
            )
        if array.num_bytes <= self._staging.piece_bytes:
            self._staging.send(array.address, values, array.dtype)
            return
        flat, itemsize = np.ascontiguousarray(values).reshape(-1), array.dtype.itemsize
        step = self._staging.piece_bytes // itemsize
        for first in range(0, flat.size, step):
            piece = flat[first : first + step]
            self._staging.send(array.address + first * itemsize, piece, array.dtype)

    def read(self, array: DeviceArray) -> NDArray[Any]:
        """Wait for the device; return a host copy of an array."""
        self._refuse_in_sequence("a read")
        found = np.empty(array.shape, array.dtype)
        into, landing = found.reshape(-1).view(np.uint8), self._landing
        for first in range(0, array.num_bytes, landing.num_bytes):
            count = min(landing.num_bytes, array.num_bytes - first)
            self.device.download(landing.address, array.address + first, count)
            self.finish()
            into[first : first + count] = landing.array[:count]
        return found

    def copy_rows(
        self,
        target: DeviceArray,
        target_row: int,
        source: DeviceArray,
        source_row: int,
        num_rows: int,
    ) -> None:
        """Copy rows (axis 2 of [N, H, rows, D]) between arrays, or within one: one strided copy.

        Raises:
            InputError: rows outside, rows that overlap, or arrays that do not fit each other.
        """
        *heads, target_rows, width = target.shape
        *source_heads, source_rows, source_width = source.shape
        if (heads, width, target.dtype) != (source_heads, source_width, source.dtype):
            raise InputError(
                f"found rows of {source.dtype} {list(source.shape)} for {target.dtype} "
                f"{list(target.shape)}; expected the same but for axis 2"
            )
        for row, rows in ((target_row, target_rows), (source_row, source_rows)):
            if row < 0 or row + num_rows > rows:
                raise InputError(
                    f"found rows {row} to {row + num_rows}; expected them within {rows}"
                )
        if target.address == source.address and abs(target_row - source_row) < num_rows:
            raise InputError(
                f"found {num_rows} rows to copy from {source_row} to {target_row} of the same "
                "array; expected rows that do not overlap"
            )
        row_bytes = width * target.dtype.itemsize
        self.device.copy_strided(
            target.address + target_row * row_bytes,
            target_rows * row_bytes,
            source.address + source_row * row_bytes,
            source_rows * row_bytes,
            width=num_rows * row_bytes,
            height=math.prod(heads),
        )

    def regrow(self, flat: DeviceArray, old: TensorSpec, new: TensorSpec) -> None:
        """Re-lay [N, H, rows, D] in one flat buffer for more rows; new rows are zero.

        Heads move from the last to the first: each moves up, onto heads that have moved already.
        One that moves by less than its length goes through a buffer of one head.

        Raises:
            InputError: the new shape has fewer rows, differs in more than rows, or does not fit.
        """
        before, after = self.view(flat, old), self.view(flat, new)
        *heads, old_rows, width = before.shape
        *new_heads, new_rows, new_width = after.shape
        if (heads, width) != (new_heads, new_width) or new_rows < old_rows:
            raise InputError(
                f"found {list(before.shape)} to grow to {list(after.shape)}; expected more rows "
                "(axis 2) and nothing else changed"
            )
        row_bytes = width * flat.dtype.itemsize
        old_bytes, new_bytes = old_rows * row_bytes, new_rows * row_bytes
        if new_bytes == old_bytes:
            return
        buffer = self._reserve_head(old, flat.dtype.itemsize)
        for head in range(math.prod(heads) - 1, 0, -1):
            source, target = flat.address + head * old_bytes, flat.address + head * new_bytes
            if target - source < old_bytes:
                self.device.copy(buffer.address, source, old_bytes)
                source = buffer.address
            self.device.copy(target, source, old_bytes)
        self.device.zero_strided(
            flat.address + old_bytes,
            new_bytes,
            width=new_bytes - old_bytes,
            height=math.prod(heads),
        )

    def zero(self, array: DeviceArray) -> None:
        """Fill an array with zeros."""
        self.device.zero(array.address, array.num_bytes)

    def sequence(self, runs: Sequence[Run]) -> Run:
        """Return one call that makes several in their order, from its second turn on as one graph.

        Engines prepare themselves in their first run, which must not be captured: the first turn
        makes call by call. If the second cannot be captured, this and all later ones do so too,
        and `num_fallbacks` counts it.
        """
        return _GraphSequence(self, tuple(runs))

    def finish(self) -> None:
        """Wait until everything asked of the device is done.

        Raises:
            DeviceError: some of it failed.
        """
        self._refuse_in_sequence("waiting")
        self.device.wait()
        self._staging.clear()

    def save_caches(self) -> list[Path]:
        """Write nothing: what is compiled comes with the engines."""
        return []

    def _reserve_head(self, spec: TensorSpec, itemsize: int) -> Memory:
        """Return a buffer for the largest head [rows, D] so far, so that growing allocates none."""
        sizes = [size for size in spec.shape[2:] if isinstance(size, int)]
        num_bytes = math.prod(sizes) * itemsize if len(spec.shape) == 4 else 1
        if self._head is None or self._head.num_bytes < num_bytes:
            self._head = Memory(num_bytes)
        return self._head

    def _refuse_in_sequence(self, what: str) -> None:
        """Refuse what a captured sequence would not do again.

        Raises:
            InputError: naming it.
        """
        if self.in_sequence:
            raise InputError(
                f"found {what} inside a sequence; expected engine calls and copies on the device "
                "alone, for a replayed graph does nothing else: do it before or after"
            )


class _GraphSequence:
    """Several calls: one by one the first time, then captured, then replayed."""

    def __init__(self, arrays: DeviceArrays, runs: tuple[Run, ...]) -> None:
        self._arrays = arrays
        self._runs = runs  # kept: a graph uses what their engines hold
        self._graph: Graph | None = None
        self._is_warm = False
        self._is_refused = False
        if arrays.why_no_graphs:
            self._fall_back(arrays.why_no_graphs)

    def __call__(self) -> None:
        """Make the calls on what is in the bound tensors now."""
        if self._graph is not None:
            self._graph.launch()
            return
        if self._is_warm and not self._is_refused and not self._arrays.in_sequence:
            try:
                self._graph = self._captured()
            except DeviceError as error:
                self._fall_back(str(error))
            else:
                self._graph.launch()
                return
        self._call_all()
        self._is_warm = True

    def _captured(self) -> Graph:
        for run in self._runs:
            ask = getattr(run, "why_not_captured", None)
            if ask is not None and (reason := ask()):
                raise DeviceError(reason)
        return self._arrays.device.capture(self._call_all)

    def _call_all(self) -> None:
        outer, self._arrays.in_sequence = self._arrays.in_sequence, True
        try:
            for run in self._runs:
                run()
        finally:
            self._arrays.in_sequence = outer

    def _fall_back(self, reason: str) -> None:
        self._is_refused = True
        self._arrays.num_fallbacks += 1
        self._arrays.fallback_reason = reason
