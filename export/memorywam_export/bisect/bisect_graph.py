"""The first operator of one graph that leaves tolerance."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast, get_args

from memorywam_export.bisect.bisect_reading import Reading, reading
from memorywam_export.bisect.bisect_search import Found, Lineage, first_fault
from memorywam_export.bisect.bisect_suspect import Exposed, Suspect
from memorywam_export.bisect.bisect_truth import GraphTruth
from memorywam_export.parity.trace_report import Array, Tensors
from memorywam_runtime.backends import Backend
from memorywam_runtime.errors import BundleError
from memorywam_runtime.tensors import DType

__all__ = ["GraphSearch"]

_WIDTH = 6
"""Values looked at in one run of the search."""
_NUM_VALUES = 64
"""Values in one run where all are looked at."""
_NUM_BYTES = 64 << 20
"""Of the values of one run; a value that is larger is looked at alone."""


@dataclass(slots=True, kw_only=True)
class GraphSearch:
    """One graph: its file, its truth, its inputs, and what was read so far."""

    suspect: Suspect
    truth: GraphTruth
    inputs: Tensors
    backend: Backend
    readings: dict[str, Reading] = field(default_factory=dict[str, Reading])
    """Of every value that was looked at."""
    num_runs: int = 0
    """Of ONNX Runtime."""
    refusal: str = ""
    """Why the bundle's own file does not run, if it does not."""
    _exposed: dict[str, Exposed] = field(default_factory=dict[str, Exposed])

    def __post_init__(self) -> None:
        """Align the file's values with those of the trace, by name."""
        shapes = self.truth.shapes(self.inputs)
        for name in self.suspect.values:
            if name in shapes and shapes[name][1] in get_args(DType):
                shape, dtype = shapes[name]
                self._exposed[name] = Exposed(name=name, shape=shape, dtype=cast("DType", dtype))

    def value(self, name: str) -> Array:
        """Return one value as ONNX Runtime makes it.

        Raises:
            BundleError: it cannot be made.
        """
        self.num_runs += 1
        return self.suspect.run([self._exposed[name]], self.backend)[name]

    def exposed(self, name: str) -> Exposed:
        """Return shape and type of a value that can be compared."""
        return self._exposed[name]

    @property
    def aligned(self) -> set[str]:
        """The values that can be compared."""
        return set(self._exposed)

    def bad_outputs(self, root: Path) -> list[str]:
        """Return the outputs of the bundle's own file that are out of tolerance.

        Args:
            root: The bundle.
        """
        names = [spec.name for spec in self.suspect.entry.outputs if spec.name in self._exposed]
        self.num_runs += 1
        try:
            found = self.suspect.run_whole(root, self.backend)
        except BundleError as error:
            self.refusal = str(error)
            found = {}
        return [name for name, holds in self._judged(names, found).items() if not holds]

    def bad_inside(self) -> list[str]:
        """Look at all values, in as few runs as their bytes allow; return the first wrong ones."""
        for names in self._batches(list(self._exposed)):
            verdicts = self.probe(names)
            if wrong := [name for name, holds in verdicts.items() if not holds]:
                return wrong
        return []

    def first(self, bad: Sequence[str]) -> Found:
        """Return the first value that is wrong above some that are."""
        aligned = self.aligned
        lineage = Lineage(
            {name: self.suspect.direct_parents(name, aligned) for name in self._exposed}
        )
        return first_fault(lineage, bad, self.probe, width=_WIDTH, num_values=_NUM_VALUES)

    def probe(self, names: Sequence[str]) -> Mapping[str, bool]:
        """Compute values; return of each whether it holds."""
        return self._judged(names, self._computed([self._exposed[name] for name in names]))

    def _judged(self, names: Sequence[str], found: Tensors) -> dict[str, bool]:
        """Read the error of values; those that were not found have an infinite one."""
        truths = self.truth.values(self.inputs, names)
        for name in names:
            self.readings[name] = reading(found.get(name), *truths[name])
        return {name: self.readings[name].ok for name in names}

    def _computed(self, wanted: Sequence[Exposed]) -> Tensors:
        """Return what can be computed of some values: one that cannot must not hide the others."""
        self.num_runs += 1
        try:
            return self.suspect.run(wanted, self.backend)
        except BundleError:
            if len(wanted) == 1:
                return {}
            half = len(wanted) // 2
            return self._computed(wanted[:half]) | self._computed(wanted[half:])

    def _batches(self, names: Sequence[str]) -> Iterator[list[str]]:
        """Yield values in lots that one run may give out."""
        lot: list[str] = []
        size = 0
        for name in names:
            num_bytes = self._exposed[name].spec.num_bytes
            if lot and (len(lot) == _NUM_VALUES or size + num_bytes > _NUM_BYTES):
                yield lot
                lot, size = [], 0
            lot.append(name)
            size += num_bytes
        if lot:
            yield lot
