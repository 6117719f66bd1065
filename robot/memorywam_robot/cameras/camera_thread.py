"""A camera that runs by itself: one thread that reads a feed, judges, and recovers."""

import contextlib
import threading
import time
from collections.abc import Callable, Mapping

from memorywam_robot.camera import CameraState, Frame
from memorywam_robot.cameras.camera_clock import monotonic_minus_wall_ns
from memorywam_robot.cameras.camera_feed import Feed, RawFrame
from memorywam_robot.cameras.camera_intake import FrameIntake
from memorywam_robot.cameras.camera_recovery import Recovery
from memorywam_robot.cameras.camera_rules import CameraRules
from memorywam_runtime.errors import DeviceError, InputError, MemorywamError

__all__ = ["ThreadedCamera"]

_WAIT_S = 0.05
"""Of the thread for a frame, before it looks up; what `close` may wait longer for."""


class ThreadedCamera:
    """A `Camera` around any feed; the feed is touched by its thread alone.

    A camera that only repeats itself - the same bytes under new numbers, or the same number - is as
    late as one that gives nothing, and is restarted as soon.
    """

    def __init__(
        self,
        name: str,
        feed: Feed,
        rules: CameraRules | None = None,
        *,
        offset_ns: Callable[[], int] = monotonic_minus_wall_ns,
    ) -> None:
        """Make a camera that is closed.

        Args:
            name: In the contract.
            feed: What gives the images.
            rules: All numbers.
            offset_ns: Monotonic minus wall-clock time, for stamps in the latter.
        """
        self._name = name
        self._feed = feed
        self._rules = rules or CameraRules()
        self._intake = FrameIntake(name, self._rules, offset_ns=offset_ns, settled=feed.settled)
        self._may_reset = threading.Event()
        self._may_reset.set()
        self._closing = threading.Event()
        self._ready = threading.Event()
        self._thread: threading.Thread | None = None
        self._refusal: BaseException | None = None
        self._state: CameraState = "closed"
        self._complaint = ""
        self._frame_ns = self._give_up_ns = 0

    @property
    def name(self) -> str:
        """Return its name in the contract."""
        return self._name

    @property
    def state(self) -> CameraState:
        """Return how it does now, by the clock: a driver that hangs cannot keep it `ok`."""
        state = self._state
        if state == "ok" and self._silent_ms() > self._rules.late_ms:
            return "late"
        if state == "recovering" and time.monotonic_ns() > self._give_up_ns:
            return "lost"
        return state

    @property
    def complaint(self) -> str:
        """Return why it is late, recovering, lost, ended or unsettled; empty if it is not."""
        state = self.state
        if state == "late":
            return (
                f"camera '{self._name}' gave no new image for {self._silent_ms():.0f} ms; "
                f"expected one every {self._feed.period_ns * 1e-6:.1f} ms"
            )
        if state == "lost" and self._state == "recovering":
            return f"{self._complaint}; its driver hangs: open it anew, in a new process at best"
        if state == "ok" and self._intake.unsettled_s > self._rules.settle_warned_s:
            return (
                f"exposure of camera '{self._name}' has not settled in "
                f"{self._intake.unsettled_s:.0f} s; expected a still, lit and uncovered view"
            )
        return self._complaint

    @property
    def counts(self) -> Mapping[str, int]:
        """Return what happened since it was made; names in `camera_intake.COUNTS`."""
        return self._intake.counts

    @property
    def period_ns(self) -> int:
        """Return the time from one image to the next, as its stream says once it is open."""
        return self._feed.period_ns

    @property
    def is_settled(self) -> bool:
        """Return whether exposure has settled since the stream was opened."""
        return self._intake.is_settled

    def permit_reset(self, *, is_permitted: bool) -> None:
        """Say whether the hardware may be reset: not while arms move, as they are blind for long.

        Restarts of the stream are always allowed. A reset that is needed waits, for a bounded time.
        """
        if is_permitted:
            self._may_reset.set()
        else:
            self._may_reset.clear()

    def start(self) -> None:
        """Open the device and wait for its first frame, or for what refuses it.

        Raises:
            MissingPartError: no such camera, or what drives it is not installed.
            InputError: it cannot do what was asked of it, or is running.
            DeviceError: it does not work, or its driver hangs.
        """
        if self._thread is not None:
            hangs = " and its driver hangs: start a new process" if self._closing.is_set() else ""
            raise InputError(f"camera '{self._name}' is running{hangs}; expected it closed")
        self._closing, self._ready = threading.Event(), threading.Event()
        self._refusal, self._complaint, self._state = None, "", "starting"
        # A daemon: a driver that hangs must not keep the process from ending.
        self._thread = threading.Thread(target=self._run, name=f"camera {self._name}", daemon=True)
        self._thread.start()
        budget_s = self._rules.recovery_s + self._rules.open_attempts * (
            self._rules.first_frame_s + self._rules.retry_s
        )
        if not self._ready.wait(budget_s):
            self.close()
            raise DeviceError(
                f"camera '{self._name}' did not open in {budget_s:.0f} s: its driver hangs; "
                "unplug the camera and start anew"
            )
        if self._refusal is not None:
            refusal = self._refusal
            self.close()
            raise refusal

    def take(self) -> list[Frame]:
        """Return all frames since the last call, in order; never waits."""
        return self._intake.take()

    def newest(self) -> Frame | None:
        """Return the newest frame without taking it; None before the first."""
        return self._intake.newest()

    def close(self) -> None:
        """Stop capturing and let go of the device, or of a driver that hangs; twice is fine."""
        self._closing.set()
        if self._thread is not None:
            self._thread.join(self._rules.close_s)
            if not self._thread.is_alive():
                self._thread = None
        self._state, self._complaint = "closed", ""

    def _silent_ms(self) -> float:
        return (time.monotonic_ns() - self._frame_ns) * 1e-6

    def _run(self) -> None:
        closing = self._closing
        recovery = Recovery(
            self._feed,
            self._rules,
            closing=closing,
            may_reset=self._may_reset,
            count=self._intake.count,
        )
        try:
            self._take_up(recovery.opened())
            self._ready.set()
            while not closing.is_set() and not self._feed.has_ended:
                self._watch_over(recovery)
            if self._feed.has_ended:
                self._say("ended", f"camera '{self._name}' has no more frames: end of its file")
        except Exception as error:
            # Whatever it is, a thread that dies in silence would be worse.
            text = str(error) if isinstance(error, MemorywamError) else repr(error)
            self._refusal = error
            self._say("lost", f"camera '{self._name}' is lost: {text}")
        finally:
            self._ready.set()
            with contextlib.suppress(Exception):
                self._feed.close()

    def _watch_over(self, recovery: Recovery) -> None:
        """Read frames until none comes for too long, or the feed fails; then recover."""
        rules, is_stalled = self._rules, False
        cause = f"no new image for {rules.recover_after_ms:g} ms"
        try:
            while not self._closing.is_set():
                raw = self._feed.wait(_WAIT_S)
                if raw is not None and self._put(raw):
                    is_stalled = False
                    continue
                if self._feed.has_ended:
                    return
                silent_ns = time.monotonic_ns() - self._frame_ns
                if not is_stalled and silent_ns > rules.stalled_periods * self._feed.period_ns:
                    is_stalled = True
                    self._intake.count("stalls")
                if silent_ns > rules.recover_after_ms * 1e6:
                    break
            else:
                return
        except DeviceError as error:
            cause = str(error)
        self._give_up_ns = time.monotonic_ns() + round(rules.recovery_s * 1e9)
        self._say("recovering", f"camera '{self._name}' is being restarted: {cause}")
        self._take_up(recovery.recovered(cause))

    def _take_up(self, raw: RawFrame | None) -> None:
        """Begin with the first frame of a stream just opened."""
        if raw is not None:
            self._frame_ns = raw.received_ns
            self._intake.restart(self._feed.period_ns)
            self._put(raw)
            self._say("ok", "")

    def _put(self, raw: RawFrame) -> bool:
        """Hand a frame on; return whether it shows that the camera lives."""
        frame = self._intake.put(raw)
        is_alive = frame is not None and frame.doubt != "frozen"
        if is_alive:
            self._frame_ns = raw.received_ns
        return is_alive

    def _say(self, state: CameraState, complaint: str) -> None:
        # Closing has the last word, even over a thread that it gave up.
        if not self._closing.is_set():
            self._complaint = complaint
            self._state = state
