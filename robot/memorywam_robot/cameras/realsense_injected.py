"""A live camera whose images a function makes, carried by real librealsense frames."""

import time
from pathlib import Path

from memorywam_robot.camera import ClockDomain
from memorywam_robot.cameras.camera_feed import RawFrame
from memorywam_robot.cameras.camera_rules import NOISELESS, CameraRules
from memorywam_robot.cameras.camera_thread import ThreadedCamera
from memorywam_robot.cameras.frame_faults import FaultReplay, FaultSchedule, Shot
from memorywam_robot.cameras.realsense_injector import Injector, no_offset_ns
from memorywam_robot.cameras.source_camera import Source, image_from_source
from memorywam_robot.cameras.source_rhythm import SourceRhythm
from memorywam_runtime.errors import DeviceError, MissingPartError

__all__ = ["InjectedFeed", "InjectedRealSense"]


class InjectedFeed:
    """Asks a source at a fixed rate, lets a schedule spoil it, and sends it through librealsense.

    It counts its frames anew each time that it is opened, as a device does; the schedule counts on.
    """

    def __init__(
        self,
        source: Source,
        hz: float,
        *,
        faults: FaultSchedule | None = None,
        camera: str = "",
        domain: ClockDomain = "global",
        record: Path | None = None,
    ) -> None:
        """Make a feed that is not open.

        Args:
            source: Asked from the thread that reads the feed.
            hz: Images a second.
            faults: What goes wrong.
            camera: Whose faults.
            domain: Of the stamps, all of which are monotonic times of this machine.
            record: As for `Injector`; opened anew, the feed refuses to write over it.

        Raises:
            InputError: a rate that is none.
        """
        self._source = source
        self._hz = hz
        self._rhythm = SourceRhythm(hz)
        self._domain: ClockDomain = domain
        self._record = record
        self._faults = FaultReplay(faults or FaultSchedule(), camera)
        self._injector: Injector | None = None
        self._ready: list[RawFrame] = []

    @property
    def period_ns(self) -> int:
        """Return the time from one image to the next."""
        return self._rhythm.period_ns

    @property
    def has_ended(self) -> bool:
        """Return False: a source goes on for ever."""
        return False

    @property
    def can_reset(self) -> bool:
        """Return True, so that the whole ladder can be tried without hardware."""
        return True

    def open(self) -> None:
        """Make a device of the size that the source has; it is asked once to learn it.

        Raises:
            MissingPartError: the library is not installed, or the schedule says unplugged.
            DeviceError: the source fails.
        """
        self._refuse_unplugged(MissingPartError)
        height, width, _ = image_from_source(self._source).shape
        self._injector = Injector(
            width=width, height=height, hz=self._hz, domain=self._domain, record=self._record
        )
        self._ready.clear()
        self._rhythm.begin()

    def wait(self, timeout_s: float) -> RawFrame | None:
        """Return the next frame; None if none comes in time.

        Raises:
            DeviceError: the source fails, or the schedule says unplugged.
        """
        deadline_ns = time.monotonic_ns() + round(timeout_s * 1e9)
        while not self._ready:
            self._refuse_unplugged(DeviceError)
            now_ns = time.monotonic_ns()
            number, next_ns = self._rhythm.next(now_ns)
            if now_ns >= next_ns:
                self._rhythm.took(number)
                stamp_ns = time.monotonic_ns()
                self._faults.put(
                    Shot(
                        image=image_from_source(self._source),
                        number=number,
                        captured_ns=stamp_ns,
                        due_ns=stamp_ns,
                    )
                )
            self._release()
            due_ns = self._faults.due_ns()
            wake_ns = min(deadline_ns, next_ns, next_ns if due_ns is None else due_ns)
            if not self._ready:
                if time.monotonic_ns() >= deadline_ns:
                    return None
                time.sleep(max(0, wake_ns - time.monotonic_ns()) * 1e-9)
        return self._ready.pop(0)

    def settled(self) -> bool:
        """Change nothing: a source has no exposure."""
        return False

    def reset(self) -> None:
        """Reset nothing: a schedule decides when it is back."""
        self._refuse_unplugged(MissingPartError)

    def close(self) -> None:
        """Let go of the device."""
        injector, self._injector = self._injector, None
        if injector is not None:
            injector.close()

    def _release(self) -> None:
        if self._injector is None:
            raise DeviceError("the feed is closed; expected it open")
        for shot in self._faults.due(time.monotonic_ns()):
            self._injector.push(shot.image, shot.captured_ns, shot.number)
            self._ready.extend(self._injector.raw_frames())

    def _refuse_unplugged(self, kind: type[MissingPartError] | type[DeviceError]) -> None:
        if self._faults.is_unplugged(time.monotonic_ns()):
            raise kind(
                "the camera is unplugged, as its fault schedule says; expected it plugged in"
            )


class InjectedRealSense(ThreadedCamera):
    """A live camera whose images a function makes and librealsense carries."""

    def __init__(
        self,
        name: str,
        source: Source,
        hz: float,
        rules: CameraRules = NOISELESS,
        *,
        faults: FaultSchedule | None = None,
        domain: ClockDomain = "global",
        record: Path | None = None,
    ) -> None:
        """Make a camera that is closed; see `InjectedFeed`.

        Raises:
            InputError: a rate that is none.
        """
        feed = InjectedFeed(source, hz, faults=faults, camera=name, domain=domain, record=record)
        # Its stamps are monotonic already, whatever domain they claim.
        super().__init__(name, feed, rules, offset_ns=no_offset_ns)
