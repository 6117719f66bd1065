"""Faults of cameras by a schedule: what goes wrong at which frame, the same every time."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from memorywam_runtime.errors import InputError
from memorywam_runtime.files import read_file

__all__ = ["Fault", "FaultReplay", "FaultSchedule", "Shot", "faults_from_json", "read_faults"]

# Nothing of a run is larger; beyond it sums overflow, and every pair of faults is compared.
_MOST, _MOST_FAULTS, _MOST_BYTES = 1e12, 4096, 1 << 24


class _Fault(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind"
):
    """Something that goes wrong from one frame on."""

    changes: ClassVar[Literal["time", "image"]] = "time"
    at: int
    """First frame, counted from 0 as the source gives them."""
    camera: str = ""
    """Of this camera; empty for every one."""

    @property
    def frames(self) -> range:
        """Return the frames that it concerns."""
        return range(self.at, self.at + 1)


class _Run(_Fault, frozen=True, kw_only=True):
    count: int = 1
    """Frames in a row."""

    @property
    def frames(self) -> range:
        """Return the frames that it concerns."""
        return range(self.at, self.at + self.count)


class Drop(_Run, frozen=True, kw_only=True, tag="drop"):
    """Frames that never come; numbers go on."""


class Late(_Run, frozen=True, kw_only=True, tag="late"):
    """Frames that come later than they were taken; those after them wait, as on a stalled bus."""

    by_ms: float


class Duplicate(_Run, frozen=True, kw_only=True, tag="duplicate"):
    """Frames that come twice."""


class Reorder(_Fault, frozen=True, kw_only=True, tag="reorder"):
    """A frame that comes after the next one."""

    @property
    def frames(self) -> range:
        """Return both frames."""
        return range(self.at, self.at + 2)


class Freeze(_Run, frozen=True, kw_only=True, tag="freeze"):
    """The image before again and again, while numbers and stamps go on."""

    changes: ClassVar[Literal["time", "image"]] = "image"


class Black(_Run, frozen=True, kw_only=True, tag="black"):
    """Nothing but black."""

    changes: ClassVar[Literal["time", "image"]] = "image"


class Covered(_Run, frozen=True, kw_only=True, tag="covered"):
    """A hand before the lens: the mean colour at a quarter of its brightness, all over."""

    changes: ClassVar[Literal["time", "image"]] = "image"


class Unplug(_Fault, frozen=True, kw_only=True, tag="unplug"):
    """The camera leaves the bus with this frame, and comes back after a time or never."""

    replug_after_ms: float | None = None


Fault = Drop | Late | Duplicate | Reorder | Freeze | Black | Covered | Unplug


class FaultSchedule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All faults of a run, in any order; no frame has two that concern its time, or its image."""

    version: Literal[1] = 1
    faults: tuple[Fault, ...] = ()

    def __post_init__(self) -> None:
        """Refuse numbers that mean nothing, and faults that contradict each other."""
        if len(self.faults) > _MOST_FAULTS:
            raise InputError(
                f"found {len(self.faults):,} faults; expected at most {_MOST_FAULTS:,}: one fault "
                "may be of many frames (count)"
            )
        for index, fault in enumerate(self.faults):
            _check(fault, index)
        for index, fault in enumerate(self.faults):
            for other_index, other in enumerate(self.faults[:index]):
                if _contradict(fault, other):
                    raise InputError(
                        f"faults[{index}] ({_named(fault)}) and faults[{other_index}] "
                        f"({_named(other)}) both change the {fault.changes} of a frame; expected "
                        "at most one that does: move one of them"
                    )

    def for_camera(self, name: str) -> tuple[Fault, ...]:
        """Return the faults of one camera."""
        return tuple(fault for fault in self.faults if fault.camera in ("", name))


def faults_from_json(text: bytes | str) -> FaultSchedule:
    """Return a schedule from JSON.

    Raises:
        InputError: no JSON, an unknown kind or field, or faults that contradict each other.
    """
    try:
        return msgspec.json.decode(text, type=FaultSchedule)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        kinds = ", ".join(kind.__name__.lower() for kind in (Drop, Late, Duplicate, Reorder, Freeze,
                                                             Black, Covered, Unplug))  # fmt: skip
        raise InputError(
            f"no fault schedule: {error}; expected "
            '{"version": 1, "faults": [{"kind": KIND, "at": FRAME, ...}]} with a KIND of '
            f"{kinds}"
        ) from error


