"""What a name map's file says: which name upstream stands for which of ours."""

import re
from pathlib import Path
from typing import Literal

import msgspec

from memorywam_runtime.errors import InputError
from memorywam_runtime.files import read_file

__all__ = [
    "Agreement",
    "Container",
    "MapFile",
    "NamedReason",
    "Requirement",
    "Rule",
    "map_file_from_json",
    "map_file_from_path",
]

_MOST_BYTES = 1 << 24
_MOST_AXES = 8
_PLACEHOLDER = re.compile("[a-z_]+")
Container = Literal["safetensors", "torch"]


class _Part(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of all parts: immutable, keyword-only, and strict about unknown fields."""


class Rule(_Part, frozen=True):
    """One form of names, and what it is called here; both have the same placeholders."""

    upstream: str
    ours: str
    also: tuple[str, ...] = ()
    """Other names upstream gives the same tensor; read, never written."""
    leading_axes: int = 0
    """Axes of size 1 that upstream has in front."""

    def __post_init__(self) -> None:
        """Refuse a number of axes that no tensor has."""
        if not 0 <= self.leading_axes <= _MOST_AXES:
            raise InputError(f"found leading_axes {self.leading_axes}; expected 0 to {_MOST_AXES}")


class NamedReason(_Part, frozen=True):
    """Names that are left out, refused, or no tensors, and why."""

    upstream: str
    why: str
    also: tuple[str, ...] = ()
    twin: str = ""
    """Left out only where the tensor stands under this name too, in the same shape."""


class Agreement(_Part, frozen=True):
    """A value that the checkpoint declares, and the contract's field that must equal it."""

    declared: str
    contract: str


class Requirement(_Part, frozen=True):
    """A value that the checkpoint, where it declares it, must declare thus."""

    declared: str
    equals: bool | int | float | str | None
    why: str


class MapFile(_Part, frozen=True):
    """A name map as it is written down.

    Names are flat: of nested dictionaries, the keys joined by dots.
    """

    name: str
    family: str
    """What a checkpoint of such names is."""
    source: str
    """The upstream file that the names were taken from."""
    certain: bool
    """Whether upstream's published code has all of these names."""
    containers: tuple[Container, ...]
    markers: tuple[tuple[str, ...], ...]
    """The names by which a file is recognised: one of each group is there."""
    rules: tuple[Rule, ...]
    automatic: bool = True
    """Whether it is chosen by its markers; otherwise only by name."""
    note: str = ""
    holds: Literal["checkpoint", "encoder"] = "checkpoint"
    prefixes: tuple[str, ...] = ("",)
    """What may stand in front of every name."""
    placeholders: dict[str, tuple[str, ...]] = {}
    without: tuple[str, ...] = ()
    """Names that say that it is something else."""
    unused: tuple[NamedReason, ...] = ()
    refused: tuple[NamedReason, ...] = ()
    lacks: tuple[str, ...] = ()
    """Our names that such a file cannot hold."""
    values: tuple[NamedReason, ...] = ()
    """What stands between the tensors and is none."""
    agrees: tuple[Agreement, ...] = ()
    requires: tuple[Requirement, ...] = ()

    def __post_init__(self) -> None:
        """Refuse placeholders that nothing can stand for."""
        if wrong := [name for name in self.placeholders if not _PLACEHOLDER.fullmatch(name)]:
            raise InputError(
                f"found the placeholder {wrong[0]!r}; expected small letters and underscores"
            )


def map_file_from_json(text: bytes, where: str) -> MapFile:
    """Read a name map.

    Args:
        text: The JSON.
        where: Where it was found, for the error.

    Raises:
        InputError: not JSON, an unknown or missing field, or a wrong type.
    """
    try:
        return msgspec.json.decode(text, type=MapFile)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(
            f"{where} is no name map: {error}; expected the fields of MapFile, as the files in "
            "memorywam_export/checkpoints/upstream_names have them"
        ) from error


def map_file_from_path(path: Path) -> MapFile:
    """Read a name map of one's own.

    Raises:
        InputError: the file cannot be read, or is no name map.
    """
    try:
        text = read_file(path, _MOST_BYTES)
    except OSError as error:
        raise InputError(f"cannot read the name map {path}: {error}") from error
    return map_file_from_json(text, str(path))
