"""What pairs of successes and failures say: intervals, an exact test, what they could have seen."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

from memorywam_runtime.errors import InputError

__all__ = ["CONFIDENCE", "POWER", "Pairs", "Share", "pairs_from_outcomes", "share_of"]

CONFIDENCE = 0.95
"""Of every interval; tests are two-sided at what is left of 1."""
POWER = 0.8
"""With which a regression is said to be seen."""
_Z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
_Z_POWER = NormalDist().inv_cdf(POWER)


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """Successes among episodes, with their interval."""

    successes: int
    episodes: int
    share: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairs:
    """The same episodes by two: how they differ."""

    both: int
    """Episodes in which both succeed."""
    only_first: int
    """Regressions, where the first is the reference."""
    only_second: int
    """Repairs."""
    neither: int
    difference: float
    """Share of the second less that of the first."""
    low: float
    high: float
    p_value: float
    """Of McNemar's exact test that repairs and regressions are as likely."""
    seeable: float
    """The smallest loss of success that so many pairs show with a power of 80 %."""

    @property
    def episodes(self) -> int:
        """All of them."""
        return self.both + self.only_first + self.only_second + self.neither


def share_of(successes: int, episodes: int) -> Share:
    """Return a share with its score interval.

    Formula: Wilson, JASA 22 (1927) 209; recommended for few episodes by Brown, Cai and DasGupta,
    Statistical Science 16 (2001) 101.

    Raises:
        InputError: no episode, or more successes than episodes.
    """
    if not 0 <= successes <= episodes or not episodes:
        raise InputError(
            f"found {successes} successes in {episodes} episodes; expected at least one episode, "
            "and no more successes"
        )
    share, weight = successes / episodes, _Z**2 / episodes
    middle = (share + weight / 2) / (1 + weight)
    half = math.sqrt(weight * (share * (1 - share) + weight / 4)) / (1 + weight)
    # Exactly 0 and 1 at the ends, where rounding would leave 1e-17.
    return Share(
        successes=successes,
        episodes=episodes,
        share=share,
        low=middle - half if successes else 0.0,
        high=middle + half if successes < episodes else 1.0,
    )


def pairs_from_outcomes(outcomes: Sequence[tuple[bool, bool]]) -> Pairs:
    """Return how two differ on the same episodes.

    Args:
        outcomes: Success of the first and of the second, by episode.

    Raises:
        InputError: no episode.
    """
    counts = [[0, 0], [0, 0]]
    for first, second in outcomes:
        counts[first][second] += 1
    (neither, only_second), (only_first, both) = counts
    low, high = _difference_interval(both, only_first, only_second, neither)
    count = len(outcomes)
    return Pairs(
        both=both,
        only_first=only_first,
        only_second=only_second,
        neither=neither,
        difference=(only_second - only_first) / count,
        low=low,
        high=high,
        p_value=_mcnemar(only_first, only_second),
        seeable=_seeable(count, (only_first + only_second) / count),
    )


def _difference_interval(
    both: int, only_first: int, only_second: int, neither: int
) -> tuple[float, float]:
    """Return the interval of the second's share less the first's.

    Formula: Newcombe, Statistics in Medicine 17 (1998) 2635, method 10: the two score intervals,
    put together with the correlation of the pairs, corrected for continuity.
    """
    count = both + only_first + only_second + neither
    first, second = share_of(both + only_first, count), share_of(both + only_second, count)
    margins = (both + only_first, only_second + neither, both + only_second, only_first + neither)
    cross = both * neither - only_first * only_second
    corrected = max(cross - count / 2, 0) if cross > 0 else cross
    correlation = corrected / math.sqrt(math.prod(margins)) if all(margins) else 0.0

    def reach(one: float, other: float) -> float:
        return math.sqrt(max(one**2 - 2 * correlation * one * other + other**2, 0.0))

    difference = second.share - first.share
    below = reach(second.share - second.low, first.high - first.share)
    above = reach(second.high - second.share, first.share - first.low)
    return difference - below, difference + above


def _mcnemar(only_first: int, only_second: int) -> float:
    """Return the two-sided probability of so uneven a split of what differs.

    Formula: McNemar, Psychometrika 12 (1947) 153, with the binomial distribution itself.
    """
    count, least = only_first + only_second, min(only_first, only_second)
    tail = sum(math.comb(count, k) for k in range(least + 1))
    return min(1.0, float(2 * tail / 2.0**count))


def _seeable(count: int, discordant: float) -> float:
    """Return the smallest loss that McNemar's test sees with this many pairs.

    Formula: Connor, Biometrics 43 (1987) 207: a loss d among a share s of pairs that differ needs
    (z_alpha sqrt(s) + z_power sqrt(s - d^2))^2 / d^2 pairs. Where the loss is larger than what was
    found to differ, it is all that differs: s = d.

    Args:
        count: Pairs.
        discordant: Share of the pairs that were found to differ.
    """

    def needed(loss: float) -> float:
        differ = max(discordant, loss)
        root = _Z * math.sqrt(differ) + _Z_POWER * math.sqrt(differ - loss**2)
        return float((root / loss) ** 2)

    if needed(1.0) > count:
        return 1.0
    low, high = 0.0, 1.0
    for _ in range(60):  # of a bisection: to the last bit
        middle = (low + high) / 2
        low, high = (middle, high) if needed(middle) > count else (low, middle)
    return high
