"""The search for the first value of a graph that is wrong while all that it is made of is right."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

__all__ = ["Found", "Lineage", "first_fault"]

Probe = Callable[[Sequence[str]], Mapping[str, bool]]
"""Computes values by name and says of each whether it holds; one call is one run."""


class Lineage:
    """Which values each value is made of, through those that cannot be compared.

    Sets of values are whole numbers, one bit a value: graphs have thousands.
    """

    def __init__(self, parents: Mapping[str, Iterable[str]]) -> None:
        """Note a graph of values.

        Args:
            parents: Every value that can be compared, in the graph's order, with those that it
                is directly made of; they stand before it.
        """
        self.names = tuple(parents)
        self._bit = {name: 1 << index for index, name in enumerate(self.names)}
        self._parents = {name: tuple(found) for name, found in parents.items()}
        self._ancestors: dict[str, int] = {}
        for name in self.names:
            above = 0
            for parent in self._parents[name]:
                above |= self._bit[parent] | self._ancestors[parent]
            self._ancestors[name] = above

    def parents(self, name: str) -> tuple[str, ...]:
        """Return the values that one is directly made of."""
        return self._parents[name]

    def earlier(self, name: str) -> tuple[str, ...]:
        """Return the values before one in the graph's order."""
        return self.names[: self.names.index(name)]

    def ancestors(self, name: str) -> int:
        """Return all that a value is made of, as a set."""
        return self._ancestors[name]

    def with_ancestors(self, names: Iterable[str]) -> int:
        """Return these values and all that they are made of, as a set."""
        found = 0
        for name in names:
            found |= self._bit[name] | self._ancestors[name]
        return found

    def members(self, values: int) -> list[str]:
        """Return the names in a set, in the graph's order."""
        return [name for name in self.names if self._bit[name] & values]

    def spread(self, candidates: int, count: int) -> list[str]:
        """Return the candidates that split them into the most equal parts.

        One value splits them into those that it is made of and the others; several are taken at
        equal steps of how many candidates they are made of.
        """
        members = self.members(candidates)
        if len(members) <= count:
            return members
        weights = {name: (self._ancestors[name] & candidates).bit_count() for name in members}
        chosen: dict[str, None] = {}
        for part in range(1, count + 1):
            wanted = len(members) * part / (count + 1)
            left = (name for name in members if name not in chosen)
            chosen[min(left, key=lambda name: abs(weights[name] - wanted))] = None
        return sorted(chosen, key=members.index)


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A value that is wrong while those before it are right."""

    value: str
    good: tuple[str, ...]
    """What it is directly made of, as far as that can be compared; all of it holds."""
    num_probes: int
    still_bad: bool
    """Was it wrong, too, in the run in which what it is made of was looked at?"""


def first_fault(
    lineage: Lineage, bad: Iterable[str], probe: Probe, *, width: int, num_values: int
) -> Found:
    """Return the first fault above values that are known to be wrong.

    Each run looks at `width` values, chosen as `git bisect` chooses commits: they halve the
    candidates. A wrong value makes what it is made of the candidates; a right one acquits what it
    is made of, for the time being: at the end the direct parents are looked at, and whatever
    stands earlier in the graph's order, so that nothing rests on errors never dying out.

    Args:
        lineage: The graph.
        bad: Values that were found wrong, if perhaps only where nothing was given out.
        probe: Looks at values.
        width: Values a run in the search; at least 1.
        num_values: Values a run when the rest is looked at.
    """
    order = {name: index for index, name in enumerate(lineage.names)}
    verdicts: dict[str, bool] = {}
    num_probes = 0

    def look(names: Sequence[str]) -> list[str]:
        """Look at values; return the wrong ones, the earliest first."""
        nonlocal num_probes
        wanted = [name for name in names if name not in verdicts]
        if wanted:
            num_probes += 1
            verdicts.update(probe(wanted))
        return sorted((name for name in names if not verdicts[name]), key=order.__getitem__)

    def probe_again(names: Sequence[str]) -> Mapping[str, bool]:
        """Look at values whatever was found before."""
        nonlocal num_probes
        num_probes += 1
        return probe(names)

    left = sorted(set(bad), key=order.__getitem__)
    while True:
        value = left.pop(0)
        verdicts[value] = False
        value, still_bad = _root(lineage, value, look, probe_again, width, num_values)
        if still_bad or not left:
            return Found(
                value=value,
                good=lineage.parents(value),
                num_probes=num_probes,
                still_bad=still_bad,
            )
        verdicts[value] = True  # wrong only in the run that said so: on to the next


def _root(
    lineage: Lineage,
    value: str,
    look: Callable[[Sequence[str]], list[str]],
    probe: Probe,
    width: int,
    num_values: int,
) -> tuple[str, bool]:
    """Return the first wrong value that one leads to, and whether it is wrong when looked at."""
    while True:
        value = _narrowed(lineage, value, look, width)
        wrong = look(lineage.parents(value))
        still_bad = wrong or not probe([value, *lineage.parents(value)])[value]
        rest = lineage.earlier(value)
        for first in range(0, len(rest), num_values):
            wrong = wrong or look(rest[first : first + num_values])
        if not wrong:
            return value, bool(still_bad)
        value = wrong[0]


def _narrowed(
    lineage: Lineage, value: str, look: Callable[[Sequence[str]], list[str]], width: int
) -> str:
    """Return a wrong value above, or the value itself, under which no candidate is left."""
    candidates = lineage.ancestors(value)
    while candidates:
        chosen = lineage.spread(candidates, width)
        wrong = look(chosen)
        if wrong:
            value = wrong[0]
            candidates &= lineage.ancestors(value)
        right = [name for name in chosen if name not in wrong]
        candidates &= ~lineage.with_ancestors(right)
    return value
