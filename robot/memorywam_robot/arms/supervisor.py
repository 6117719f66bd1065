"""Supervisor: the process that owns the arms, ticks at a fixed rate, and outlives the policy."""

import json
import os
import select
import signal
import sys
import time
from types import FrameType
from typing import TextIO

import numpy as np

from memorywam_robot.arm import ArmDriver, ResettableDriver, SlowDriver
from memorywam_robot.arms.arm_command import ArmCommand, ArmRequests
from memorywam_robot.arms.arm_drivers import driver_from_argument
from memorywam_robot.arms.arm_link import DETAIL_BYTES, ArmLink
from memorywam_robot.arms.guard import Guard
from memorywam_robot.arms.guard_words import Count, Mode, Reason
from memorywam_robot.arms.limits import CommandLimiter
from memorywam_robot.arms.real_time import (
    freeze_garbage,
    lock_memory,
    raise_priority,
    sharpen_timers,
)
from memorywam_robot.arms.supervisor_config import SupervisorConfig
from memorywam_robot.arms.tick_clock import TickClock
from memorywam_runtime.errors import InputError, MemorywamError

__all__ = ["Supervisor", "main"]

_MAX_FAILED_TICKS = 100
_FIRST_READS = 20
_SETTLE_NS = 250_000_000
"""From targets at rest to arms at rest: they follow late."""


