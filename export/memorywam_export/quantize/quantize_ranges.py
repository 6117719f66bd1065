"""Ranges from random inputs: a scale table without recordings, for tests and timings alone."""

import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from memorywam_export.parity.parity import drive, random_script
from memorywam_export.parity.parity_graphs import Script, engine_outputs, graph_inputs
from memorywam_export.quantize.quantize import bundle_graphs
from memorywam_export.quantize.quantize_memory import memory_entries
from memorywam_export.quantize.quantize_memory_ranges import memory_absmax
from memorywam_export.quantize.quantize_sites import Site
from memorywam_export.quantize.quantize_taps import WatchedEngine, taps_of, with_taps
from memorywam_export.recipes.recipes import LARGEST, RECIPES, Recipe, wide_reason
from memorywam_runtime.backends import Engine, backend_from_name
from memorywam_runtime.bundle import check_bundle
from memorywam_runtime.errors import InputError
from memorywam_runtime.manifest import Manifest
from memorywam_runtime.scale_table import SCHEMA_VERSION, Provenance, ScaleEntry, ScaleTable
from memorywam_runtime.session import Session
from memorywam_runtime.versions import versions

__all__ = ["random_input_ranges"]

_OBSERVER = "max of random inputs"
_LEAST = 1e-6
"""Of a range, so that a tensor of zeros has a scale."""


def random_input_ranges(
    root: Path,
    recipe: Recipe,
    *,
    num_episodes: int = 8,
    num_frames: int = 3,
    seed: int = 0,
    num_threads: int = 1,
) -> ScaleTable:
    """Return a table whose ranges are the largest values seen in episodes of random inputs.

    Random pictures are not a robot's: a bundle quantized so shows that it runs, how fast and how
    large it is, not how well it acts.

    Args:
        root: A bundle that is not quantized.
        recipe: One that quantizes activations or memory.
        num_episodes: Each with two instructions.
        num_frames: Latent frames of an episode.
        seed: Of everything random.
        num_threads: Of ONNX Runtime.

    Raises:
        InputError: a recipe of weights alone.
    """
    if not recipe.needs_table:
        raise InputError(
            f"found recipe {recipe.name}, which quantizes weights alone; expected one of "
            "activations or memory: it needs no table"
        )
    manifest = check_bundle(root)
    layers, found = manifest.contract.num_layers, bundle_graphs(root, manifest).sites
    narrow = [s for s in found if wide_reason(recipe, s.name, s.shape, layers) is None]
    sites = [site for site in narrow if not site.is_of_weights_alone]
    scripts = [
        random_script(manifest.contract, num_frames, seed * num_episodes + number)
        for number in range(num_episodes)
    ]
    if recipe.memory is not None:
        held = memory_absmax(root, scripts, num_threads)
        entries = memory_entries(held, recipe, manifest, _OBSERVER)
        graphs = {"cache_update"}
    else:
        largest = _seen(root, manifest, sites, scripts, num_threads)
        entries = {label: _entry(value, recipe) for label, value in largest.items()}
        graphs = {site.graph for site in narrow}
    return ScaleTable(
        schema_version=SCHEMA_VERSION,
        recipe=recipe.name,
        contract_hash=manifest.contract_hash,
        checkpoint_sha256=manifest.source.sha256,
        graph_sha256s={
            graph: manifest.files[manifest.graphs[graph].file].sha256 for graph in sorted(graphs)
        },
        entries=entries,
        wide={},
        chosen=_in_turn(recipe, narrow, layers),
        provenance=_provenance(seed, num_episodes * num_frames),
    )


def _provenance(seed: int, num_samples: int) -> Provenance:
    """Return what a table of random inputs says of itself."""
    return Provenance(
        recordings={"random inputs": str(seed)},
        calibration=("random inputs",),
        development=(),
        held_out=(),
        num_samples=num_samples,
        seed=seed,
        versions=versions(),
    )


def _in_turn(recipe: Recipe, sites: list[Site], num_layers: int) -> dict[str, str]:
    """Return one of a recipe's parts for each weight, in turn, where its shape allows."""
    shapes = {site.name: site.shape for site in sites}
    chosen: dict[str, str] = {}
    for number, (name, shape) in enumerate(shapes.items()):
        able = [
            part
            for part in recipe.parts
            if wide_reason(RECIPES[part], name, shape, num_layers) is None
        ]
        if able:
            chosen[name] = able[number % len(able)]
    return chosen


def _entry(absmax: float, recipe: Recipe) -> ScaleEntry:
    """Return the entry of an activation whose whole range is kept."""
    assert recipe.activation is not None
    return ScaleEntry(
        kind="activation",
        dtype=recipe.activation,
        scales=(max(absmax, _LEAST) / LARGEST[recipe.activation],),
        observer=_OBSERVER,
        absmax=absmax,
    )


def _seen(
    root: Path, manifest: Manifest, sites: list[Site], scripts: list[Script], num_threads: int
) -> dict[str, float]:
    """Return the largest absolute value that went into each site, by `graph/name:input`."""
    taps, names = taps_of(sites, manifest.precision, outputs=False)
    seen: dict[tuple[str, str], float] = {}

    def tell(graph: str, name: str, values: NDArray[np.floating]) -> None:
        seen[graph, name] = max(seen.get((graph, name), 0.0), float(np.abs(values).max()))

    with tempfile.TemporaryDirectory() as folder:
        tapped = with_taps(root, Path(folder), manifest, taps)
        backend = backend_from_name("ort", num_threads=num_threads, spin=False)
        engines: dict[str, Engine] = {}
        for graph, entry in manifest.graphs.items():
            if graph not in tapped:
                engines[graph] = backend.load(root / entry.file, entry)
                continue
            engine = backend.load(Path(folder) / entry.file, tapped[graph])
            own = [tap.spec for tap in taps if tap.graph == graph]
            engines[graph] = WatchedEngine(engine, backend, own, partial(tell, graph))
        session = Session(manifest, backend, engines, root=root)
        for script in scripts:
            drive(session, script, lambda _: None, "ranges")
            # What a session leaves to others.
            for one in (script, replace(script, context=script.other_context)):
                inputs = graph_inputs(session, one, manifest)
                for graph in sorted({"action_denoise"} & set(tapped)):
                    engine_outputs(backend, engines[graph], manifest.graphs[graph], inputs[graph])
    largest: dict[str, float] = {}
    for label, key in names.items():
        site = label.partition(":")[0] + ":input"
        largest[site] = max(largest.get(site, 0.0), seen[key])
    return largest
