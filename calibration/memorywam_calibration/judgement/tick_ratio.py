"""Tick ratio: a quantized bundle's tick over the float bundle's, measured in turns."""

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from memorywam_runtime.bench.bench_arm import ArmOptions, SessionArm
from memorywam_runtime.opening import Opening

__all__ = ["TickRatio", "least_median", "tick_ratio"]

_DOUBT = 0.025
"""That a lower end is too high: the usual interval of 95 % has as much on either side."""
_WIDE, _NARROW, _AGAIN = "float", "quantized", "float again"


@dataclass(frozen=True, slots=True, kw_only=True)
class TickRatio:
    """How long ticks take, and by how much the two differ."""

    frames: int
    """In memory."""
    num_threads: int
    rounds: int
    wide_ms: float
    """Median."""
    narrow_ms: float
    ratio: float
    """Median of the quantized tick over the float tick beside it; below 1 is faster."""
    at_least: float
    """Below this the ratio is not, in 39 of 40 measurements."""
    noise: float
    """The same of the float bundle over itself: how far it is from 1 is what means nothing."""

    @property
    def is_slower(self) -> bool:
        """Is the quantized tick slower by more than the float tick differs from itself?

        Its median alone does not tell: that of the float bundle beside itself exceeded the limit
        in one measurement of four.
        """
        return self.at_least > max(self.noise, 1 / self.noise, 1.0)


def tick_ratio(
    wide: Path,
    narrow: Path,
    *,
    frames: int,
    num_threads: int = 1,
    rounds: int = 30,
    tell: Callable[[str], None] = lambda doing: None,
) -> TickRatio:
    """Measure ticks of both bundles on ONNX Runtime, in turns, in an order drawn each round.

    A tick remembers a frame and makes a chunk. The float bundle takes part twice.

    Args:
        wide: The bundle as exported.
        narrow: What was quantized from it.
        frames: In memory, of random images: what they hold does not change what they cost.
        num_threads: Inside one operator.
        rounds: Each a tick of every arm, and one before it that does not count.
        tell: Called with what is at work.
    """
    opening = Opening(num_threads=num_threads, allow_unverified=True)
    roots = {_WIDE: wide, _NARROW: narrow, _AGAIN: wide}
    arms = {
        name: SessionArm(ArmOptions(root=str(root), opening=opening))
        for name, root in roots.items()
    }
    for arm in arms.values():
        arm.open()
        arm.fill(frames)
    took: dict[str, list[float]] = {name: [] for name in arms}
    order, shuffle = list(arms), random.Random(0)
    for number in range(rounds):
        tell(f"ticks in turns, round {number + 1} of {rounds}")
        shuffle.shuffle(order)
        for name in order:
            took[name].append(sum(arms[name].tick(discard=1)["tick"]))
    pairs = zip(took[_WIDE], took[_NARROW], took[_AGAIN], strict=True)
    ratios = [(narrow_ms / wide_ms, again_ms / wide_ms) for wide_ms, narrow_ms, again_ms in pairs]
    return TickRatio(
        frames=frames,
        num_threads=num_threads,
        rounds=rounds,
        wide_ms=median(took[_WIDE]),
        narrow_ms=median(took[_NARROW]),
        ratio=median(ratio for ratio, _ in ratios),
        at_least=least_median([ratio for ratio, _ in ratios]),
        noise=median(noise for _, noise in ratios),
    )


def least_median(values: Sequence[float]) -> float:
    """Return what a median is not below, with a certainty of 97.5 %, whatever the distribution.

    Formula: the number of values below the median is binomial with p = 1/2 (Thompson, Annals of
    Mathematical Statistics 7 (1936) 122); of 30, that is the tenth.

    Args:
        values: Measured independently; of fewer than six the smallest is returned, which is sure
            of less.
    """
    count, below, place = len(values), 0, 0
    while place < count and (below := below + math.comb(count, place)) <= _DOUBT * 2**count:
        place += 1
    return sorted(values)[max(place - 1, 0)]
