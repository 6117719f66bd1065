"""One file of tensors, whatever its container: names, shapes and types, read without the data."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from safetensors import safe_open

from memorywam_export.checkpoints.name_map_format import Container
from memorywam_export.checkpoints.torch_files import flat_leaves, read_torch_file, weight_of_tensor
from memorywam_export.checkpoints.weights import Weight, safetensors_header
from memorywam_runtime.errors import CheckpointError

__all__ = ["TensorFile", "few", "tensor_file_from_path"]

_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorFile:
    """What a file holds, under the names that it gives."""

    path: Path
    container: Container
    tensors: Mapping[str, Weight]
    """Of nested dictionaries, the keys joined by dots."""
    values: Mapping[str, object] = field(default_factory=dict[str, object])
    """What stands between the tensors and is none, under names of the same form."""
    metadata: Mapping[str, str] = field(default_factory=dict[str, str])
    """The header's own remarks, of a safetensors file."""

    @property
    def names(self) -> frozenset[str]:
        """Every name, of tensors and of values."""
        return frozenset(self.tensors) | frozenset(self.values)


def tensor_file_from_path(path: Path) -> TensorFile:
    """Read a `.pt`, `.pth` or `.safetensors` file; each tensor is loaded when it is needed.

    Raises:
        CheckpointError: another suffix, a damaged file, one that would run code, or one name for
            two tensors.
    """
    if path.suffix == ".safetensors":
        return _from_safetensors(path)
    if path.suffix in (".pt", ".pth"):
        return _from_torch(path)
    raise CheckpointError(
        f"{path}: found suffix '{path.suffix}'; expected .pt, .pth or .safetensors"
    )


def few(names: Sequence[str]) -> str:
    """Return the first names of a list, and how many more there are."""
    more = f" and {len(names) - 4} more" if len(names) > 4 else ""
    return f"[{', '.join(names[:4])}{more}]"


def _from_safetensors(path: Path) -> TensorFile:
    """Return what a safetensors file holds."""
    entries, metadata = safetensors_header(path)
    tensors = {}
    for name, entry in entries.items():
        if entry.dtype not in _DTYPES:
            raise CheckpointError(
                f"{path}: '{name}' is of type {entry.dtype}; expected one of {', '.join(_DTYPES)}"
            )
        tensors[name] = Weight(
            name, entry.shape, _DTYPES[entry.dtype], partial(_loaded, path, name)
        )
    return TensorFile(path=path, container="safetensors", tensors=tensors, metadata=metadata)


def _loaded(path: Path, name: str) -> torch.Tensor:
    """Return one tensor of a safetensors file."""
    with safe_open(path, "pt") as file:
        tensor: torch.Tensor = file.get_tensor(name)
    return tensor


def _leaves_of(path: Path) -> Iterator[tuple[str, object]]:
    """Yield what a torch file holds; say which file it is that cannot be read."""
    content = read_torch_file(path)
    try:
        yield from flat_leaves(content)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error


def _from_torch(path: Path) -> TensorFile:
    """Return what a torch file holds."""
    tensors: dict[str, Weight] = {}
    values: dict[str, object] = {}
    for name, leaf in _leaves_of(path):
        if name in tensors or name in values:
            raise CheckpointError(f"{path}: two entries are named '{name}'; expected one")
        if isinstance(leaf, torch.Tensor):
            tensors[name] = weight_of_tensor(name, leaf)
        else:
            values[name] = leaf
    return TensorFile(path=path, container="torch", tensors=tensors, values=values)