def read_faults(path: Path) -> FaultSchedule:
    """Return a schedule from a JSON file.

    Raises:
        InputError: it cannot be read, or is no schedule.
    """
    try:
        return faults_from_json(read_file(path, _MOST_BYTES))
    except OSError as error:
        raise InputError(
            f"{path} cannot be read: {error.strerror}; expected a JSON file"
        ) from error
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Shot:
    """One image as a source gives it."""

    image: NDArray[np.uint8]
    number: int
    """The camera's count."""
    captured_ns: int
    due_ns: int
    """When it comes out."""


class FaultReplay:
    """Does to the shots of one camera what a schedule says, and nothing else; it has no clock."""

    def __init__(self, schedule: FaultSchedule, camera: str = "") -> None:
        """Begin before the first shot."""
        self._faults = schedule.for_camera(camera)
        self._index = -1
        self._image: NDArray[np.uint8] | None = None
        self._waiting: list[Shot] = []
        self._overtaken: Shot | None = None
        self._last_due_ns = 0
        self._back_ns: float = -1

    def is_unplugged(self, now_ns: int) -> bool:
        """Return whether the camera is off the bus."""
        return now_ns < self._back_ns

    def put(self, shot: Shot) -> None:
        """Take the next shot of the source; numbers need not follow, times do."""
        self._index += 1
        shot = replace(shot, image=self._shown(shot.image))
        if self.is_unplugged(shot.captured_ns):
            return
        fault = self._fault("time")
        if isinstance(fault, Unplug):
            self._unplug(fault, shot.captured_ns)
            return
        if isinstance(fault, Drop):
            return
        if isinstance(fault, Reorder) and self._index == fault.at:
            self._overtaken = shot
            return
        late_ns = round(fault.by_ms * 1e6) if isinstance(fault, Late) else 0
        self._send(replace(shot, due_ns=shot.due_ns + late_ns))
        if isinstance(fault, Duplicate):
            self._send(shot)
        if self._overtaken is not None:
            overtaken, self._overtaken = self._overtaken, None
            self._send(overtaken)

    def due(self, now_ns: int) -> Iterator[Shot]:
        """Give all shots that have come out by now, in the order in which they do."""
        while self._waiting and self._waiting[0].due_ns <= now_ns:
            yield self._waiting.pop(0)

    def due_ns(self) -> int | None:
        """Return when the next shot comes out; None if none waits."""
        return self._waiting[0].due_ns if self._waiting else None

    def _fault(self, changes: Literal["time", "image"]) -> Fault | None:
        return next(
            (
                fault
                for fault in self._faults
                if fault.changes == changes and self._index in fault.frames
            ),
            None,
        )

    def _unplug(self, fault: Unplug, now_ns: int) -> None:
        after_ms = fault.replug_after_ms
        self._back_ns = float("inf") if after_ms is None else now_ns + round(after_ms * 1e6)
        # What was on its way is lost with it.
        self._waiting = [shot for shot in self._waiting if shot.due_ns <= now_ns]
        self._overtaken = None
        self._last_due_ns = 0

    def _send(self, shot: Shot) -> None:
        self._last_due_ns = max(self._last_due_ns, shot.due_ns)
        self._waiting.append(replace(shot, due_ns=self._last_due_ns))

    def _shown(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        fault = self._fault("image")
        if isinstance(fault, Freeze) and self._image is not None:
            return self._image
        if isinstance(fault, Black):
            image = np.zeros_like(image)
        elif isinstance(fault, Covered):
            image = np.broadcast_to(
                (image.mean(axis=(0, 1)) / 4).astype(np.uint8), image.shape
            ).copy()
        self._image = image
        return image


def _named(fault: Fault) -> str:
    of = f" of '{fault.camera}'" if fault.camera else ""
    return f"{type(fault).__name__.lower()} at {fault.at}{of}"


def _check(fault: Fault, index: int) -> None:
    numbers: dict[str, tuple[float, float]] = {"at": (fault.at, 0)}
    if isinstance(fault, _Run):
        numbers["count"] = (fault.count, 1)
    if isinstance(fault, Late):
        numbers["by_ms"] = (fault.by_ms, 0)
    if isinstance(fault, Unplug) and fault.replug_after_ms is not None:
        numbers["replug_after_ms"] = (fault.replug_after_ms, 0)
    for name, (value, least) in numbers.items():
        if not least <= value <= _MOST:
            raise InputError(
                f"faults[{index}] ({_named(fault)}) has {name} {value}; expected {least} "
                f"to {_MOST:.0e}"
            )


def _contradict(one: Fault, other: Fault) -> bool:
    is_same_camera = one.camera == other.camera or "" in (one.camera, other.camera)
    first, second = one.frames, other.frames
    overlap = range(max(first.start, second.start), min(first.stop, second.stop))
    return is_same_camera and one.changes == other.changes and overlap.start < overlap.stop
