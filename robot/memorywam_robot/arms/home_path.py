"""The way home: a straight line between two poses, slow, and eased at both ends."""

import numpy as np
from numpy.typing import NDArray

from memorywam_robot.arms.guard_rules import GuardRules

__all__ = ["HomePath"]


class HomePath:
    """Where the joints should be at each moment of the way; nothing is allocated on it.

    Free of collisions it is not: only who asks for it can know that.
    """

    def __init__(self, home: NDArray[np.float64], is_angle: NDArray[np.bool_]) -> None:
        self._home, self._angles = home.copy(), is_angle.astype(np.float64)
        self._start, self._way = np.zeros(len(home)), np.zeros(len(home))
        self._begun_ns = 0
        self._line_s = self._ease_s = 1.0

    @property
    def seconds(self) -> float:
        """How long the whole way takes."""
        return self._line_s + self._ease_s

    def begin(self, now_ns: int, start: NDArray[np.float64], rules: GuardRules) -> None:
        """Set out from a pose at rest [num_joints]."""
        self._start[:] = start
        np.subtract(self._home, start, out=self._way)
        distance_rad = float(np.abs(self._way * self._angles).max())
        self._line_s = max(rules.home_s, distance_rad / rules.home_rad_per_s)
        self._ease_s = rules.home_ease_s
        self._begun_ns = now_ns

    def at(self, now_ns: int, out: NDArray[np.float64]) -> bool:
        """Write the pose of a moment [num_joints]; return whether it is the last."""
        passed_s = (now_ns - self._begun_ns) / 1e9
        if passed_s >= self.seconds:
            out[:] = self._home
            return True
        # A straight ramp, averaged over the time it is eased in: as fast as the ramp, no faster.
        share = (self._area(passed_s) - self._area(passed_s - self._ease_s)) / self._ease_s
        np.multiply(self._way, share, out=out)
        np.add(out, self._start, out=out)
        return False

    def _area(self, passed_s: float) -> float:
        """Return the area under the ramp up to a time, seconds."""
        line_s = self._line_s
        if passed_s <= 0:
            return 0.0
        return passed_s - line_s / 2 if passed_s > line_s else passed_s * passed_s / (2 * line_s)
