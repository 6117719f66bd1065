"""Shards: the statistics of one episode as a file, bound to all that they hang on."""

import hashlib
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import safetensors
from numpy.typing import NDArray
from safetensors.numpy import load, save

from memorywam_calibration.replay.activations import Activations
from memorywam_runtime.errors import InputError
from memorywam_runtime.files import atomic_write

__all__ = ["Point", "ShardFolder", "ShardKey", "shard_from_bytes", "shard_to_bytes"]

_MAGIC = b"memorywam shard 1\n"
_HASH_CHARS = 64
_MOST_BYTES = 1 << 31  # of one shard, unpacked; a real one has tens of megabytes
_COMPRESS_LEVEL = 1
"""Histograms are mostly zeros, and so are the upper bytes of sums."""
_META = "shard"
_ENDING = ".shard"


class _Part(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of all parts: immutable, keyword-only, and strict about unknown fields."""


class Point(_Part, frozen=True):
    """A decision point of the episode."""

    frame: int
    seed: int
    """Of the noise."""
    part: int
    """Of the nested parts, the one that it counts for."""


class ShardKey(_Part, frozen=True):
    """All that one episode's statistics hang on: the same key, the same bits."""

    contract_hash: str
    checkpoint_sha256: str
    manifest_sha256: str
    """Of the bundle's manifest, which holds the hash of every file of the bundle."""
    file_sha256s: dict[str, str]
    """Of graphs and weights."""
    recipe: str
    seed: int
    """Of split, choice and noise."""
    num_denoising_steps: int
    episode: str
    recording_sha256: str
    instruction: str
    points: tuple[Point, ...]
    num_parts: int
    cameras: dict[str, str]
    num_threads: int
    """Of torch: sums may round otherwise with more."""
    versions: dict[str, str]
    """Of what decodes and computes, and the kind of processor, for which torch has code."""
    gram_sites: tuple[str, ...] = ()
    """Whose products of channels are counted, too."""

    def differences(self, other: "ShardKey") -> list[str]:
        """Return the fields that are not the same."""
        names = (field.name for field in msgspec.structs.fields(self))
        return [name for name in names if getattr(self, name) != getattr(other, name)]


class _PartHead(_Part, frozen=True):
    """What JSON holds of one nested part."""

    samples: tuple[tuple[str, int, int], ...]
    counts: dict[str, int]
    sites: dict[str, dict[str, Any]]
    grams: tuple[str, ...] = ()
    """Sites whose products of channels were counted, too."""


class _Head(_Part, frozen=True):
    """What JSON holds of a shard."""

    key: ShardKey
    parts: tuple[_PartHead, ...]


def shard_to_bytes(key: ShardKey, parts: Sequence[Activations]) -> bytes:
    """Return the statistics of one episode as a file: a hash, and arrays under a JSON head."""
    arrays: dict[str, NDArray[Any]] = {}
    heads: list[_PartHead] = []
    for place, part in enumerate(parts):
        plain, some = part.state()
        heads.append(msgspec.convert(plain, _PartHead))
        arrays |= {f"{place}|{name}": array for name, array in some.items()}
    head = msgspec.json.encode(_Head(key=key, parts=tuple(heads)), order="sorted")
    body = zlib.compress(save(arrays, {_META: head.decode()}), _COMPRESS_LEVEL)
    return _MAGIC + hashlib.sha256(body).hexdigest().encode() + b"\n" + body


def shard_from_bytes(content: bytes, what: str) -> tuple[ShardKey, list[Activations]]:
    """Read a shard; nothing in it is run, and nothing is read before its hash is right.

    Args:
        content: From `shard_to_bytes`.
        what: Names it in an error.

    Raises:
        InputError: a damaged shard, one of another release, or one whose parts do not agree.
    """
    start = len(_MAGIC) + _HASH_CHARS + 1
    body = content[start:]
    expected = _MAGIC + hashlib.sha256(body).hexdigest().encode() + b"\n"
    if content[:start] != expected:
        raise InputError(f"{what}: its hash is not that of its content: it is damaged")
    try:
        raw = _unpacked(body)
        arrays = load(raw)
        head = msgspec.json.decode(_metadata(raw)[_META], type=_Head)
        parts = []
        for place, one in enumerate(head.parts):
            prefix = f"{place}|"
            some = {
                name.removeprefix(prefix): arrays.pop(name)
                for name in sorted(arrays)
                if name.startswith(prefix)
            }
            parts.append(Activations.from_state(msgspec.structs.asdict(one), some))
    except (
        InputError, zlib.error, safetensors.SafetensorError, msgspec.MsgspecError, KeyError,
        ValueError, TypeError, RecursionError,
    ) as error:  # fmt: skip
        raise InputError(f"{what}: no statistics that this release reads ({error})") from error
    if arrays or len(parts) != head.key.num_parts or _points(parts) != _expected(head.key):
        raise InputError(f"{what}: found other decision points, or other parts, than its key says")
    return head.key, parts


def _unpacked(body: bytes) -> bytes:
    packer = zlib.decompressobj()
    raw = packer.decompress(body, _MOST_BYTES)
    if not packer.eof:
        raise zlib.error("it is cut off, or larger than any")
    return raw


class ShardFolder:
    """The shards of a calibration that is under way, each written whole or not at all."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def beside(cls, out: Path) -> "ShardFolder":
        """Return the folder that belongs to a table; nothing is made yet."""
        return cls(out.with_name(f"{out.name}.shards"))

    @property
    def num_kept(self) -> int:
        """Return how many shards are there."""
        return len(self._files())

    def refuse_left_over(self) -> None:
        """Refuse to start while the shards of an interrupted run lie there.

        Raises:
            InputError: they do.
        """
        if self.path.exists():
            raise InputError(
                f"{self.path} holds {self.num_kept} episodes of a calibration that was "
                "interrupted; expected none: go on from there with --resume, or remove the folder"
            )

    def read(self, key: ShardKey) -> list[Activations] | None:
        """Return what was found under a key, or None where nothing was kept.

        Raises:
            InputError: a shard of this episode that is damaged, or is of another key.
        """
        file = self._file(key)
        if not file.is_file():
            return None
        found, parts = shard_from_bytes(file.read_bytes(), key.episode)
        if differing := found.differences(key):
            raise InputError(f"{key.episode}: made with another {', '.join(differing)}")
        return parts

    def write(self, key: ShardKey, content: bytes) -> None:
        """Keep a shard."""
        self.path.mkdir(exist_ok=True)
        atomic_write(self._file(key), content)

    def remove(self) -> None:
        """Remove the shards, and the folder if it holds nothing else."""
        if not self.path.is_dir():
            return
        for file in (*self._files(), *self.path.glob(f".*{_ENDING}.*.draft")):
            file.unlink(missing_ok=True)
        if not any(self.path.iterdir()):
            self.path.rmdir()

    def _files(self) -> list[Path]:
        """Return the shards that are there."""
        return sorted(self.path.glob(f"*{_ENDING}"))

    def _file(self, key: ShardKey) -> Path:
        """Return where an episode's shard is; names of episodes need not fit a file system."""
        return self.path / (hashlib.sha256(key.episode.encode()).hexdigest()[:24] + _ENDING)


def _metadata(raw: bytes) -> dict[str, str]:
    """Return the metadata in a safetensors head, which `load` has checked and passes over."""
    size = int.from_bytes(raw[:8], "little")
    head = msgspec.json.decode(raw[8 : 8 + size], type=dict[str, msgspec.Raw])
    return msgspec.json.decode(head["__metadata__"], type=dict[str, str])


def _points(parts: Sequence[Activations]) -> list[tuple[int, str, int, int]]:
    """Return the decision points that parts hold."""
    return sorted(
        (place, one.episode, one.frame, one.seed)
        for place, part in enumerate(parts)
        for one in part.samples
    )


def _expected(key: ShardKey) -> list[tuple[int, str, int, int]]:
    """Return the decision points that a key names."""
    return sorted((one.part, key.episode, one.frame, one.seed) for one in key.points)
