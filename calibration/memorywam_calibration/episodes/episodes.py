"""The recordings of a place as episodes, each with its hash and its part of the split."""

import hashlib
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from memorywam_runtime.contract import InferenceContract
from memorywam_runtime.errors import InputError
from memorywam_runtime.files import sha256_of
from memorywam_runtime.recording import Recording, open_recordings
from memorywam_runtime.recordings.recording_fit import check_joints

__all__ = [
    "SHARES",
    "SPLITS",
    "Episode",
    "Split",
    "content_hash",
    "count_by_split",
    "episodes_in",
    "fraction_of",
]

Split = Literal["calibration", "development", "held_out"]
SPLITS: tuple[Split, ...] = ("calibration", "development", "held_out")
SHARES = (0.6, 0.2, 0.2)
"""Of the episodes, in the order of `SPLITS`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Episode:
    """One recording, and what it is for."""

    name: str
    """Of the file or folder; of a data set its name and the episode's number."""
    sha256: str
    """Of the file, or of the names and hashes of all files of a folder or data set."""
    split: Split
    recording: Recording
    number: int = 0
    """Of a data set's episodes."""


def episodes_in(
    place: Path,
    contract: InferenceContract,
    contract_hash: str,
    *,
    seed: int = 0,
    shares: Sequence[float] = SHARES,
) -> list[Episode]:
    """Return the episodes of a place, by name.

    The split hangs on seed and name alone: it stays as it is when episodes are added.

    Args:
        place: One recording, a LeRobot data set, or a directory of recordings.
        contract: That they must fit; its rate counts where a recording does not say its own.
        contract_hash: Of the bundle, which recordings of a policy must name.
        seed: Of the split.
        shares: Of the parts, in the order of `SPLITS`.

    Raises:
        InputError: no recording, one of another contract or robot, or the same one twice.
        MissingPartError: the package that reads one of them is not installed.
    """
    if len(shares) != len(SPLITS) or min(shares) < 0 or not math.isclose(sum(shares), 1.0):
        raise InputError(
            f"found shares {list(shares)}; expected {len(SPLITS)} numbers of at least 0 whose sum "
            f"is 1, for {', '.join(SPLITS)}"
        )
    hashes: dict[Path, str] = {}
    found = []
    numbers = Counter[Path]()
    for recording in open_recordings(place, control_hz=contract.observations.control_hz):
        _check_fits(recording, contract, contract_hash)
        path = recording.path
        if path not in hashes:
            hashes[path] = content_hash(path)
        name = _plain_name(path)
        if recording.kind == "lerobot":
            name = f"{name}#{numbers[path]:06d}"
        split = _split_of(fraction_of(seed, name), shares)
        found.append(
            Episode(
                name=name,
                sha256=hashes[path],
                split=split,
                recording=recording,
                number=numbers[path],
            )
        )
        numbers[path] += 1
    _refuse_doubles(found)
    return sorted(found, key=lambda episode: episode.name)


def fraction_of(*parts: object) -> float:
    """Return a number in [0, 1) that hangs on the parts alone, on every machine the same."""
    digest = hashlib.sha256("\n".join(str(part) for part in parts).encode()).digest()
    return int.from_bytes(digest[:6], "big") / (1 << 48)


def _split_of(fraction: float, shares: Sequence[float]) -> Split:
    """Return the part that a fraction falls into."""
    if fraction < shares[0]:
        return "calibration"
    return "development" if fraction < shares[0] + shares[1] else "held_out"


def _plain_name(path: Path) -> str:
    """Return a recording's name, without the endings of a file."""
    name = path.resolve().name.removesuffix(".part")
    for ending in (".mcap", ".hdf5", ".h5"):
        name = name.removesuffix(ending)
    return name


def content_hash(path: Path) -> str:
    """Hash a file, or all files under a directory with their names."""
    if path.is_file():
        return sha256_of(path)
    digest = hashlib.sha256()
    for file in sorted(one for one in path.rglob("*") if one.is_file()):
        digest.update(f"{file.relative_to(path).as_posix()} {sha256_of(file)}\n".encode())
    return digest.hexdigest()


def _check_fits(recording: Recording, contract: InferenceContract, contract_hash: str) -> None:
    """Refuse an episode of another model or robot."""
    made = recording.provenance
    if made is not None and made.contract_hash != contract_hash:
        raise InputError(
            f"{recording.path} was recorded with contract {made.contract_hash[:12]}...; expected "
            f"{contract_hash[:12]}... ('{contract.name}'), that of the bundle: calibrate with "
            "episodes of this checkpoint, or move this one elsewhere"
        )
    check_joints(recording, contract)


def _refuse_doubles(episodes: Sequence[Episode]) -> None:
    """Refuse one episode under two names: it could be in two parts of the split."""
    first: dict[str, Episode] = {}
    for episode in episodes:
        other = first.setdefault(_content_key(episode), episode)
        if other is not episode:
            raise InputError(
                f"found {other.recording.path} and {episode.recording.path} with the same bytes; "
                "expected each episode once: the same data would calibrate and judge; remove one"
            )
    names = Counter(episode.name for episode in episodes)
    for name, count in names.items():
        if count > 1:
            raise InputError(
                f"found {count} recordings named '{name}'; expected one: whole and unfinished "
                "ones lie side by side; remove one, or rename it"
            )


def _content_key(episode: Episode) -> str:
    """Return what no other episode may have: episodes of one data set share its files."""
    is_set = episode.recording.kind == "lerobot"
    return f"{episode.sha256} {episode.name.rpartition('#')[2] if is_set else ''}"


def count_by_split(episodes: Sequence[Episode]) -> Mapping[Split, int]:
    """Return how many episodes each part has."""
    return {split: sum(one.split == split for one in episodes) for split in SPLITS}
