"""A bundle to a quantized bundle: explicit Q/DQ from a recipe and a scale table, or nothing."""

import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import onnx_ir as ir
import torch
from safetensors import safe_open

from memorywam_export.checkpoints.weights import (
    Span,
    Weight,
    safetensors_header,
    weight_spans,
    write_weights,
)
from memorywam_export.quantize.quantize_folds import Fold, folded
from memorywam_export.quantize.quantize_graph import Placed, place_qdq, point_outside
from memorywam_export.quantize.quantize_memory import Window, check_window, window_from_table
from memorywam_export.quantize.quantize_memory_graph import with_narrow_window
from memorywam_export.quantize.quantize_sites import Site, sites_of, weight_names
from memorywam_export.quantize.quantize_smooth import divide_inputs, smoothing_from_table
from memorywam_export.quantize.quantize_steps import with_gains
from memorywam_export.quantize.quantize_table import (
    check_entries,
    check_table,
    input_scale,
    site_recipe,
    stays_wide,
    weight_scales,
)
from memorywam_export.quantize.quantize_weights import SCALE_SUFFIX, Quantized, quantized_weight
from memorywam_export.recipes.recipes import Recipe, wide_reason
from memorywam_runtime.bundle import MANIFEST_FILE, WEIGHTS_FILE, check_bundle
from memorywam_runtime.errors import InputError
from memorywam_runtime.files import atomic_directory
from memorywam_runtime.manifest import (
    GraphEntry,
    Manifest,
    Quantization,
    entries_from_folder,
    manifest_to_json,
)
from memorywam_runtime.scale_table import ScaleTable, scale_table_to_json

__all__ = ["TABLE_FILE", "BundleGraphs", "bundle_graphs", "quantize_bundle"]

TABLE_FILE = "scale_table.json"
BLOCK_OPSET = 21
"""The first whose DequantizeLinear knows blocks and int4."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleGraphs:
    """A bundle's graphs as read, and the products in them."""

    models: dict[str, ir.Model]
    names: dict[str, dict[str, str]]
    """Graph to initializer to the tensor's name in the weights file."""
    spans: dict[str, Span]
    sites: tuple[Site, ...]


def quantize_bundle(
    root: Path,
    out: Path,
    recipe: Recipe,
    table: ScaleTable | None = None,
    *,
    overwrite: bool = False,
) -> Manifest:
    """Write a quantized bundle; after a failure the old directory, or none, is there.

    Instructions keep the keys and values that the wide weights made; a parity report is of the
    bundle that it was made with and stays there. The same bundle, recipe and table give the same
    bytes. Scales of memory in the table are used by the recipes of memory alone.

    Args:
        root: A bundle as exported.
        out: Directory to write.
        recipe: What to quantize, and how.
        table: Scales of its activations, or of memory; None for a recipe that has neither.
        overwrite: Replace a bundle that is there.

    Raises:
        InputError: a bundle that is quantized already, a recipe and table that do not belong
            together, or a directory that is in use.
        BundleError: a damaged bundle.
    """
    manifest = check_bundle(root)
    _check_request(root, manifest, recipe, table)
    read = bundle_graphs(root, manifest)
    graphs = read if recipe.weight is not None else replace(read, sites=())
    wide = _wide(graphs.sites, manifest, recipe, table)
    window = None
    if recipe.memory is not None and table is not None:
        window = window_from_table(manifest, recipe, table)
    folds = () if window is None else window.folds
    if table is not None:
        folds += _smoothed(graphs, table)
        manifest = with_gains(graphs.models, manifest, graphs.sites, table)
    placed = _placed(root, graphs, wide, recipe, table, folds)
    with atomic_directory(out, overwrite=overwrite) as draft:
        hashes = {WEIGHTS_FILE: _write_weights(root, draft, graphs.spans, placed, folds)}
        entries = _write_graphs(draft, manifest, graphs, placed, recipe, window)
        _copy_prompts(root, draft, manifest)
        if table is not None:
            (draft / TABLE_FILE).write_bytes(scale_table_to_json(table))
        quantized = msgspec.structs.replace(
            manifest,
            graphs=entries,
            files=entries_from_folder(draft, hashes),
            parity=None,
            quantization=Quantization(
                recipe=recipe.name,
                table=None if table is None else TABLE_FILE,
                sites=tuple(one.site.key for one in placed),
                wide=wide,
                memory=None if window is None else window.memory,
            ),
        )
        (draft / MANIFEST_FILE).write_bytes(manifest_to_json(quantized))
    return quantized