class Supervisor:
    """Reads the arms, asks the guard, writes the arms and tells, until it is to end.

    It ends only when the joints are at rest, with their torque on: when its parent is gone, when it
    is told to by the link or by a signal, the second no other than the first.
    """

    def __init__(self, config: SupervisorConfig, link: ArmLink, driver: ArmDriver) -> None:
        """Stand the joints where they are; nothing moves.

        Raises:
            InputError: the driver has other joints, or one of them is beyond its limits.
        """
        if driver.num_joints != link.num_joints:
            raise InputError(
                f"the driver has {driver.num_joints} joints; expected {link.num_joints}, one for "
                "each of the limits"
            )
        self._config, self._link, self._driver = config, link, driver
        limiter = CommandLimiter(config.limits, config.period_ns, config.limit_rules)
        home = None if config.home is None else np.array(config.home)
        self._limiter = limiter
        self._guard = Guard(limiter, config.period_ns, config.rules, home)
        self._clock = TickClock(config.period_ns)
        self._command, self._requests = ArmCommand(link.num_joints), ArmRequests()
        self._has_command = False
        self._measured, self._target = np.zeros(link.num_joints), np.zeros(link.num_joints)
        self._scratch, self._sent = np.zeros(link.num_joints), np.zeros(link.num_joints)
        self._measured_ns = self._work_max_ns = 0
        self._failed_reads = self._failed_writes = self._failed_ticks = 0
        self._resettable = driver if isinstance(driver, ResettableDriver) else None
        self._num_resets = self._resettable.num_resets if self._resettable else 0
        self._slow = driver if isinstance(driver, SlowDriver) else None
        self._end_reason: Reason | None = None
        self._linger_ns = 0
        self._parent = select.poll()
        self._parent.register(0, 0)  # hang-ups alone
        self._is_scheduled = self._is_locked = False
        self._detail = ""
        driver.read(self._measured)
        if not config.is_watching:
            self._guard.stand(self._measured)
        self._target[:] = self._sent[:] = self._measured

    def prepare(self) -> None:
        """Make this process keep time; with a vendor's packages in it that takes a second."""
        sharpen_timers()
        if self._config.is_real_time:
            self._is_locked, self._is_scheduled = lock_memory(), raise_priority()
        freeze_garbage()
        for _ in range(_FIRST_READS):  # a driver's own thread had no turn meanwhile
            if self._answers():
                return
            time.sleep(self._config.period_ns / 1e9)

    def run(self) -> None:
        """Tick until the end; then let go of the arms with the torque on, and say so."""
        try:
            while not self._is_over():
                now_ns = self._clock.wait()
                try:
                    self._tick(now_ns)
                    self._failed_ticks = 0
                except Exception as error:  # whatever it is, the arms must brake
                    self._failed_ticks += 1
                    self._guard.trip(Reason.INTERNAL, repr(error))
                    if self._failed_ticks > _MAX_FAILED_TICKS:
                        raise
        finally:
            try:
                self._driver.close()
            finally:
                self._publish(time.monotonic_ns(), is_closed=True)

    def end(self, reason: Reason) -> None:
        """Brake, and end at rest; the first reason stays."""
        self._end_reason = self._end_reason or reason

    def _tick(self, now_ns: int) -> None:
        """Do one period's work."""
        guard, link = self._guard, self._link
        self._read(now_ns)
        if link.is_closing:
            self.end(Reason.CLOSED)
        if self._parent.poll(0) or os.getppid() != self._config.parent_pid:
            if self._end_reason is None:
                self._linger_ns = now_ns + int(self._config.linger_s * 1e9)
            self.end(Reason.PARENT_GONE)
        if self._config.is_watching:
            self._target[:] = self._measured
            self._publish(now_ns, is_closed=False)
            return
        if self._end_reason is not None:
            guard.trip(self._end_reason)
        if not self._driver.is_powered:
            guard.trip(Reason.DRIVER, "a joint has no torque")
        self._has_command = link.read_command(self._command) or self._has_command
        link.read_requests(self._requests)
        guard.step(
            now_ns,
            self._command if self._has_command else None,
            self._requests,
            self._measured,
            self._target,
            has_cause=self._failed_reads > 0
            or self._failed_writes > 0
            or not self._driver.is_powered
            or self._end_reason is not None,
        )
        self._write()
        self._publish(now_ns, is_closed=False)
        self._work_max_ns = max(self._work_max_ns, time.monotonic_ns() - now_ns)

    def _read(self, now_ns: int) -> None:
        """Measure; a read that fails leaves what was measured before."""
        try:
            self._driver.read(self._scratch)
        except Exception as error:  # drivers raise what they like
            self._count_failed_read(repr(error))
            return
        if not np.isfinite(self._scratch).all():
            self._count_failed_read(f"measured {self._scratch.tolist()}; expected finite numbers")
            return
        self._failed_reads = 0
        self._measured[:] = self._scratch
        self._measured_ns = now_ns
        if self._slow:
            self._measured_ns = self._slow.measured_ns
            self._guard.counts[Count.CLIPPED] = self._slow.num_clipped
        if self._config.is_watching:
            return
        if self._resettable and self._resettable.num_resets != self._num_resets:
            self._num_resets = self._resettable.num_resets
            if self._guard.mode not in (Mode.HOLDING, Mode.STOPPED):
                self._guard.trip(Reason.MOVED)
            self._guard.stand(self._measured)

    def _answers(self) -> bool:
        """Does the driver measure?"""
        try:
            self._driver.read(self._scratch)
        except Exception:  # drivers raise what they like; at the first tick it counts
            return False
        return True

    def _count_failed_read(self, detail: str) -> None:
        """Stop for good if it is one too many in a row."""
        self._failed_reads += 1
        self._guard.counts[Count.FAILED_READS] += 1
        if self._failed_reads > self._config.rules.max_failed_calls:
            self._guard.trip(Reason.DRIVER, f"reading: {detail}")

    def _write(self) -> None:
        """Send the target; a write that fails leaves the joints at the one before.

        Who is stopped for that stays there: on the way that was missed nobody goes later, at once,
        when the connection is back and people are near.
        """
        try:
            self._driver.write(self._target)
        except Exception as error:  # drivers raise what they like
            self._failed_writes += 1
            self._guard.counts[Count.FAILED_WRITES] += 1
            if self._failed_writes > self._config.rules.max_failed_calls:
                self._guard.trip(Reason.DRIVER, f"writing: {error!r}")
                self._stand_where_sent()
            return
        self._failed_writes = 0
        self._sent[:] = self._target

    def _stand_where_sent(self) -> None:
        """Hold the joints at the last target that reached them."""
        if self._slow:
            self._slow.sent(self._sent)
        limits = self._config.limits
        np.clip(self._sent, limits.lower, limits.upper, out=self._sent)
        self._guard.stand(self._sent)

    def _is_over(self) -> bool:
        """Is there nothing left to hold the joints for?"""
        if self._end_reason is None:
            return False
        if self._config.is_watching:
            return True
        if self._guard.mode is not Mode.STOPPED:
            return False
        settled_ns = self._guard.rested_ns + _SETTLE_NS
        return time.monotonic_ns() >= max(self._linger_ns, settled_ns)

    def _publish(self, now_ns: int, *, is_closed: bool) -> None:
        """Tell how it is."""
        guard, clock, record = self._guard, self._clock, self._link.state.record
        record["tick"] = clock.num_ticks
        record["tick_ns"] = now_ns
        record["measured_ns"] = self._measured_ns
        record["epoch"], record["refused_epoch"] = guard.epoch, guard.refused_epoch
        record["mode"], record["reason"] = guard.mode, guard.reason
        record["is_latched"] = guard.is_latched
        record["is_approaching"] = guard.is_approaching
        record["is_at_rest"] = guard.is_at_rest
        record["is_powered"] = self._driver.is_powered
        record["is_closed"] = is_closed
        record["is_scheduled"], record["is_locked"] = self._is_scheduled, self._is_locked
        record["braked_ns"], record["rested_ns"] = guard.braked_ns, guard.rested_ns
        record["num_skipped"] = clock.num_skipped
        record["late_p50_ns"], record["late_p99_ns"] = clock.late_p50_ns, clock.late_p99_ns
        record["num_limited"] = self._limiter.counts.num_beyond
        record["late_max_ns"], record["work_max_ns"] = clock.late_max_ns, self._work_max_ns
        record["counts"] = guard.counts
        record["measured"], record["target"] = self._measured, self._target
        if guard.detail is not self._detail:
            self._detail = guard.detail
            record["detail"] = guard.detail.encode()[:DETAIL_BYTES]
        self._link.state.write()


