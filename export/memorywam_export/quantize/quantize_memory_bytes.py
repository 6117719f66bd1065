"""How much memory a bundle keeps by episode length, as exported and with a narrow window."""

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from memorywam_export.quantize.quantize_memory import check_window
from memorywam_export.recipes.recipes import RECIPES
from memorywam_runtime.bench.bench_sizes import full_history_bytes, memory_bytes, most_frames
from memorywam_runtime.manifest import Manifest, MemoryQuantization, Quantization

__all__ = ["FRAMES", "MemoryBytes", "memory_bytes_rows"]

FRAMES = (1, 10, 60, 300, 1000)


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryBytes:
    """What is kept after some frames, bytes: allocated, by the gist table's bucket."""

    frames: int
    wide: int
    """Of the bundle as exported."""
    narrow: int
    """With the window in 8 bits."""
    full_history: int
    """Of a model that keeps every visual token, wide."""

    @property
    def share(self) -> float:
        """What the narrow window leaves of the wide memory."""
        return self.narrow / self.wide


def memory_bytes_rows(manifest: Manifest, frames: Sequence[int] = FRAMES) -> list[MemoryBytes]:
    """Return what memory takes after each number of frames; those that it cannot hold are left out.

    All types of 8 bits are alike here. Of the newest frame the window holds a copy, too.

    Args:
        manifest: Of a bundle, quantized or not.
        frames: Episode lengths.

    Raises:
        InputError: a memory without a window that could be narrow.
    """
    recipe = RECIPES["kv-int8"]
    check_window(manifest, recipe)
    wide = msgspec.structs.replace(manifest, quantization=None)
    kept = MemoryQuantization(dtype="int8", key_scales=(), value_scales=())
    quantization = Quantization(recipe=recipe.name, table=None, sites=(), wide={}, memory=kept)
    narrow = msgspec.structs.replace(manifest, quantization=quantization)
    most = most_frames(manifest)
    return [
        MemoryBytes(
            frames=count,
            wide=memory_bytes(wide, count),
            narrow=memory_bytes(narrow, count),
            full_history=full_history_bytes(wide, count),
        )
        for count in frames
        if most is None or count <= most
    ]
