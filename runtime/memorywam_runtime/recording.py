"""Recording: an episode on disk as what the policy got and gave, whatever the file's format."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from memorywam_runtime.errors import InputError
from memorywam_runtime.observation import Observation

__all__ = [
    "SHADOW",
    "Acted",
    "Ending",
    "Event",
    "Header",
    "Instructed",
    "Kind",
    "Observed",
    "Provenance",
    "Recording",
    "Remembered",
    "Sent",
    "open_recording",
    "open_recordings",
]

Kind = Literal["mcap", "lerobot", "folder", "hdf5"]
SHADOW = "shadow:"
"""What a robot's name begins with in a header, where somebody else moved the arms: actions are what
they did, not what they were told."""
_HDF5 = b"\x89HDF\r\n\x1a\n"
_HDF5_ENDINGS = (".hdf5", ".h5")


class _Part(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of all parts: immutable, keyword-only, and strict about unknown fields."""


class Header(_Part, frozen=True, kw_only=True):
    """What is known of an episode before its first step."""

    instruction: str
    seed: int = 0
    """Of the policy's noise, and of the robot's episode where it has one."""
    max_steps: int
    """Longest that the episode could get, environment steps."""
    control_hz: float
    """Environment steps a second."""
    cameras: tuple[str, ...]
    state_dim: int
    action_dim: int
    action_names: tuple[str, ...] = ()
    """One a joint; empty where nobody named them."""
    robot: str = ""


class Provenance(_Part, frozen=True, kw_only=True):
    """What an episode was made with: all that must be the same for the same bits."""

    contract_hash: str
    checkpoint_sha256: str
    manifest_sha256: str
    """Of the bundle's manifest, which holds the hash of every file of the bundle."""
    backend: str
    num_threads: int
    """As it was asked for; 0 let the backend choose."""
    num_denoising_steps: int
    hidden: tuple[str, ...]
    """Parts of memory that were hidden: anchors, window, gists."""
    versions: tuple[str, ...]
    """Packages and the machine, each as name==version."""
    loop: Literal["sync", "async"] = "sync"
    """async: memory went on while chunks were made, so a chunk may stand after later frames."""


