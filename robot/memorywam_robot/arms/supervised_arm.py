"""SupervisedArm: the policy's side of the arms that another process drives and guards."""

import os
import time
from collections.abc import Callable
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from memorywam_robot.arms.arm_command import CommandKind
from memorywam_robot.arms.arm_link import ArmLink
from memorywam_robot.arms.arm_status import ArmStatus, status_from_record
from memorywam_robot.arms.guard_rules import GuardRules
from memorywam_robot.arms.guard_words import Mode
from memorywam_robot.arms.limit_rules import LimitRules
from memorywam_robot.arms.limits import JointLimits
from memorywam_robot.arms.supervisor_config import SupervisorConfig
from memorywam_robot.arms.supervisor_process import SupervisorProcess
from memorywam_runtime.contract import ActionSpace
from memorywam_runtime.errors import DeviceError, InputError

__all__ = ["SupervisedArm"]

_LOOK_S = 0.002
_LOST_NS = 200_000_000
_BEAT_NS = 20_000_000
_MODES = {int(mode): mode.name.lower() for mode in Mode}


class SupervisedArm:
    """Arms that stop by themselves when this process hangs, breaks or dies.

    One thread uses it. From any other, and in signal handlers, `stop`, `estop` and `release_estop`
    alone: each writes a word of shared memory and waits for nothing.
    """

    def __init__(self, config: SupervisorConfig, *, ready_s: float = 30.0) -> None:
        """Start the supervisor; see `open`."""
        self._num_joints = len(config.limits.lower)
        self._link = ArmLink.create(self._num_joints)
        self._is_closed = False
        self._said = ""
        self._epoch = 0
        try:
            self._process = SupervisorProcess(config, self._link, ready_s=ready_s)
        except BaseException:
            os.close(self._link.descriptor)
            raise
        self._state, self._command = self._link.state, self._link.command
        self._wait(lambda: int(self._state.record["tick"]) > 0, 1.0)

    @classmethod
    def open(
        cls,
        driver: str,
        limits: JointLimits,
        *,
        actions: ActionSpace | None = None,
        period_ns: int = 10_000_000,
        rules: GuardRules | None = None,
        limit_rules: LimitRules | None = None,
        home: NDArray[np.floating] | None = None,
        is_real_time: bool = True,
        is_watching: bool = False,
        ready_s: float = 30.0,
    ) -> "SupervisedArm":
        """Open the arms in a process of their own; they are held where they are.

        Args:
            driver: As `driver_from_argument` takes it.
            limits: Of the joints, in the contract's order.
            actions: The contract's names and units of joints, for drivers that go by them.
            period_ns: Of the supervisor's tick.
            rules: Of the watchdog.
            limit_rules: Of the start of an episode.
            home: Where `home` leads [num_joints].
            is_real_time: Ask for priority and locked memory, and go on without.
            is_watching: Nothing is written: somebody else moves the arms.
            ready_s: How long the driver may take to open.

        Raises:
            InputError: the driver is unknown, or a joint is beyond its limits.
            MissingPartError: what drives the arms is not installed.
            DeviceError: the arms could not be opened.
        """
        config = SupervisorConfig(
            driver=driver,
            limits=limits,
            actions=actions,
            period_ns=period_ns,
            rules=rules or GuardRules(),
            limit_rules=limit_rules or LimitRules(),
            home=None if home is None else tuple(float(value) for value in home),
            is_real_time=is_real_time,
            is_watching=is_watching,
        )
        return cls(config, ready_s=ready_s)

    def __enter__(self) -> "SupervisedArm":
        """Return the arms."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the arms."""
        self.close()

    def start(self, first: NDArray[np.floating], *, timeout_s: float = 5.0) -> None:
        """Begin an episode: get to its first action slowly; return when it is there.

        From then on `command` must be called again and again. Not for the tick: it waits.

        Raises:
            InputError: the first action is too far away, or no position of these joints.
            DeviceError: the arms are stopped, do not get there in time, or are lost.
        """
        self._end_episode(timeout_s)
        self._epoch += 1
        self._send(CommandKind.START, first, 0)
        sent_ns = time.monotonic_ns()
        record = self._state.record

        def is_there() -> bool:
            nonlocal sent_ns
            if int(record["refused_epoch"]) == self._epoch:
                return True
            is_begun = int(record["epoch"]) == self._epoch
            if is_begun and time.monotonic_ns() - sent_ns >= _BEAT_NS:
                self._send(CommandKind.FOLLOW, first, 0)
                sent_ns = time.monotonic_ns()
            has_ended = bool(record["is_latched"])
            return has_ended or (is_begun and not record["is_approaching"])

        is_done = self._wait(is_there, timeout_s)
        if int(record["refused_epoch"]) == self._epoch:
            raise InputError(self.status().reason)
        if not is_done or self.mode != "following":
            self.stop("the first action was not reached")
            raise DeviceError(
                f"the episode did not start within {timeout_s:g} s: the arms are {self.mode}; "
                f"{self.reason or 'expected them to reach the first action by then'}"
            )
        self._send(CommandKind.FOLLOW, first, 0)

    def command(self, action: NDArray[np.floating], *, ramp_ns: int = 0, valid_ns: int = 0) -> None:
        """Send joint targets [num_joints]; never waits, and raises nothing.

        What is no position of these joints is sent all the same: the supervisor does not execute
        it, counts it, and stops if there are more.

        Args:
            action: In the contract's order and units.
            ramp_ns: Get there in a straight line over so long: the time to the next command.
            valid_ns: The arms brake if the next has not come by then; 0 for what the rules say,
                and never longer than they allow.
        """
        self._send(CommandKind.FOLLOW, action, ramp_ns, valid_ns)

    def state(self, out: NDArray[np.float64]) -> int:
        """Write the measured positions [num_joints]; return when they were, monotonic."""
        self._state.read()
        out[:] = self._state.record["measured"]
        return int(self._state.record["measured_ns"])

    @property
    def mode(self) -> str:
        """`holding`, `following`, `homing`, `braking`, `stopped`; `lost` if nobody says."""
        self._state.read()
        record = self._state.record
        if self._is_closed or record["is_closed"]:
            return "closed"
        is_silent = time.monotonic_ns() - int(record["tick_ns"]) > _LOST_NS
        if is_silent or self._process.exit_code is not None:
            return "lost"
        return _MODES[int(record["mode"])]

    @property
    def reason(self) -> str:
        """Why the arms are not following; empty if there is nothing to say."""
        if self.mode == "lost":
            code = self._process.exit_code
            return f"the supervisor {'hangs' if code is None else f'ended with code {code}'}"
        found = self.status().reason
        return f"{found}: {self._said}" if found == "stop asked" and self._said else found

    @property
    def link_path(self) -> str:
        """Where another process of this user attaches to the link, such as an emergency stop's."""
        return f"/proc/{self._process.pid}/fd/{self._link.descriptor}"

    @property
    def link(self) -> ArmLink:
        """The shared memory, for the driver's page."""
        return self._link

    def watched(self) -> ArmLink:
        """Return a view of the link of its own, for another thread to look at the state with."""
        return ArmLink(self._link.descriptor)

    @property
    def supervisor_pid(self) -> int:
        """The number of the process that has the arms."""
        return self._process.pid

    def status(self) -> ArmStatus:
        """Return all that the supervisor said last, for people."""
        self._state.read()
        return status_from_record(self._state.record)

    def stop(self, reason: str = "") -> None:
        """End the episode: the arms brake and hold."""
        self._said = reason
        self._link.ask_stop(self._epoch)

    def estop(self) -> None:
        """Stop for good; only `release_estop` and then `operator_reset` undo it."""
        self._link.press_estop()

    def release_estop(self) -> None:
        """The cause is cleared; nothing moves yet."""
        self._link.release_estop()

    def operator_reset(self) -> None:
        """Let the arms be used again, half a second from now: a person's word that it is safe.

        Without effect while they move, while the emergency stop is in, and while the driver fails.
        """
        self._link.ask_reset()

    def home(self) -> None:
        """Go home slowly; anything else that is asked ends it. Nothing looks for collisions."""
        self._link.ask_home()

    def wait_for(self, mode: str, timeout_s: float) -> bool:
        """Wait until the arms are in a mode; return whether they are."""
        return self._wait(lambda: self.mode == mode, timeout_s)

    def close(self, timeout_s: float = 5.0) -> None:
        """Brake, let go of the arms at rest and with torque on; closing twice is fine.

        Raises:
            DeviceError: the supervisor did not end by itself, or could not let go of the arms.
        """
        if self._is_closed:
            return
        self._link.ask_close()
        self._wait(lambda: bool(self._state.record["is_closed"]), timeout_s)
        has_ended = self._process.end(1.0) and self._process.exit_code == 0
        self._state.read()
        self._is_closed = True
        os.close(self._link.descriptor)
        if not has_ended:
            raise DeviceError(
                f"the supervisor of the arms ended with code {self._process.exit_code}; expected "
                "it to end by itself, with 0: see what it said, and that the arms are at rest and "
                "powered"
            )

    def _end_episode(self, timeout_s: float) -> None:
        """Come to rest, for an episode starts from there."""
        if self.mode in ("following", "homing", "braking"):
            self.stop("the next episode starts")
            self._wait(lambda: self.mode not in ("following", "homing", "braking"), timeout_s)
        if self.mode != "holding":
            raise DeviceError(
                f"the arms are {self.mode}: {self.reason}; expected them to be holding: clear the "
                "cause, then operator_reset()"
            )

    def _send(
        self, kind: CommandKind, action: NDArray[np.floating], ramp_ns: int, valid_ns: int = 0
    ) -> None:
        """Publish one command."""
        channel = self._command
        record = channel.record
        record["sequence"] = channel.sequence + 1
        record["epoch"] = self._epoch
        record["valid_ns"], record["ramp_ns"] = valid_ns, ramp_ns
        record["kind"], record["num_values"] = kind, action.size
        if action.size == self._num_joints:
            record["action"] = action
        record["sent_ns"] = time.monotonic_ns()
        channel.write()

    def _wait(self, is_so: Callable[[], bool], timeout_s: float) -> bool:
        """Look at what the supervisor says until something is so; return whether it is."""
        deadline_s = time.monotonic() + timeout_s
        while True:
            self._state.read()
            if is_so():
                return True
            if time.monotonic() >= deadline_s or self._process.exit_code is not None:
                self._state.read()
                return is_so()
            time.sleep(_LOOK_S)