def _copy_prompts(root: Path, draft: Path, manifest: Manifest) -> None:
    """Copy the instructions' keys and values as they are."""
    for prompt in manifest.prompts:
        (draft / prompt.file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(root / prompt.file, draft / prompt.file)


def bundle_graphs(root: Path, manifest: Manifest) -> BundleGraphs:
    """Read the graphs of a bundle that is not quantized; no weight is read."""
    spans = weight_spans(root / WEIGHTS_FILE)
    models = {graph: ir.load(root / entry.file) for graph, entry in manifest.graphs.items()}
    names = {graph: weight_names(model, spans) for graph, model in models.items()}
    found = [site for graph in models for site in sites_of(graph, models[graph], names[graph])]
    return BundleGraphs(models=models, names=names, spans=spans, sites=tuple(found))


def _check_request(
    root: Path, manifest: Manifest, recipe: Recipe, table: ScaleTable | None
) -> None:
    """Refuse what cannot be quantized so."""
    if manifest.quantization is not None:
        raise InputError(
            f"{root} is quantized already, with {manifest.quantization.recipe}; expected a bundle "
            "as exported: quantize that one"
        )
    if recipe.has_blocks(table) and manifest.opset < BLOCK_OPSET:
        raise InputError(
            f"{root} has opset {manifest.opset}; expected at least {BLOCK_OPSET} for "
            f"{recipe.name}: export again with --opset {BLOCK_OPSET} or more"
        )
    if recipe.memory is not None:
        check_window(manifest, recipe)
    if recipe.needs_table and table is None:
        what = "activations" if recipe.memory is None else "memory"
        raise InputError(
            f"found no scale table; expected one for {recipe.name}, which quantizes {what}: "
            "calibrate the bundle, or choose int8-weight or int4-weight, which need none"
        )
    if not recipe.needs_table and table is not None:
        raise InputError(
            f"found a scale table; expected none for {recipe.name}, which quantizes weights alone: "
            "leave it out"
        )
    if table is not None:
        check_table(table, manifest, recipe)


def _wide(
    sites: tuple[Site, ...], manifest: Manifest, recipe: Recipe, table: ScaleTable | None
) -> dict[str, str]:
    """Return the sites that stay wide, and why: a weight is stored once, so in all graphs alike."""
    reasons: dict[str, str] = {}
    for site in sites:
        why = wide_reason(recipe, site.name, site.shape, manifest.contract.num_layers)
        why = why or (None if table is None else stays_wide(table, site, recipe))
        if why is not None:
            reasons.setdefault(site.name, why)
    return {site.key: reasons[site.name] for site in sites if site.name in reasons}


def _smoothed(graphs: BundleGraphs, table: ScaleTable) -> tuple[Fold, ...]:
    """Divide inputs of the graphs as a table says; return what that does to the weights."""
    smoothing = smoothing_from_table(table, graphs.sites, graphs.names)
    for graph, model in graphs.models.items():
        own = [(shared, factors) for shared, factors in smoothing.inputs if shared.graph == graph]
        divide_inputs(model, graphs.names[graph], own)
    return smoothing.folds


def _placed(
    root: Path,
    graphs: BundleGraphs,
    wide: Mapping[str, str],
    recipe: Recipe,
    table: ScaleTable | None,
    folds: Sequence[Fold],
) -> list[Placed]:
    """Return what each site gets that does not stay wide."""
    chosen = [site for site in graphs.sites if site.key not in wide]
    if table is not None:
        check_entries(table, {site.key for site in graphs.sites})
    made: dict[str, Quantized] = {}
    placed = []
    for site in chosen:
        own = site_recipe(recipe, table, site)
        given = None if table is None else weight_scales(table, site, own)
        if site.name not in made:
            weight = folded(_weight(root, graphs.spans, f"{site.name}.weight"), folds)
            made[site.name] = quantized_weight(
                weight, own, is_transposed=site.is_transposed, given=given
            )
        is_wide = site.is_of_weights_alone or own.activation is None
        scale = None if table is None or is_wide else input_scale(table, site, own)
        placed.append(Placed(site=site, recipe=own, weight=made[site.name], input_scale=scale))
    return placed


def _write_weights(
    root: Path,
    draft: Path,
    spans: Mapping[str, Span],
    placed: list[Placed],
    folds: Sequence[Fold],
) -> str:
    """Write every weight, narrow ones with their scales in place of the wide; return the hash."""
    narrow = {one.weight.values.name: one.weight for one in placed}
    weights = [folded(_weight(root, spans, name), folds) for name in spans if name not in narrow]
    for quantized in narrow.values():
        weights += [quantized.values, quantized.scales]
    return write_weights(draft / WEIGHTS_FILE, weights)


def _write_graphs(
    draft: Path,
    manifest: Manifest,
    graphs: BundleGraphs,
    placed: list[Placed],
    recipe: Recipe,
    window: Window | None,
) -> dict[str, GraphEntry]:
    """Write every graph onto the new weights file; return the manifest's entries."""
    header, _ = safetensors_header(draft / WEIGHTS_FILE)
    entries = {}
    for graph, entry in manifest.graphs.items():
        model, names = graphs.models[graph], dict(graphs.names[graph])
        own = [one for one in placed if one.site.graph == graph]
        place_qdq(model, own)
        for one in own:
            names[f"{one.site.weight.name}{SCALE_SUFFIX}"] = one.weight.scales.name
        if window is not None:
            entry = with_narrow_window(model, graph, manifest, window.memory, recipe.name)
        point_outside(model, names, header, draft / WEIGHTS_FILE)
        ir.save(model, draft / entry.file)
        if own:
            entry = _cheaper(entry, graphs.spans, own)
            entry = msgspec.structs.replace(entry, quantized=recipe.name)
        entries[graph] = entry
    return entries


def _cheaper(entry: GraphEntry, spans: Mapping[str, Span], own: list[Placed]) -> GraphEntry:
    """Return a graph's entry with the bytes of its weights as they are now."""
    if entry.cost is None:
        return entry
    saved = 0
    for quantized in {one.weight.values.name: one.weight for one in own}.values():
        parts = (quantized.values, quantized.scales)
        now = sum(math.prod(part.shape) * part.dtype.itemsize for part in parts)
        saved += spans[quantized.values.name].num_bytes - now
    cost = msgspec.structs.replace(entry.cost, weight_bytes=entry.cost.weight_bytes - saved)
    return msgspec.structs.replace(entry, cost=cost)


def _weight(root: Path, spans: Mapping[str, Span], name: str) -> Weight:
    """Return a weight of a bundle, read when it is loaded."""

    def load() -> torch.Tensor:
        with safe_open(root / WEIGHTS_FILE, "pt") as file:
            tensor: torch.Tensor = file.get_tensor(name)
        return tensor

    return Weight(name, spans[name].shape, spans[name].dtype, load)
