"""Ranges from random inputs: a scale table without recordings, for tests and timings alone."""

import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from memorywam_export.parity import drive, random_script
from memorywam_export.parity_graphs import Script, engine_outputs, graph_inputs
from memorywam_export.quantize import bundle_graphs
from memorywam_export.quantize_sites import Site
from memorywam_export.quantize_taps import WatchedEngine, taps_of, with_taps
from memorywam_export.recipes import Recipe, wide_reason
from memorywam_runtime.backends import Engine, backend_from_name
from memorywam_runtime.bundle import check_bundle
from memorywam_runtime.errors import InputError
from memorywam_runtime.manifest import Manifest
from memorywam_runtime.scale_table import SCHEMA_VERSION, Provenance, ScaleEntry, ScaleTable
from memorywam_runtime.session import Session
from memorywam_runtime.versions import versions

__all__ = ["random_input_ranges"]

_LARGEST = {"int8": 127.0, "fp8": 448.0}
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
        recipe: One that quantizes activations.
        num_episodes: Each with two instructions.
        num_frames: Latent frames of an episode.
        seed: Of everything random.
        num_threads: Of ONNX Runtime.

    Raises:
        InputError: a recipe of weights alone.
    """
    if recipe.activation is None:
        raise InputError(
            f"found recipe {recipe.name}, which quantizes weights alone; expected one of "
            "activations: it needs no table"
        )
    manifest = check_bundle(root)
    layers, found = manifest.contract.num_layers, bundle_graphs(root, manifest).sites
    sites = [s for s in found if wide_reason(recipe, s.name, s.shape, layers) is None]
    scripts = [
        random_script(manifest.contract, num_frames, seed * num_episodes + number)
        for number in range(num_episodes)
    ]
    largest = _seen(root, manifest, sites, scripts, num_threads)
    return ScaleTable(
        schema_version=SCHEMA_VERSION,
        recipe=recipe.name,
        contract_hash=manifest.contract_hash,
        checkpoint_sha256=manifest.source.sha256,
        graph_sha256s={
            graph: manifest.files[manifest.graphs[graph].file].sha256
            for graph in sorted({site.graph for site in sites})
        },
        entries={label: _entry(value, recipe.activation) for label, value in largest.items()},
        wide={},
        provenance=Provenance(
            recordings={"random inputs": str(seed)},
            calibration=("random inputs",),
            development=(),
            held_out=(),
            num_samples=num_episodes * num_frames,
            seed=seed,
            versions=versions(),
        ),
    )


def _entry(absmax: float, dtype: Literal["int8", "fp8"]) -> ScaleEntry:
    """Return the entry of an activation whose whole range is kept."""
    return ScaleEntry(
        kind="activation",
        dtype=dtype,
        scales=(max(absmax, _LEAST) / _LARGEST[dtype],),
        observer="max of random inputs",
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
            # What a session leaves to others: graphs that run once an instruction, or not at all.
            for one in (script, replace(script, context=script.other_context)):
                inputs = graph_inputs(session, one, manifest)
                for graph in sorted({"prompt_kv", "action_denoise"} & set(tapped)):
                    engine_outputs(backend, engines[graph], manifest.graphs[graph], inputs[graph])
    largest: dict[str, float] = {}
    for label, key in names.items():
        site = label.partition(":")[0] + ":input"
        largest[site] = max(largest.get(site, 0.0), seen[key])
    return largest
