"""Narrow bytes: what quantization leaves of a bundle's weights, by type."""

import math
from dataclasses import dataclass
from pathlib import Path

from memorywam_export.checkpoints.weights import safetensors_header
from memorywam_export.quantize.quantize_weights import SCALE_SUFFIX
from memorywam_runtime.bundle import WEIGHTS_FILE
from memorywam_runtime.weight_bytes import weight_bytes_by_type

__all__ = ["NarrowBytes", "narrow_bytes"]


@dataclass(frozen=True, slots=True, kw_only=True)
class NarrowBytes:
    """Bytes of weights before and after."""

    wide: int
    """All weights of the bundle as exported."""
    narrow: int
    """All weights of the quantized bundle, with scales."""
    by_type: dict[str, int]
    """Of the quantized bundle."""
    num_quantized: int
    """Weights, counted one by one, that are quantized."""
    quantized: int
    """Bytes of these, with scales."""

    @property
    def ratio(self) -> float:
        """Return bytes after over bytes before, of all weights."""
        return self.narrow / self.wide

    @property
    def bits(self) -> float:
        """Return the bits that a quantized weight takes, its share of scales included."""
        return 8 * self.quantized / self.num_quantized if self.num_quantized else 0.0


def narrow_bytes(wide: Path, narrow: Path) -> NarrowBytes:
    """Compare the weights files of two bundles of one export.

    Args:
        wide: The bundle as exported.
        narrow: What was quantized from it.
    """
    before, _ = safetensors_header(wide / WEIGHTS_FILE)
    after, _ = safetensors_header(narrow / WEIGHTS_FILE)
    chosen = [name for name in after if name + SCALE_SUFFIX in after]
    return NarrowBytes(
        wide=sum(entry.num_bytes for entry in before.values()),
        narrow=sum(entry.num_bytes for entry in after.values()),
        by_type=weight_bytes_by_type(narrow / WEIGHTS_FILE),
        num_quantized=sum(math.prod(before[name].shape) for name in chosen),
        quantized=sum(
            after[each].num_bytes for name in chosen for each in (name, name + SCALE_SUFFIX)
        ),
    )
