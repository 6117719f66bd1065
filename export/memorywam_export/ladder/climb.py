"""The climb: the same episode through every rung of the ladder, each with a memory of its own."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from memorywam_export.ladder.events import EventTrace, play_events
from memorywam_export.parity.parity import drive
from memorywam_export.parity.parity_graphs import Script, graph_inputs, graph_outputs
from memorywam_export.parity.trace_report import (
    Difference,
    RungResult,
    Tensors,
    Trace,
    compared,
    differences,
)
from memorywam_runtime.manifest import Manifest
from memorywam_runtime.session import Session

__all__ = ["Climbed", "Rung", "climb"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rung:
    """One way to run the graphs."""

    name: str
    precision: str
    """Which tolerance counts: fp64, fp32, bf16 or fp16."""
    open: Callable[[], Session]


@dataclass(frozen=True, slots=True, kw_only=True)
class Climbed:
    """What one rung made of the episode, and of the events after it."""

    result: RungResult
    events: EventTrace


def climb(
    rungs: Sequence[Rung],
    truth: Trace,
    script: Script,
    manifest: Manifest,
    tell: Callable[[str], None],
) -> Iterator[Climbed]:
    """Yield the result of each rung; the lowest gives the inputs that the others are forced with.

    Args:
        rungs: From the closest to the reference to the farthest; only one is open at a time.
        truth: The reference's trace.
        script: What they are fed.
        manifest: The bundle's: which graphs, and in which types.
        tell: Called with what is being done.
    """
    inputs: dict[str, Tensors] = {}
    below: dict[str, Tensors] = {}
    history: Tensors = {}
    for rung in rungs:
        tell(f"{rung.name}: open")
        session = rung.open()
        trace = drive(session, script, tell, rung.name)
        inputs = inputs or graph_inputs(session, script, manifest)
        graphs: dict[str, dict[str, Difference]] = {}
        for graph, tensors in inputs.items():
            tell(f"{rung.name}: {graph}")
            outputs = graph_outputs(session, graph, tensors)
            if graph in below:
                graphs[graph] = differences(outputs, below[graph])
            below[graph] = outputs
        tell(f"{rung.name}: events")
        events = play_events(session, script, trace, rung.name, rung.precision)
        del session
        history = history or trace.history
        result = compared(
            rung.name, rung.precision, trace=trace, truth=truth, history=history, graphs=graphs
        )
        yield Climbed(result=result, events=events)
