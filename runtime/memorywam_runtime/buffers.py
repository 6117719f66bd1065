"""Every tensor a session keeps, allocated once; memory is re-laid in place when it grows."""

from memorywam_runtime.backends import Array, Backend
from memorywam_runtime.manifest import Manifest
from memorywam_runtime.memory import Rows
from memorywam_runtime.tensors import TensorSpec

__all__ = ["Buffers"]


class Buffers:
    """Named tensors of one session.

    Memory tensors are views of flat buffers that are large enough for the last gist bucket; a
    view has the rows of the current bucket, so an update or a step reads only those.
    """

    def __init__(self, manifest: Manifest, backend: Backend) -> None:
        self._backend = backend
        self._manifest = manifest
        self._rows = Rows(manifest.contract)
        self.bucket = 0
        self._memory_specs = tuple(
            spec
            for spec in manifest.graphs["cache_update"].inputs
            if spec.name.startswith("memory.")
        )
        last = self._rows.total(manifest.memory.gist_buckets[-1])
        self._flat = {
            spec.name: backend.flat(_elements(spec.bound(rows=last)), spec)
            for spec in self._memory_specs
        }
        self._fixed: dict[str, Array] = {}

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
        """Size of the memory tensors in the current bucket."""
        return sum(spec.bound(rows=self.num_rows).num_bytes for spec in self._memory_specs)

    def fixed(self, spec: TensorSpec, *, name: str | None = None) -> Array:
        """Return a tensor that never changes size, made on the first call."""
        key = name or spec.name
        if key not in self._fixed:
            flat = self._backend.flat(_elements(spec), spec)
            self._fixed[key] = self._backend.view(flat, spec)
        return self._fixed[key]

    def memory(self) -> dict[str, Array]:
        """Return the memory tensors [1, H, rows, D] of the current bucket, by input name."""
        return {
            spec.name: self._backend.view(self._flat[spec.name], spec.bound(rows=self.num_rows))
            for spec in self._memory_specs
        }

    def grow(self) -> None:
        """Move to the next bucket; what is remembered stays, new rows are zero."""
        before = self.num_rows
        self.bucket += 1
        for spec in self._memory_specs:
            self._backend.regrow(
                self._flat[spec.name], spec.bound(rows=before), spec.bound(rows=self.num_rows)
            )

    def reset(self) -> None:
        """Zero everything and return to the first bucket, as if made anew."""
        self.bucket = 0
        for array in (*self._flat.values(), *self._fixed.values()):
            self._backend.zero(array)


def _elements(spec: TensorSpec) -> int:
    """Return the number of elements of a spec with a fixed shape."""
    count = 1
    for size in spec.fixed_shape:
        count *= size
    return count
