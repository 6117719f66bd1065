"""Activations: statistics of every site of the graphs, and the decision points that they are of."""

from collections import Counter
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memorywam_calibration.episodes.samples import Sample
from memorywam_calibration.replay.statistics import LIMIT, GramSums, TensorStatistics
from memorywam_runtime.errors import InputError

__all__ = ["Activations", "Rows"]

Rows = NDArray[np.floating]
_GRAM = "gram"
"""What `state` calls the products of a site's channels."""


class Activations:
    """Statistics of every site, and the decision points that they are of."""

    def __init__(self, gram_sites: Collection[str] = ()) -> None:
        """Start empty.

        Args:
            gram_sites: Whose products of channels are counted, too.
        """
        self.samples: set[Sample] = set()
        self.sites: dict[str, TensorStatistics] = {}
        """`graph/name:input` of a linear map, `memory.LL.k` of what was written to memory."""
        self.grams: dict[str, GramSums] = {}
        """Of the sites that it was asked for."""
        self._gram_sites = frozenset(gram_sites)
        self._waiting: dict[str, list[Rows]] = {}
        self.counts = Counter[str]()
        """Steps and classes of tokens that were met, in decision points."""

    def add(self, site: str, values: Rows, group: str) -> None:
        """Take rows [rows, channels] of a site; they count once `flush` is called.

        Raises:
            InputError: a value that no range could be made from.
        """
        peak = float(np.abs(values).max(initial=0.0))
        if not peak < LIMIT:  # nor is what is not a number
            raise InputError(
                f"{site} ({group}): found the value {peak}; expected finite values below "
                f"{LIMIT:.0f}: the weights, the statistics of the data set or the images are "
                "damaged"
            )
        if site not in self.sites:
            self.sites[site] = TensorStatistics(values.shape[1])
        self.sites[site].note_peak(group, peak)
        self._waiting.setdefault(site, []).append(values)

    def flush(self) -> None:
        """Count what waits: rows of many calls at once, and what several maps share only once."""
        made: dict[tuple[int, ...], TensorStatistics] = {}
        for site, rows in self._waiting.items():
            key = tuple(id(one) for one in rows)
            if key not in made:
                made[key] = TensorStatistics(rows[0].shape[1])
                made[key].add(np.concatenate(rows))
            self.sites[site] = self.sites[site].merged(made[key])
            if site in self._gram_sites:
                self.grams.setdefault(site, GramSums(rows[0].shape[1])).add(np.concatenate(rows))
        self._waiting = {}

    def merged(self, other: "Activations") -> "Activations":
        """Return those of both together.

        Raises:
            InputError: a decision point that both have counted, or sites that differ.
        """
        if twice := self.samples & other.samples:
            one = min(twice, key=lambda sample: (sample.episode, sample.frame))
            raise InputError(
                f"found frame {one.frame} of {one.episode} in both parts; expected each decision "
                "point once: leave one part out"
            )
        both = Activations(self._gram_sites | other._gram_sites)  # noqa: SLF001 - of the same class
        both.samples = self.samples | other.samples
        both.counts = self.counts + other.counts
        for site in sorted({*self.sites, *other.sites}):
            mine, theirs = self.sites.get(site), other.sites.get(site)
            both.sites[site] = mine.merged(theirs) if mine and theirs else mine or theirs  # type: ignore[assignment]
        for site in sorted({*self.grams, *other.grams}):
            my, their = self.grams.get(site), other.grams.get(site)
            both.grams[site] = my.merged(their) if my and their else my or their  # type: ignore[assignment]
        return both

    def state(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """Return all of it: what JSON can hold, and arrays by name."""
        sites: dict[str, dict[str, Any]] = {}
        arrays: dict[str, NDArray[Any]] = {}
        for site in sorted(self.sites):
            sites[site], found = self.sites[site].state()
            arrays |= {f"{site}|{name}": array for name, array in found.items()}
        arrays |= {f"{site}|{_GRAM}": self.grams[site].levels() for site in sorted(self.grams)}
        points = sorted((one.episode, one.frame, one.seed) for one in self.samples)
        plain = {"samples": points, "counts": dict(self.counts), "sites": sites}
        return plain | {"grams": sorted(self.grams)}, arrays

    @classmethod
    def from_state(
        cls, plain: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]
    ) -> "Activations":
        """Take back what `state` returned, of JSON.

        Raises:
            InputError: something else.
        """
        by_site: dict[str, dict[str, NDArray[Any]]] = {site: {} for site in plain["sites"]}
        for key, array in arrays.items():
            site, _, name = key.rpartition("|")
            if site not in by_site:
                raise InputError(f"found an array '{key}' of no site; expected those of the sites")
            by_site[site][name] = array
        found = cls(plain["grams"])
        grams = {site: by_site[site].pop(_GRAM) for site in plain["grams"]}
        for site, some in by_site.items():
            found.sites[site] = TensorStatistics.from_state(plain["sites"][site], some)
        for site, levels in grams.items():
            found.grams[site] = GramSums.from_levels(levels, found.sites[site])
        found.samples = {
            Sample(episode=episode, frame=frame, seed=seed)
            for episode, frame, seed in plain["samples"]
        }
        found.counts = Counter(plain["counts"])
        return found

    def to_bytes(self) -> bytes:
        """Return all of it; the same decision points, the same bytes, in whatever order."""
        points = sorted((one.episode, one.frame, one.seed) for one in self.samples)
        head = [f"{points} {sorted(self.counts.items())}\n".encode()]
        parts = ([f"{site}\n".encode(), self.sites[site].to_bytes()] for site in sorted(self.sites))
        sums = [f"{site}\n".encode() + self.grams[site].to_bytes() for site in sorted(self.grams)]
        return b"".join([*head, *(piece for part in parts for piece in part), *sums])
