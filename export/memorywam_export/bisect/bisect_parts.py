"""One graph of a bundle after the other: searched, and its first fault explained."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import nn

from memorywam_export.bisect.bisect_cause import Cause, first_difference, wrong_weight
from memorywam_export.bisect.bisect_fault import Fault, GraphVerdict
from memorywam_export.bisect.bisect_graph import GraphSearch
from memorywam_export.bisect.bisect_keep import by_the_standard, small_model, write_small_model
from memorywam_export.bisect.bisect_reading import FLOORS, reading
from memorywam_export.bisect.bisect_search import Found
from memorywam_export.bisect.bisect_suspect import Suspect
from memorywam_export.bisect.bisect_truth import GraphTruth
from memorywam_export.bundles.bundle import PRECISIONS
from memorywam_export.checkpoints.checkpoint import Checkpoint
from memorywam_export.checkpoints.weights import weight_spans
from memorywam_export.eager.eager import eager_session, graph_modules, rewritten_model, specs_of
from memorywam_export.graphs.graph_spec import GraphSpec
from memorywam_export.graphs.onnx_writer import write_onnx
from memorywam_export.graphs.rewrites import rewrites_of_manifest
from memorywam_export.parity.parity import drive, random_script
from memorywam_export.parity.parity_graphs import graph_inputs
from memorywam_export.parity.trace_report import Array, Tensors, difference
from memorywam_runtime.backends import Backend, backend_from_name
from memorywam_runtime.bundle import WEIGHTS_FILE
from memorywam_runtime.manifest import Manifest
from memorywam_runtime.versions import versions

__all__ = ["BundleParts"]


class BundleParts:
    """What all graphs of one bundle share: the models in two types, and ONNX Runtime."""

    def __init__(self, root: Path, manifest: Manifest, checkpoint: Checkpoint) -> None:
        self.root = root
        self.manifest = manifest
        self.checkpoint = checkpoint
        rewrites = rewrites_of_manifest(manifest)
        self._exact, rounded = (
            rewritten_model(checkpoint.contract, checkpoint.weights, dtype, rewrites)
            for dtype in (torch.float64, PRECISIONS[manifest.precision])
        )
        self.exact = graph_modules(self._exact, manifest.cache_write)
        self.rounded = graph_modules(rounded, manifest.cache_write)
        self.specs = specs_of(rounded, manifest.cache_write)
        self.backend: Backend = backend_from_name("ort", num_threads=1, spin=False)
        self._dtype = str(PRECISIONS[manifest.precision]).removeprefix("torch.")
        self._torch = manifest.versions.get("torch", "unknown"), str(versions().get("torch"))

    @property
    def is_same_torch(self) -> bool:
        """Was the bundle traced by the torch that is here?"""
        return self._torch[0] == self._torch[1]

    @property
    def torch_note(self) -> str:
        """Return what it means if not."""
        found, expected = self._torch
        return (
            f"found a bundle made with torch {found}, here is {expected}: values are matched by "
            "the names that torch gives them, and another version may give others"
        )

    def inputs(self, num_frames: int, seed: int) -> dict[str, Tensors]:
        """Return every graph's inputs at the end of an episode."""
        session = eager_session(
            self._exact,
            self.checkpoint.normalization,
            cache_write=self.manifest.cache_write,
            plan=self.manifest.memory,
        )
        embedding = next(iter(self.checkpoint.prompts.values()), None)
        script = random_script(self.checkpoint.contract, num_frames, seed, embedding)
        drive(session, script, lambda doing: None, "float64")
        return graph_inputs(session, script, self.manifest)

    def verdict(self, graph: str, inputs: Tensors, folder: Path, keep: Path | None) -> GraphVerdict:
        """Return whether one graph holds, or its first fault."""
        truth = GraphTruth(
            self.exact[graph], self.rounded[graph], self.specs[graph], self.manifest.opset
        )
        search = GraphSearch(
            suspect=Suspect(self.root, self.manifest.graphs[graph], inputs, folder),
            truth=truth,
            inputs=inputs,
            backend=self.backend,
        )
        fault, kept = None, tuple[Path, ...]()
        if bad := search.bad_outputs(self.root) or search.bad_inside():
            found = search.first(bad)
            fault, kept = self._named(graph, search, found, folder, keep)
        worst, worst_reading = max(search.readings.items(), key=lambda item: item[1].excess)
        return GraphVerdict(
            graph=graph,
            num_values=len(search.suspect.values),
            num_compared=len(search.aligned),
            num_runs=search.num_runs,
            worst=worst,
            excess=worst_reading.excess,
            trace_error=_trace_error(self.exact[graph], self.specs[graph], truth, inputs),
            trace_limit=FLOORS[self._dtype],
            fault=fault,
            kept=kept,
        )

    def _named(
        self, graph: str, search: GraphSearch, found: Found, folder: Path, keep: Path | None
    ) -> tuple[Fault, tuple[Path, ...]]:
        """Return what is known of a fault, and the files that show it."""
        small = self._small(search, found)
        cause, blame = self._cause(graph, search, found, folder, small)
        at = cause.value if cause.value in search.truth.names else found.value
        last = max(found.good, key=lambda name: search.readings[name].excess, default="")
        nodes = search.suspect.nodes_between(found.value, search.aligned)
        fault = Fault(
            graph=graph,
            node=cause.node,
            operator=cause.operator,
            place=search.truth.place(at),
            value=found.value,
            error=search.readings[found.value],
            last_good=last,
            error_before=search.readings.get(last),
            between=tuple(node.op_type for node in nodes),
            blame=blame,
            cause=cause.words,
        )
        if keep is None:
            return fault, ()
        outputs = {"expected": small.exact, "by_the_standard": small.by_standard}
        return fault, write_small_model(keep / f"{graph}.onnx", small.model, small.inputs, outputs)

    def _cause(
        self, graph: str, search: GraphSearch, found: Found, folder: Path, small: "_Small"
    ) -> tuple[Cause, str]:
        """Return why an operator is wrong, and who is to blame."""
        nodes = search.suspect.nodes_between(found.value, search.aligned)
        last = nodes[-1]
        if not found.still_bad:
            words = "right once the values before it are given out: a fusion, or memory in place"
            return _of(last, words), "fusion"
        if self.is_same_torch:
            fresh = self._fresh(graph, folder)
            if cause := first_difference(search.suspect, fresh, found.value, search.aligned):
                return cause, "file"
        weights = dict(self.rounded[graph].state_dict())
        if cause := wrong_weight(search.suspect, self.root, nodes, weights):
            return cause, "weights"
        refusal = f"; {search.refusal}" if search.refusal else ""
        if small.by_standard is None:
            return _of(last, f"ONNX's reference cannot run it: file or runtime{refusal}"), "unknown"
        if reading(small.by_standard, small.exact, small.rounded).ok:
            words = "right in ONNX's reference: ONNX Runtime computes it otherwise"
            return _of(last, words + refusal), "runtime"
        return _of(last, f"wrong in ONNX's reference too: the file says it so{refusal}"), "file"

    def _small(self, search: GraphSearch, found: Found) -> "_Small":
        """Return the model of a fault alone, with its numbers."""
        given = {**search.inputs, **{name: search.value(name) for name in found.good}}
        model, inputs = small_model(
            search.suspect, self.root, search.exposed(found.value), given, search.aligned
        )
        exact, rounded = search.truth.values(search.inputs, [found.value])[found.value]
        return _Small(
            model=model,
            inputs=inputs,
            exact=exact,
            rounded=rounded,
            by_standard=by_the_standard(model, inputs),
        )

    def _fresh(self, graph: str, folder: Path) -> onnx.ModelProto:
        """Return the graph as an export writes it today."""
        path = folder / "fresh.onnx"
        write_onnx(
            self.rounded[graph],
            self.specs[graph],
            path,
            opset=self.manifest.opset,
            weights=weight_spans(self.root / WEIGHTS_FILE),
            weights_file=WEIGHTS_FILE,
        )
        return onnx.load(path, load_external_data=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Small:
    """The model of one fault alone, its inputs, and what it must give and gives elsewhere."""

    model: onnx.ModelProto
    inputs: Tensors
    exact: Array
    rounded: Array
    by_standard: Array | None
    """By ONNX's own reference; None where that cannot run it."""


def _of(node: onnx.NodeProto, words: str) -> Cause:
    """Return a cause of which only the last operator is known."""
    return Cause(node=node.name, operator=node.op_type, value=node.output[0], words=words)


@torch.no_grad()
def _trace_error(module: nn.Module, spec: GraphSpec, truth: GraphTruth, inputs: Tensors) -> float:
    """Return how far the outputs of the trace are from those of its module, both in float64."""
    names = [s.name for s in spec.outputs]
    given = {
        s.name: torch.from_numpy(np.array(inputs[s.name], None if s.dtype == "int64" else float))
        for s in spec.inputs
    }
    lists = [[given[s.name] for s in specs] for specs in spec.lists]
    made = module(*(given[s.name] for s in spec.single), *lists)
    traced = truth.values(inputs, names)
    made = made if isinstance(made, tuple) else (made,)
    return max(
        difference(traced[name][0], tensor.numpy()).rel_rms
        for name, tensor in zip(names, made, strict=True)
    )