def main() -> int:
    """Read the configuration from the first line of the input, answer in one line, and run.

    The input stays open for as long as the parent lives.
    """
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # a vendor's library that prints must not spoil the answer
    os.environ["MUJOCO_GL"] = "disable"  # simulated arms need no display, and nobody renders here
    try:
        config = SupervisorConfig.from_json(_first_line())
        link = ArmLink(config.descriptor)
        driver = driver_from_argument(config.driver, link.page, config.actions)
        try:
            supervisor = Supervisor(config, link, driver)
            _end_on_signals(supervisor)
            supervisor.prepare()
        except BaseException:
            driver.close()
            raise
    except MemorywamError as error:
        _answer(answers, error=type(error).__name__, text=str(error))
        return 1
    except Exception as error:  # drivers raise what they like; the parent says it
        _answer(answers, error="DeviceError", text=f"the arms could not be opened: {error!r}")
        return 1
    _answer(answers, pid=os.getpid())
    try:
        supervisor.run()
    except MemorywamError as error:
        sys.stderr.write(f"the arms: {error}\n")
        return 1
    return 0


def _first_line() -> str:
    """Read one line and no byte more: what follows is the parent's life."""
    line = bytearray()
    while not line.endswith(b"\n"):
        byte = os.read(0, 1)
        if not byte:
            raise InputError("no configuration on the input; `SupervisedArm.open` starts this")
        line += byte
    return line.decode()


def _answer(answers: TextIO, **fields: object) -> None:
    """Answer in one line, and never again; a parent that is gone already hears nothing."""
    try:
        with answers:
            answers.write(json.dumps(fields) + "\n")
    except BrokenPipeError:
        return


def _end_on_signals(supervisor: Supervisor) -> None:
    """Take every polite signal as the wish to end at rest, however often it comes."""

    def heard(_number: int, _frame: FrameType | None) -> None:
        supervisor.end(Reason.TERMINATED)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, heard)


if __name__ == "__main__":
    sys.exit(main())
