"""Weights on disk as one safetensors file: read where they lie, written one tensor at a time."""

import hashlib
import itertools
import json
import math
import struct
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open

from memorywam_runtime.errors import CheckpointError

__all__ = [
    "TORCH_DTYPES",
    "HeaderEntry",
    "Span",
    "Weight",
    "random_weights",
    "safetensors_header",
    "weight_spans",
    "write_weights",
]

TORCH_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
}
_SAFETENSORS_DTYPES = {dtype: name for name, dtype in TORCH_DTYPES.items()} | {
    # What quantization leaves; no checkpoint may hold them.
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.float8_e4m3fn: "F8_E4M3",
}


_BLOCK = 1 << 19
"""Random values made at once; a multiple of four, so that every block uses whole draws."""


_MOST_HEADER_BYTES = 100_000_000
"""What the format allows."""


@dataclass(frozen=True, slots=True)
class Weight:
    """One tensor still to be made."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    load: Callable[[], torch.Tensor]
    """Returns the tensor in this shape and type."""

    def checked(self) -> torch.Tensor:
        """Load the tensor and see that it is as announced.

        Raises:
            CheckpointError: another shape or type.
        """
        tensor = self.load()
        if tuple(tensor.shape) != self.shape or tensor.dtype != self.dtype:
            raise CheckpointError(
                f"'{self.name}': found {tensor.dtype} {list(tensor.shape)}; "
                f"expected {self.dtype} {list(self.shape)}"
            )
        return tensor


@dataclass(frozen=True, slots=True)
class Span:
    """Where one tensor's bytes lie in a safetensors file."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    offset: int
    """From the start of the file, bytes."""
    num_bytes: int


def write_weights(path: Path, weights: Iterable[Weight]) -> str:
    """Write a safetensors file, holding one tensor in memory at a time; return its SHA-256.

    The same weights give the same bytes: tensors stand in the order of their names. The hash is
    taken on the way: at the real size, reading 12 GB again costs as much as all the graphs.
    """
    ordered = sorted(weights, key=lambda weight: weight.name)
    header: dict[str, object] = {}
    offset = 0
    for weight in ordered:
        num_bytes = math.prod(weight.shape) * weight.dtype.itemsize
        header[weight.name] = {
            "dtype": _SAFETENSORS_DTYPES[weight.dtype],
            "shape": list(weight.shape),
            "data_offsets": [offset, offset + num_bytes],
        }
        offset += num_bytes
    text = json.dumps(header, separators=(",", ":")).encode()
    # The data starts on a page, so that a reader can map single tensors.
    text += b" " * (-(8 + len(text)) % 4096)
    digest = hashlib.sha256()
    with path.open("wb") as file:
        start = memoryview(struct.pack("<Q", len(text)) + text)
        for chunk in itertools.chain([start], map(_bytes_of, ordered)):
            digest.update(chunk)
            file.write(chunk)
    return digest.hexdigest()


@dataclass(frozen=True, slots=True)
class HeaderEntry:
    """What a safetensors file's header says of one tensor."""

    shape: tuple[int, ...]
    dtype: str
    """As the format spells it: F32, BF16, I64, ..."""
    offset: int
    """From the start of the file, bytes."""
    num_bytes: int


def safetensors_header(path: Path) -> tuple[dict[str, HeaderEntry], dict[str, str]]:
    """Return the tensors of a safetensors file by name, and the remarks in its header.

    Raises:
        CheckpointError: the file is damaged.
    """
    if not path.is_file():
        raise CheckpointError(
            f"{path} is not a whole safetensors file: it is no file; expected weights"
        )
    with _checked(path), path.open("rb") as file:
        (size,) = struct.unpack("<Q", file.read(8))
        most = min(path.stat().st_size, _MOST_HEADER_BYTES)
        if size > most:
            raise ValueError(f"a header of {size:,} bytes; expected at most {most:,}")
        header = json.loads(file.read(size))
        metadata = header.pop("__metadata__", None) or {}
        entries = {}
        for name, entry in header.items():
            begin, end = entry["data_offsets"]
            shape = tuple(entry["shape"])
            entries[name] = HeaderEntry(shape, entry["dtype"], 8 + size + begin, end - begin)
    with _checked(path), safe_open(path, "pt"):
        pass  # the library checks that the tensors cover the file exactly
    return entries, metadata


def weight_spans(path: Path) -> dict[str, Span]:
    """Return where each tensor of a safetensors file lies.

    Raises:
        CheckpointError: the file is damaged, or holds a type other than floats of 2, 4, 8 bytes.
    """
    entries, _ = safetensors_header(path)
    with _checked(path):
        return {
            name: Span(entry.shape, TORCH_DTYPES[entry.dtype], entry.offset, entry.num_bytes)
            for name, entry in entries.items()
        }


def random_weights(
    shapes: Iterable[tuple[str, tuple[int, ...]]], dtype: torch.dtype, seed: int
) -> Iterator[Weight]:
    """Yield random weights of a model's shapes: the same for the same seed, in any order.

    Scaled to keep activations near 1: uniform with variance 1 / fan-in for matrices, small
    values for biases, near 1 for norms. For benchmarks and scale tests, not for behaviour.
    """
    for index, (name, shape) in enumerate(sorted(shapes)):
        yield Weight(name, shape, dtype, _RandomTensor(name, shape, dtype, (seed, index)))


@dataclass(frozen=True, slots=True)
class _RandomTensor:
    """Makes one random tensor when called."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    seed: tuple[int, int]

    def __call__(self) -> torch.Tensor:
        """Return the tensor."""
        count = math.prod(self.shape)
        draws = np.random.SFC64(self.seed)
        is_norm = self.name.endswith(("gamma", "norm_q.weight", "norm_k.weight", "norm3.weight"))
        fan_in = math.prod(self.shape[1:]) if len(self.shape) > 1 else 1
        width = 0.1 if len(self.shape) == 1 else math.sqrt(3 / fan_in)
        tensor = torch.empty(count, dtype=self.dtype)
        # In blocks that stay in the cache: six billion values are made in a minute.
        for start in range(0, count, _BLOCK):
            size = min(_BLOCK, count - start)
            raw = draws.random_raw((size + 3) // 4)  # four values of 16 bits a draw
            bits = raw.view(np.uint16)[:size].astype(np.uint32)
            # A float32 in [1, 2) from 16 random mantissa bits, moved to [-width, width).
            values = ((bits << 7) | np.uint32(0x3F800000)).view(np.float32)
            values -= np.float32(1.5)
            values *= np.float32(2 * width)
            if is_norm:
                values += np.float32(1)
            tensor[start : start + size] = torch.from_numpy(values)
        return tensor.reshape(self.shape)


def _bytes_of(weight: Weight) -> memoryview:
    """Return one tensor's bytes, made now."""
    tensor = weight.checked()
    flat: NDArray[np.uint8] = tensor.contiguous().reshape(-1).view(torch.uint8).numpy()
    return flat.data


@contextmanager
def _checked(path: Path) -> Iterator[None]:
    """Turn what goes wrong in a damaged file into one clear error."""
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, struct.error) as error:
        raise CheckpointError(f"{path} is not a whole safetensors file: {error}") from error
    except Exception as error:  # safetensors raises an exception class of its own
        raise CheckpointError(f"{path} is not a whole safetensors file: {error}") from error
