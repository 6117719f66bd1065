"""What a bisection tells: each graph holds, or this is its first operator that fails."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from memorywam_export.bisect.bisect_reading import FLOORS, TIMES_ROUNDING, Reading
from memorywam_export.bisect.bisect_truth import Place

__all__ = ["Bisection", "Fault", "GraphVerdict"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """The first operator of a graph that leaves tolerance."""

    graph: str
    node: str
    """Its name in the ONNX file."""
    operator: str
    """ONNX's."""
    place: Place
    """Of the operator in the model."""
    value: str
    """The first value that is wrong; the operator's own, or the next that can be compared."""
    error: Reading
    last_good: str
    """The value before it with the largest error; empty if only the graph's inputs are."""
    error_before: Reading | None
    between: tuple[str, ...]
    """Every operator between the values before and the wrong one, in order."""
    blame: str
    """`file`, `weights`, `runtime`, `fusion` or `unknown`."""
    cause: str
    """In words: found, expected."""

    @property
    def words(self) -> str:
        """Return it in a sentence."""
        error = f"error {self.error.rms:.2g}, {self.error.excess:.3g} times what is allowed"
        where = "; ".join(filter(None, (self.place.layer, self.place.source)))
        return f"{self.operator} {self.node} ({where}): {error}; {self.cause}"


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphVerdict:
    """One graph."""

    graph: str
    num_values: int
    """Values in its file."""
    num_compared: int
    """Of those, values that the trace has too."""
    num_runs: int
    """Runs of ONNX Runtime."""
    worst: str
    """The value with the largest error in units of its tolerance, of those looked at."""
    excess: float
    """That error; above 1 it is out of tolerance."""
    trace_error: float
    """Relative, of the trace in float64 from the module that it is a trace of."""
    trace_limit: float
    """What that may be: a constant of the trace is in the bundle's type."""
    fault: Fault | None
    kept: tuple[Path, ...] = ()
    """The files of the smallest model that shows the fault."""

    @property
    def ok(self) -> bool:
        """Does the graph hold?"""
        return self.fault is None and self.trace_error <= self.trace_limit

    @property
    def words(self) -> str:
        """Return what is wrong in a sentence; empty if nothing is."""
        if self.fault is not None:
            return self.fault.words
        if self.ok:
            return ""
        return (
            f"its trace differs from its module by {self.trace_error:.2g}; expected "
            f"{self.trace_limit:.2g} at most: torch's decompositions changed the graph"
        )

    @property
    def row(self) -> tuple[object, ...]:
        """A line of the table."""
        compared = f"{self.num_compared} of {self.num_values}"
        verdict = "ok" if self.ok else "FAILED"
        return (self.graph, compared, self.num_runs, f"{self.excess:.2g}", self.words, verdict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bisection:
    """All graphs of a bundle."""

    graphs: tuple[GraphVerdict, ...]
    seconds: float
    notes: tuple[str, ...] = ()
    """What weakens the verdict."""

    headers = ("graph", "values compared", "runs", "worst / allowed", "first fault", "verdict")

    @property
    def ok(self) -> bool:
        """Does every graph hold?"""
        return all(verdict.ok for verdict in self.graphs)

    @property
    def faults(self) -> tuple[Fault, ...]:
        """The first fault of each graph that has one, in the order of the graphs."""
        return tuple(verdict.fault for verdict in self.graphs if verdict.fault is not None)

    @property
    def rows(self) -> Sequence[tuple[object, ...]]:
        """The table."""
        return [verdict.row for verdict in self.graphs]

    @property
    def note(self) -> str:
        """Return the verdict in a sentence."""
        runs = sum(verdict.num_runs for verdict in self.graphs)
        cost = f"{runs} runs, {self.seconds:.0f} s"
        if self.ok:
            told = (
                "every value inside every graph holds: if actions differ, the fault is outside "
                "of the graphs: memory, positions, preprocessing"
            )
        else:
            first = next(verdict for verdict in self.graphs if not verdict.ok)
            told = f"the first fault is in {first.graph}: {first.words}"
        return "; ".join((f"{told} ({cost})", *self.notes))

    @property
    def data(self) -> dict[str, Any]:
        """Return everything for machines."""
        return {
            "verdict": "ok" if self.ok else "failed",
            "seconds": self.seconds,
            "tolerance": {"times_rounding": TIMES_ROUNDING, "floors": FLOORS},
            "notes": list(self.notes),
            "graphs": [
                {
                    **asdict(verdict),
                    "kept": [str(path) for path in verdict.kept],
                    "verdict": "ok" if verdict.ok else "failed",
                }
                for verdict in self.graphs
            ],
        }
