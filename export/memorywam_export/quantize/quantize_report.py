"""Quantized graphs beside the float ones, call by call on the same inputs: SQNR of each tensor."""

import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from memorywam_export.parity.parity import drive, random_script
from memorywam_export.parity.parity_graphs import Script, engine_outputs, graph_inputs
from memorywam_export.parity.trace_report import Tensors, difference
from memorywam_export.quantize.quantize import bundle_graphs
from memorywam_export.quantize.quantize_taps import Tap, taps_of, with_taps
from memorywam_runtime.backends import Backend, backend_from_name
from memorywam_runtime.bundle import check_bundle, open_bundle
from memorywam_runtime.errors import InputError
from memorywam_runtime.manifest import Manifest, QuantizationRecipe
from memorywam_runtime.session import Session

__all__ = ["FLOORS_DB", "QuantizedTensor", "compared_with_float", "suspects"]

FLOORS_DB: dict[QuantizationRecipe, float] = {
    "int8": 20.0,
    "fp8": 18.0,
    "int8-weight": 28.0,
    "int4-weight": 8.0,
    "mixed": 8.0,
}
"""Below, a tensor's scale, axis or order is suspected: random weights and inputs stay above."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizedTensor:
    """How far one tensor of one call is from the float graph's."""

    graph: str
    name: str
    """An output of the graph, or `graph/weight:output` of a product that is quantized."""
    sqnr_db: float
    max_abs: float
    place: int
    """In the graph's order, products first: of several that fail the first is the cause."""


def compared_with_float(
    root: Path,
    quantized: Path,
    script: Script | None = None,
    *,
    played: Callable[[Session], None] | None = None,
    num_threads: int = 1,
) -> list[QuantizedTensor]:
    """Return each tensor of the graphs that are quantized, worst SQNR first.

    Every call gets the float session's inputs at the end of the episode: errors pile up within a
    graph, not from call to call. ONNX Runtime computes both.

    Args:
        root: The bundle as exported.
        quantized: What was made of it.
        script: Episode to take inputs from; four random frames by default.
        played: Brings the float session, in the script's place, to where inputs are taken.
        num_threads: Of ONNX Runtime.

    Raises:
        InputError: the second is not quantized, or not from the first's contract.
        CheckpointError: the two are not of one export.
    """
    wide, narrow = _pair(root, quantized)
    assert narrow.quantization is not None
    backend = backend_from_name("ort", num_threads=num_threads, spin=False)
    script = script or random_script(wide.contract, num_frames=4, seed=1)
    session = open_bundle(root, backend=backend, allow_unverified=True)
    if played is not None:
        played(session)
    else:
        drive(session, script, lambda _: None, "float")
    inputs = graph_inputs(session, script, wide)
    chosen = {graph for graph, entry in narrow.graphs.items() if entry.quantized is not None}
    quantized_sites = set(narrow.quantization.sites)
    sites = [site for site in bundle_graphs(root, wide).sites if site.key in quantized_sites]
    taps, _ = taps_of(sites, wide.precision, outputs=True)
    outputs = [
        _outputs(folder, manifest, backend, taps, inputs)
        for folder, manifest in ((root, wide), (quantized, narrow))
    ]
    labels = {(tap.graph, tap.spec.name): tap.label for tap in taps}
    places = {(tap.graph, tap.spec.name): place for place, tap in enumerate(taps)}
    found = []
    for graph in sorted(chosen):
        for name, expected in outputs[0][graph].items():
            error = difference(outputs[1][graph][name], expected)
            tensor = QuantizedTensor(
                graph=graph,
                name=labels.get((graph, name), name),
                sqnr_db=error.sqnr_db,
                max_abs=error.max_abs,
                place=places.get((graph, name), len(taps)),
            )
            found.append(tensor)
    return sorted(found, key=lambda tensor: tensor.sqnr_db)


def _pair(root: Path, quantized: Path) -> tuple[Manifest, Manifest]:
    """Return both manifests; refuse two that are not a bundle and what was made of it."""
    wide, narrow = check_bundle(root), check_bundle(quantized)
    if wide.quantization is not None or narrow.quantization is None:
        raise InputError(
            f"found {_kind(wide)} {root} and {_kind(narrow)} {quantized}; expected a bundle as "
            "exported and what was quantized from it, in this order"
        )
    if wide.contract_hash != narrow.contract_hash:
        raise InputError(f"{root} and {quantized} are of two contracts; expected one")
    return wide, narrow


def suspects(
    tensors: Iterable[QuantizedTensor], recipe: QuantizationRecipe
) -> list[QuantizedTensor]:
    """Return the tensors under the recipe's floor in the graphs' order: the first is the cause.

    Args:
        tensors: From `compared_with_float`.
        recipe: Of the quantized bundle.
    """
    # A tensor that is no number has no SQNR that is at least anything.
    under = [tensor for tensor in tensors if not tensor.sqnr_db >= FLOORS_DB[recipe]]
    return sorted(under, key=lambda tensor: (tensor.graph, tensor.place))


def _outputs(
    root: Path,
    manifest: Manifest,
    backend: Backend,
    taps: list[Tap],
    inputs: dict[str, Tensors],
) -> dict[str, Tensors]:
    """Return all that the graphs give out, with what is tapped."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for graph, entry in with_taps(root, Path(folder), manifest, taps).items():
            engine = backend.load(Path(folder) / entry.file, entry)
            given = inputs[graph] | _made(root, manifest, backend, graph, inputs)
            found[graph] = engine_outputs(backend, engine, entry, given)
    return found


def _made(
    root: Path, manifest: Manifest, backend: Backend, graph: str, inputs: dict[str, Tensors]
) -> Tensors:
    """Return a step's modulation as this bundle makes it: it may have one more row, of gains."""
    maker = "action_modulation"
    if graph != "action_step" or maker not in manifest.graphs:
        return {}
    entry = manifest.graphs[maker]
    return engine_outputs(backend, backend.load(root / entry.file, entry), entry, inputs[maker])


def _kind(manifest: Manifest) -> str:
    quantization = manifest.quantization
    return "the float" if quantization is None else f"the {quantization.recipe}"