class Ending(_Part, frozen=True, kw_only=True):
    """What is known of an episode after its last step."""

    success: Literal["yes", "no", "unknown"]
    remark: str
    num_steps: int
    num_frames: int
    """Latent frames remembered."""
    num_dropped: int
    """Events that were not written, because the disk did not keep up."""
    memory_digest: str
    """Of all memory after the last chunk; see `memorywam_runtime.digest`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """The policy was given an observation."""

    observation: Observation
    captured_ns: int
    """When the cameras were asked, or their own time where they have one; monotonic."""
    received_ns: int
    """When the host had all of it; monotonic."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Remembered:
    """The observations since the last frame became a frame in memory."""

    frame: int
    """Its number, from 0."""
    steps: tuple[int, ...]
    """Of its observations."""
    slot: int
    evicted: int
    """Frame that the slot held before, -1 if none; its gist stays."""
    num_gists: int
    """Places of the gist table in use afterwards."""
    memory_digest: str
    """Empty unless it was asked for."""
    received_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Acted:
    """The policy gave a chunk."""

    frame: int
    """The newest frame in memory."""
    state: NDArray[np.float64]
    """Joint positions [state_dim] that it was given."""
    chunk: NDArray[np.float64]
    """Actions [horizon, action_dim] in the robot's units; none where it was begun and given up: the
    joint state that it was given is in force all the same."""
    received_ns: int
    prefix: NDArray[np.float64] | None = None
    """Actions [d, action_dim] that it was made to begin with, as they were executed meanwhile."""
    attempt: int = 0
    """Of an asynchronous loop: 1 where the frame's first chunk was not to be used."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """The arms executed an action."""

    step: int
    """From 1: the step that it made."""
    action: NDArray[np.float64]
    """Joint targets [action_dim] in the robot's units."""
    received_ns: int
    state: NDArray[np.float64] | None = None
    """Joint positions [state_dim] as the step began; None where nobody measured them then."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Instructed:
    """The policy was given another instruction in the middle of the episode."""

    step: int
    """Environment steps of the episode, all told, that were over."""
    instruction: str
    keep_memory: bool
    """Whether frames stayed; if not, memory was emptied and observations count from step 0 again.
    """
    received_ns: int


Event = Observed | Remembered | Acted | Sent | Instructed


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """An episode that has been looked at from end to end; its images are still on disk."""

    path: Path
    kind: Kind
    header: Header
    num_events: int
    """That can be read."""
    damage: str | None = None
    """Why it ends early, or what else is wrong with the file; None if it is whole."""
    ending: Ending | None = None
    """None where the recording ends early, or where nobody wrote one."""
    provenance: Provenance | None = None
    """None where a policy had no part in it: such a recording has no `Remembered`, no `Acted`."""
    read: Callable[[], Iterator[Event]] = field(repr=False)

    def events(self) -> Iterator[Event]:
        """Yield what happened, in order, up to the damage if there is any.

        Images are decoded as they are met, so that an episode of any length can be read.

        Raises:
            InputError: an image that cannot be decoded, or a file that has changed since.
        """
        return self.read()


def open_recording(
    path: str | Path, *, episode: int = 0, control_hz: float | None = None
) -> Recording:
    """Look at one recording of any kind.

    Args:
        path: An MCAP file, an HDF5 file of RoboTwin or RMBench, a LeRobot dataset's directory, or
            a plain folder.
        episode: Which one of a LeRobot dataset.
        control_hz: Environment steps a second, the contract's: for HDF5 files that do not say.

    Raises:
        InputError: no recording, or one that cannot be read at all; the text says why.
        MissingPartError: the package that reads this kind is not installed; the text names it.
    """
    where = Path(path)
    kind = _kind(where)
    if episode and kind != "lerobot":
        raise InputError(f"found episode {episode} of {where}, which holds one; expected 0")
    if kind == "mcap":
        from memorywam_runtime.recordings.recording_mcap import read_mcap

        return read_mcap(where)
    if kind == "hdf5":
        from memorywam_runtime.recordings.recording_hdf5 import read_hdf5

        return read_hdf5(where, control_hz=control_hz)
    if kind == "lerobot":
        from memorywam_runtime.recordings.recording_lerobot import read_lerobot

        return read_lerobot(where, episode=episode)
    from memorywam_runtime.recordings.recording_folder import read_folder

    return read_folder(where)


def open_recordings(path: str | Path, *, control_hz: float | None = None) -> list[Recording]:
    """Look at every recording in a place, in the order of their names or numbers.

    Args:
        path: One recording, a LeRobot dataset, or a directory of MCAP files, HDF5 files, plain
            folders and datasets; of RoboTwin and RMBench also the one above, where HDF5 files are
            in `data`.
        control_hz: As for `open_recording`.

    Raises:
        InputError: there is none, or one that cannot be read at all.
        MissingPartError: the package that reads one of them is not installed.
    """
    where = Path(path)
    if where.is_dir() and not _is_recording(where):
        files = [one for one in sorted(where.iterdir()) if _is_recording(one)]
        if not files and (where / "data").is_dir():
            files = [one for one in sorted((where / "data").iterdir()) if _is_hdf5(one)]
        if not files:
            raise InputError(
                f"no recording in {where}; expected files that end in .mcap or .hdf5, LeRobot "
                "datasets, or directories with a recording.json"
            )
        return [episode for one in files for episode in _episodes(one, control_hz)]
    return _episodes(where, control_hz)


def _episodes(path: Path, control_hz: float | None) -> list[Recording]:
    """Return a recording, or all of a dataset's."""
    first = open_recording(path, control_hz=control_hz)
    if first.kind != "lerobot":
        return [first]
    from memorywam_runtime.recordings.recording_lerobot import count_episodes

    return [first, *(open_recording(path, episode=n) for n in range(1, count_episodes(path)))]


def _kind(path: Path) -> Kind:
    """Tell from what lies there which reader it is for."""
    if path.is_file():
        with path.open("rb") as stream:
            is_hdf5 = stream.read(len(_HDF5)) == _HDF5
        return "hdf5" if is_hdf5 or _is_hdf5(path) else "mcap"
    if (path / "meta" / "info.json").is_file():
        return "lerobot"
    if (path / "recording.json").is_file():
        return "folder"
    found = "a directory with neither" if path.is_dir() else "nothing"
    raise InputError(
        f"no recording at {path}: found {found}; expected an MCAP or HDF5 file, a LeRobot dataset "
        "(meta/info.json) or a folder with a recording.json"
    )


def _is_recording(path: Path) -> bool:
    """Does this look like one recording, or one dataset?"""
    if path.is_file():
        return path.name.endswith((".mcap", ".mcap.part")) or _is_hdf5(path)
    return any((path / name).is_file() for name in ("meta/info.json", "recording.json"))


def _is_hdf5(path: Path) -> bool:
    """Does this call itself an HDF5 file?"""
    return path.is_file() and path.name.endswith(_HDF5_ENDINGS)
