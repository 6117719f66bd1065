"""Arms that can be told to fail, in the process of a supervisor."""

import signal
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from memorywam_robot.arm import ArmDriver

__all__ = ["FailingDriver", "LaggingDriver", "open_failing_sim", "open_lagging"]


class LaggingDriver:
    """Arms that go a share of the way to their target at every read."""

    def __init__(self, num_joints: int = 3, share: float = 0.5) -> None:
        self._position, self._target = np.zeros(num_joints), np.zeros(num_joints)
        self._share = share
        self.is_powered = True

    @property
    def num_joints(self) -> int:
        return len(self._position)

    def read(self, out: NDArray[np.float64]) -> None:
        self._position += self._share * (self._target - self._position)
        out[:] = self._position

    def write(self, target: NDArray[np.float64]) -> None:
        self._target[:] = target

    def close(self) -> None:
        """Torque stays on."""


class FailingDriver:
    """Another driver, with a fault that a signal turns on, and off again."""

    def __init__(self, inner: ArmDriver, fault: str) -> None:
        self._inner, self._fault, self._is_failing = inner, fault, False
        signal.signal(signal.SIGUSR1, self._turn)

    def _turn(self, *_: object) -> None:
        self._is_failing = not self._is_failing

    @property
    def num_joints(self) -> int:
        return self._inner.num_joints

    @property
    def is_powered(self) -> bool:
        return self._inner.is_powered

    def read(self, out: NDArray[np.float64]) -> None:
        self._inner.read(out)
        if not self._is_failing:
            return
        if self._fault == "slow":
            time.sleep(0.035)
        elif self._fault == "nan":
            out[0] = np.nan
        elif self._fault == "read":
            raise OSError("no answer from the arms")

    def write(self, target: NDArray[np.float64]) -> None:
        if self._is_failing and self._fault == "write":
            raise OSError("the arms take nothing")
        self._inner.write(target)

    def close(self) -> None:
        self._inner.close()


def open_lagging(text: str, _page: memoryview) -> ArmDriver:
    """Return arms by option: raise, print, exit, hang, beyond, refuse, joints=N or log=PATH."""
    kind, _, value = text.partition("=")
    if kind == "raise":
        raise OSError(f"no such bus: {value}")
    if kind == "exit":
        raise SystemExit(7)
    if kind == "hang":
        time.sleep(60)
    if kind == "print":
        print("a vendor's greeting")  # noqa: T201
    driver = LaggingDriver(int(value) if kind == "joints" else 3)
    if kind == "beyond":
        driver.write(np.array([0.0, 9.0, 0.0]))
        for _ in range(30):
            driver.read(np.zeros(3))
    if kind == "refuse":
        driver = _Refusing()
    if kind == "log":
        driver = _Logging(Path(value))
    return driver


class _Refusing(LaggingDriver):
    """Wanders by itself, and takes nothing."""

    def read(self, out: NDArray[np.float64]) -> None:
        self._position += 0.001
        super().read(out)

    def write(self, target: NDArray[np.float64]) -> None:
        raise OSError("a command")


class _Logging(LaggingDriver):
    """Writes down how it was left."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path

    def close(self) -> None:
        still = bool(np.abs(self._target - self._position).max() < 0.02)
        self._path.write_text(f"closed still={still} powered={self.is_powered}")


def open_failing_sim(text: str, page: memoryview) -> ArmDriver:
    """Return the simulated arms of `recall`, with a fault."""
    from memorywam_robot.sim.live import open_live

    return FailingDriver(open_live("recall", 0, page), text)
