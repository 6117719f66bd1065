"""Bytes of a bundle's weights by element type, read from the header of their file alone."""

import json
from collections import Counter
from pathlib import Path

from memorywam_runtime.errors import BundleError

__all__ = ["weight_bytes_by_type"]

_LENGTH_BYTES = 8
_MOST_HEADER_BYTES = 100_000_000
"""What the format allows."""
_TYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "F8_E4M3": "float8e4m3fn",
    "I64": "int64",
    "I8": "int8",
    "U8": "int4",
}
"""By the name in a safetensors header; bytes are pairs of int4 in a bundle."""


def weight_bytes_by_type(path: Path) -> dict[str, int]:
    """Return the bytes of a safetensors file's tensors by element type, the most first.

    Raises:
        BundleError: no such file.
    """
    try:
        with path.open("rb") as file:
            size = int.from_bytes(file.read(_LENGTH_BYTES), "little")
            header = json.loads(file.read(min(size, _MOST_HEADER_BYTES)))
        counts: Counter[str] = Counter()
        for name, entry in header.items():
            if name != "__metadata__":
                first, end = entry["data_offsets"]
                kind = str(entry["dtype"])
                counts[_TYPES.get(kind, kind)] += end - first
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise BundleError(
            f"{path}: found no header of weights ({error}); expected a safetensors file: export "
            "again, or copy the whole folder"
        ) from error
    return dict(counts.most_common())
