"""Limits of position, speed, acceleration and step, against the command before."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memorywam_robot.arms.limit_rules import LimitRules
from memorywam_runtime.errors import InputError

__all__ = ["CommandLimiter", "JointLimits", "LimitCounts", "joint_limits_from_maker"]

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class JointLimits:
    """What each joint may do, [num_joints] each, in the contract's units (rad, or a fraction)."""

    lower: Floats
    """Position."""
    upper: Floats
    """Position."""
    velocity: Floats
    """Units per second, either way."""
    acceleration: Floats
    """Units per second squared, either way."""
    step: Floats
    """Units from one command to the next; infinite for none."""
    is_angle: NDArray[np.bool_]
    """In rad: alignment and seams are judged on these alone, for a gripper may well jump."""

    def __post_init__(self) -> None:
        """Refuse limits that leave a joint no room, or none at all."""
        shapes = {field.name: np.shape(getattr(self, field.name)) for field in fields(self)}
        if set(shapes.values()) != {(len(self.lower),)} or not len(self.lower):
            raise InputError(f"joint limits of shapes {shapes}; expected one number a joint")
        checks = {
            "lower and upper must be finite, and lower the smaller": np.isfinite(self.lower)
            & np.isfinite(self.upper)
            & (self.lower < self.upper),
            "velocity must be finite and above 0": np.isfinite(self.velocity) & (self.velocity > 0),
            "acceleration must be finite and above 0": np.isfinite(self.acceleration)
            & (self.acceleration > 0),
            "step must be above 0": self.step > 0,
        }
        for claim, is_met in checks.items():
            if not is_met.all():
                raise InputError(f"limits of joints {np.flatnonzero(~is_met).tolist()}: {claim}")


def joint_limits_from_maker(
    lower: Sequence[float],
    upper: Sequence[float],
    velocity: Sequence[float],
    acceleration: Sequence[float],
    *,
    units: Sequence[str] = (),
    step: Sequence[float] | None = None,
    rules: LimitRules | None = None,
) -> JointLimits:
    """Return limits from a maker's sheet, its speeds and accelerations cut to a share.

    Args:
        lower: Position of each joint.
        upper: Position of each joint.
        velocity: Greatest speed by the maker, units per second.
        acceleration: Greatest by the maker, units per second squared.
        units: The contract's; empty means rad.
        step: Greatest from one command to the next; by default a seam's, and none off angles.
        rules: For the share and the seam.
    """
    rules = rules or LimitRules()
    is_angle = np.array([unit == "rad" for unit in units] or [True] * len(lower))
    seam = np.where(is_angle, rules.seam_refused_rad, np.inf)
    return JointLimits(
        lower=np.array(lower, np.float64),
        upper=np.array(upper, np.float64),
        velocity=np.array(velocity, np.float64) * rules.maker_share,
        acceleration=np.array(acceleration, np.float64) * rules.maker_share,
        step=seam if step is None else np.array(step, np.float64),
        is_angle=is_angle,
    )


class LimitCounts:
    """How many commands each limit changed, by joint [num_joints]."""

    __slots__ = ("acceleration", "position", "step", "velocity")

    def __init__(self, num_joints: int) -> None:
        self.position, self.velocity, self.step, self.acceleration = (
            np.zeros(num_joints, np.int64) for _ in range(4)
        )

    @property
    def num_beyond(self) -> int:
        """Times that a limit other than that of acceleration changed a joint's target.

        That one rounds the corners between actions, as it should.
        """
        return int(self.position.sum() + self.velocity.sum() + self.step.sum())


