"""Every tensor a session keeps, allocated once; memory is re-laid in place when it grows."""

import math

import msgspec

from memorywam_runtime.backends import Array, Backend
from memorywam_runtime.free_memory import check_room
from memorywam_runtime.manifest import Manifest
from memorywam_runtime.tensors import TensorSpec

__all__ = ["Buffers"]

_ALIGNMENT_BYTES = 256
"""TensorRT's, of every tensor that an engine is given."""


class Buffers:
    """Named tensors of one session.

    The memory tensors of all layers lie one behind the other in one arena, large enough for the
    last gist bucket, so that one strided copy moves a frame's rows in every layer. A view has the
    rows of the current bucket, so an update or a step reads only those. All that an episode can
    take is taken and zeroed at the start: none is asked for in its middle.
    """

    def __init__(self, manifest: Manifest, backend: Backend) -> None:
        """Take all of it.

        Args:
            manifest: With the specs, and the frames that memory holds.
            backend: Where it lies.

        Raises:
            CapacityError: the host has less free; nothing is taken.
        """
        self._backend = backend
        self._manifest = manifest
        self._rows = manifest.rows
        self.bucket = 0
        self._memory_specs = tuple(
            spec
            for spec in manifest.graphs["cache_update"].inputs
            if spec.name.startswith("memory.")
        )
        self.window_specs = [
            spec
            for spec in manifest.graphs["action_step"].inputs
            if spec.name.startswith("window.")
        ]
        """Of the narrow window, all layers; none where it is part of the memory tensors."""
        last = self._arena_spec(self._rows.total(manifest.memory.gist_buckets[-1]))
        if not backend.is_async:  # a device's own allocation refuses; the host's may overcommit
            window = sum(spec.num_bytes for spec in self.window_specs)
            check_room(last.num_bytes + window, manifest.memory.max_frames)
        self._arena = backend.flat(_elements(last), last)
        self._fixed: dict[str, Array] = {}
        self._constant: dict[str, Array] = {}
        self._flat: dict[str, Array] = {}
        self.window = self.pack(self.window_specs, prefix="narrow")
        """All of it as one [layers x 2, H, rows, D], or each by itself; see `pack`."""
        self.state_specs = [
            spec
            for spec in manifest.graphs["state_kv"].outputs
            if spec.name.startswith("action_state.")
        ]
        """Of the joint state that chunks see, all layers."""
        self.state = self.pack(self.state_specs)
        """All of it as one [layers x 2, H, 1, D], or each by itself."""

    @property
    def num_rows(self) -> int:
        """Rows of a memory tensor in the current bucket."""
        return self._rows.total(self.capacity)

    @property
    def capacity(self) -> int:
        """Frames whose gist fits the current bucket."""
        return self._manifest.memory.gist_buckets[self.bucket]

    @property
    def num_bytes(self) -> int:
        """Size of the memory tensors in the current bucket, and of the narrow window."""
        window = sum(spec.num_bytes for spec in self.window_specs)
        return self._arena_spec(self.num_rows).num_bytes + window

    def fixed(self, spec: TensorSpec, *, name: str | None = None) -> Array:
        """Return a tensor that never changes size, made on the first call."""
        return self._made(self._fixed, spec, name or spec.name)

    def constant(self, spec: TensorSpec, *, name: str) -> Array:
        """Return a tensor that outlives `reset`: what is in it does not depend on the episode."""
        return self._made(self._constant, spec, name)

    def start(self, name: str, spec: TensorSpec) -> Array:
        """Return the first elements of a tensor that `fixed` has made under this name, shared."""
        return self._backend.view(self._flat[name], spec)

    def spare(self, kind: str, num_rows: int) -> list[Array]:
        """Return new tensors that take so many rows of every layer.

        Args:
            kind: Of `memory`, the narrow `window` or the joint `state`.
            num_rows: Of each.
        """
        if kind == "memory":
            specs = [_stacked([spec.bound(rows=num_rows) for spec in self._memory_specs], kind)]
        else:
            known = {
                "window": (self.window_specs, self.window),
                "state": (self.state_specs, self.state),
            }
            specs, whole = known[kind]
            specs = [_with_rows(spec, num_rows) for spec in specs]
            specs = [_stacked(specs, kind)] if len(whole) == 1 else specs
        return [self._backend.view(self._backend.flat(_elements(s), s), s) for s in specs]

    def pack(self, specs: list[TensorSpec], *, prefix: str = "") -> list[Array]:
        """Return one tensor [N, ...] for N of the same shape, and make each a view of it.

        Where the views would not start where a device wants them, each is a tensor by itself, and
        all N are returned. `fixed` then returns each, by prefix and name.
        """
        names = [f"{prefix}.{spec.name}" if prefix else spec.name for spec in specs]
        if any(spec.num_bytes % _ALIGNMENT_BYTES for spec in specs):
            return [self.fixed(spec, name=name) for spec, name in zip(specs, names, strict=True)]
        if not specs:
            return []
        whole = _stacked(specs, prefix)
        flat = self._backend.flat(_elements(whole), whole)
        for index, (spec, name) in enumerate(zip(specs, names, strict=True)):
            self._fixed[name] = self._backend.view(flat, spec, index * _elements(spec))
        return [self._backend.view(flat, whole)]

    def memory(self) -> dict[str, Array]:
        """Return the memory tensors [1, H, rows, D] of the current bucket, by input name."""
        bound = [spec.bound(rows=self.num_rows) for spec in self._memory_specs]
        return {
            spec.name: self._backend.view(self._arena, spec, index * _elements(spec))
            for index, spec in enumerate(bound)
        }

    def arena(self) -> Array:
        """Return all memory tensors of the current bucket as one [layers x 2, H, rows, D]."""
        return self._backend.view(self._arena, self._arena_spec(self.num_rows))

    def grow(self) -> None:
        """Move to the next bucket; what is remembered stays, new rows are zero."""
        before = self._arena_spec(self.num_rows)
        self.bucket += 1
        self._backend.regrow(self._arena, before, self._arena_spec(self.num_rows))

    def reset(self) -> None:
        """Zero everything and return to the first bucket, as if made anew."""
        self.bucket = 0
        for array in (self._arena, *self._fixed.values()):
            self._backend.zero(array)

    def _arena_spec(self, rows: int) -> TensorSpec:
        """Return the spec of all memory tensors as one."""
        return _stacked([spec.bound(rows=rows) for spec in self._memory_specs], "memory")

    def _made(self, arrays: dict[str, Array], spec: TensorSpec, key: str) -> Array:
        """Return a tensor by name, made on the first call."""
        if key not in arrays:
            self._flat[key] = self._backend.flat(_elements(spec), spec)
            arrays[key] = self._backend.view(self._flat[key], spec)
        return arrays[key]


def _stacked(specs: list[TensorSpec], name: str) -> TensorSpec:
    """Return the spec of several [1, ...] of one shape and type, one behind the other."""
    first = specs[0]
    assert {(s.fixed_shape, s.dtype) for s in specs} == {(first.fixed_shape, first.dtype)}
    shape = (len(specs), *first.fixed_shape[1:])
    return TensorSpec(name=name, shape=shape, dtype=first.dtype, meaning=f"all of {name}")


def _with_rows(spec: TensorSpec, num_rows: int) -> TensorSpec:
    """Return the spec of [1, H, rows, D] with other rows."""
    batch, heads, _, width = spec.fixed_shape
    return msgspec.structs.replace(spec, shape=(batch, heads, num_rows, width))


def _elements(spec: TensorSpec) -> int:
    """Return the number of elements of a spec with a fixed shape."""
    return math.prod(spec.fixed_shape)