class CommandLimiter:
    """Makes commands that a robot can follow out of the actions it is asked for.

    The reference is the command before, not the measured state, which lags: against it a robot
    that follows slowly would be held back for ever. A command never leaves the position limits
    and never gets so fast that the acceleration limit could not stop it before them. A joint that
    was held back catches up without passing where it is wanted.

    Nothing is allocated after `__init__`.
    """

    def __init__(
        self, limits: JointLimits, period_ns: int, rules: LimitRules | None = None
    ) -> None:
        """Make a limiter.

        Args:
            limits: Of the joints, in the contract's order.
            period_ns: From one command to the next.
            rules: Numbers for the start.
        """
        if period_ns < 1:
            raise InputError(f"found a period of {period_ns} ns; expected one above 0")
        self.limits, self.rules = limits, rules or LimitRules()
        num_joints = len(limits.lower)
        self.counts = LimitCounts(num_joints)
        self.num_limited = 0
        """Commands that any limit changed."""
        self.is_approaching = False
        """The way to the first action is still being made, slowly."""
        self._period_s = period_ns / 1e9
        self._fastest = np.minimum(limits.velocity, limits.step / self._period_s)
        self._slow = self._fastest.copy()
        self._slow[limits.is_angle] = np.minimum(
            self._fastest[limits.is_angle], self.rules.approach_rad_per_s
        )
        self._change = limits.acceleration * self._period_s
        self._angles = limits.is_angle.astype(np.float64)
        reach = (limits.upper - limits.lower) * self.rules.position_slack
        self._slack = np.where(limits.is_angle, reach, np.inf)
        self._is_started = False
        self._lower, self._upper = limits.lower.copy(), limits.upper.copy()
        self._command, self._velocity, self._target = (np.zeros(num_joints) for _ in range(3))
        self._wanted, self._low, self._high = (np.zeros(num_joints) for _ in range(3))
        self._distance, self._ticks, self._scratch = (np.zeros(num_joints) for _ in range(3))
        self._mask, self._any = np.zeros(num_joints, np.bool_), np.zeros(num_joints, np.bool_)

    @property
    def command(self) -> Floats:
        """The last command [num_joints]; a view that the next one overwrites."""
        return self._command

    @property
    def velocity(self) -> Floats:
        """The last command's velocity [num_joints]; a view that the next one overwrites."""
        return self._velocity

    @property
    def is_at_rest(self) -> bool:
        """The last command moved nothing."""
        np.not_equal(self._velocity, 0.0, out=self._mask)
        return not self._mask.any()

    def start(self, measured: NDArray[np.floating], first: NDArray[np.floating]) -> None:
        """Stand where the joints are; approach the first action slowly if it is not there.

        Args:
            measured: Where they are, [num_joints], rad or the joint's own unit.
            first: Where the episode's first action is, in the same.

        Raises:
            InputError: either is no position of these joints, a joint is beyond its limits, or the
                first action is too far away.
        """
        found, limits, rules = np.asarray(measured, np.float64), self.limits, self.rules
        for name, values in (("measured", found), ("first action", first)):
            if np.shape(values) != limits.lower.shape or not np.isfinite(values).all():
                raise InputError(
                    f"{name}: found {np.asarray(values).tolist()}; expected "
                    f"{len(limits.lower)} finite numbers"
                )
        beyond = np.maximum(limits.lower - found, found - limits.upper)
        if beyond.max() > rules.aligned_rad:
            joint = int(beyond.argmax())
            raise InputError(
                f"joint {joint} is at {found[joint]:.4f}; expected {limits.lower[joint]:.4f} to "
                f"{limits.upper[joint]:.4f}: move it within its limits, or check its calibration"
            )
        apart = np.abs(first - found) * limits.is_angle
        if apart.max() > rules.start_refused_rad:
            joint = int(apart.argmax())
            raise InputError(
                f"joint {joint} is {apart[joint]:.3f} rad from the first action; expected at most "
                f"{rules.start_refused_rad:g} rad: move the arms to the start pose"
            )
        np.minimum(limits.lower, found, out=self._lower)
        np.maximum(limits.upper, found, out=self._upper)
        self._command[:] = self._target[:] = found
        self._velocity.fill(0.0)
        self.is_approaching = bool(apart.max() > rules.aligned_rad)
        self._is_started = True

    def limited(self, action: NDArray[np.floating], out: Floats) -> bool:
        """Write the command for an action [num_joints]; return whether a limit changed it.

        An angle no farther beyond its limits than `position_slack` is clipped and not counted, and
        a gripper never is: one that is told to shut harder than shut holds on.

        While `is_approaching`, the caller gives the first action again and again.

        Raises:
            InputError: not started, a wrong shape, or not finite; nothing is changed.
        """
        self._check(action)
        limits, counts, wanted, period_s = self.limits, self.counts, self._wanted, self._period_s
        self._any.fill(0)
        fastest = self._slow if self.is_approaching else self._fastest
        np.clip(action, self._lower, self._upper, out=self._distance)
        np.subtract(self._distance, action, out=self._ticks)
        np.abs(self._ticks, out=self._ticks)
        np.greater(self._ticks, self._slack, out=self._mask)
        self._count(counts.position)
        # As fast as the action moves, and what was left behind is caught up with along a curve
        # that ends where it is wanted: to aim at it at full speed would swing about it for ever.
        np.subtract(self._distance, self._target, out=wanted)
        np.divide(wanted, period_s, out=wanted)
        np.subtract(self._target, self._command, out=self._high)
        self._target[:] = self._distance
        np.abs(self._high, out=self._distance)
        self._safe_speed(self._low)
        np.copysign(self._low, self._high, out=self._low)
        np.add(wanted, self._low, out=wanted)

        np.negative(limits.velocity, out=self._low)
        self._clip(limits.velocity, counts.velocity)
        np.negative(fastest, out=self._low)
        self._clip(fastest, counts.velocity if self.is_approaching else counts.step)
        np.subtract(self._upper, self._command, out=self._distance)
        self._safe_speed(self._high)
        np.subtract(self._command, self._lower, out=self._distance)
        self._safe_speed(self._low)
        np.negative(self._low, out=self._low)
        self._clip(self._high, counts.position)
        np.subtract(self._velocity, self._change, out=self._low)
        np.add(self._velocity, self._change, out=self._high)
        self._clip(self._high, counts.acceleration)
        self._move(out)
        if self.is_approaching:
            np.subtract(self._target, self._command, out=self._distance)
            np.abs(self._distance, out=self._distance)
            np.multiply(self._distance, self._angles, out=self._distance)
            self.is_approaching = bool(self._distance.max() > self.rules.aligned_rad)
        is_limited = bool(self._any.any())
        self.num_limited += is_limited
        return is_limited

    def brake(self, out: Floats) -> bool:
        """Write the next command of a stop; return whether the joints are at rest after it.

        Each joint loses as much speed a command as its acceleration allows, and turns never.

        Raises:
            InputError: not started.
        """
        if not self._is_started:
            raise InputError("the limiter stands nowhere; expected start(measured, first) before")
        np.abs(self._velocity, out=self._wanted)
        np.subtract(self._wanted, self._change, out=self._wanted)
        np.maximum(self._wanted, 0.0, out=self._wanted)
        np.copysign(self._wanted, self._velocity, out=self._wanted)
        self._move(out)
        self._target[:] = self._command
        return self.is_at_rest

    def _check(self, action: NDArray[np.floating]) -> None:
        """Refuse what is no position of these joints."""
        if not self._is_started:
            raise InputError("the limiter stands nowhere; expected start(measured, first) before")
        if action.shape != self._command.shape:
            raise InputError(
                f"action: found shape {list(action.shape)}; expected {list(self._command.shape)}"
            )
        np.isfinite(action, out=self._mask)
        if not self._mask.all():
            raise InputError(
                f"action: joints {np.flatnonzero(~self._mask).tolist()} are not finite; drop the "
                "chunk, and brake if there is no other"
            )

    def _clip(self, high: Floats, counts: NDArray[np.int64]) -> None:
        """Clip the wanted velocity to what `_low` and this allow; count where it was beyond."""
        scratch, wanted = self._scratch, self._wanted
        np.maximum(wanted, self._low, out=scratch)
        np.minimum(scratch, high, out=scratch)
        np.subtract(scratch, wanted, out=self._ticks)
        np.abs(self._ticks, out=self._ticks)
        np.greater(self._ticks, _ROUNDING, out=self._mask)
        wanted[:] = scratch
        self._count(counts)

    def _count(self, counts: NDArray[np.int64]) -> None:
        """Count the joints in the mask."""
        np.add(counts, 1, out=counts, where=self._mask)
        np.logical_or(self._any, self._mask, out=self._any)

    def _safe_speed(self, out: Floats) -> None:
        """Write the greatest speed from which `_distance` is enough to stop within.

        A joint that moves at v now and loses c a command needs period * (v + (v - c) + ...), n
        terms above 0; with d = distance / period, n is the least for which c n (n + 1) / 2 >= d.
        """
        ticks, change = self._ticks, self._change
        np.maximum(self._distance, 0.0, out=out)
        np.divide(out, self._period_s, out=out)
        np.divide(out, change, out=ticks)
        np.multiply(ticks, 8.0, out=ticks)
        np.add(ticks, 1.0, out=ticks)
        np.sqrt(ticks, out=ticks)
        np.subtract(ticks, 1.0, out=ticks)
        np.multiply(ticks, 0.5, out=ticks)
        np.ceil(ticks, out=ticks)
        np.maximum(ticks, 1.0, out=ticks)
        np.divide(out, ticks, out=out)
        np.subtract(ticks, 1.0, out=ticks)
        np.multiply(ticks, 0.5, out=ticks)
        np.multiply(ticks, change, out=ticks)
        np.add(out, ticks, out=out)

    def _move(self, out: Floats) -> None:
        """Make the wanted velocity the last, and where it leads the command."""
        self._velocity[:] = self._wanted
        np.multiply(self._wanted, self._period_s, out=self._scratch)
        np.add(self._command, self._scratch, out=self._command)
        # Sums of rounded numbers: the last bit must not carry a joint beyond its limit.
        np.maximum(self._command, self._lower, out=self._command)
        np.minimum(self._command, self._upper, out=self._command)
        out[:] = self._command


_ROUNDING: Any = math.ulp(1.0) * 1e4
"""Units per second: a smaller difference is arithmetic, not a limit that bit."""
