"""Scales: a table fitted to what was seen, under a recipe."""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from memorywam_calibration.episodes.episodes import Episode
from memorywam_calibration.episodes.needs import Needs
from memorywam_calibration.episodes.samples import Sample
from memorywam_calibration.replay.activations import Activations
from memorywam_calibration.replay.listener import GRAPHS, linear_maps
from memorywam_calibration.replay.statistics import TensorStatistics
from memorywam_calibration.scales.equalization import NOTHING, Equalization
from memorywam_calibration.scales.observers import fitted, percentile, points
from memorywam_calibration.scales.sites import SiteChoice
from memorywam_calibration.scales.smoothing import smoothed_scale, smoothed_sqnr_db
from memorywam_export.quantize.quantize_memory import memory_entries
from memorywam_export.recipes.recipes import LARGEST, recipe_from_name
from memorywam_runtime.errors import InputError
from memorywam_runtime.manifest import Manifest
from memorywam_runtime.scale_table import (
    SCHEMA_VERSION,
    PlateauEntry,
    Provenance,
    SamplePoint,
    ScaleEntry,
    ScaleTable,
    SecondPassEntry,
    SeenRange,
)
from memorywam_runtime.session import Session
from memorywam_runtime.tensors import decoded, encoded
from memorywam_runtime.versions import versions

__all__ = ["Data", "activation_scales", "all_maps", "fitted_table"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    """What a table is made from, for its provenance."""

    episodes: Sequence[Episode]
    samples: Sequence[Sample]
    seed: int
    num_denoising_steps: int
    num_threads: int
    coverage: Mapping[str, int]
    missing: Sequence[str] = ()
    plateau: Sequence[PlateauEntry] = ()
    equalization: Equalization = NOTHING
    second_pass: SecondPassEntry | None = None


def fitted_table(
    session: Session, sites: Sequence[SiteChoice], found: Activations, needs: Needs, data: Data
) -> ScaleTable:
    """Fit scales to all that was seen.

    Args:
        session: That it was seen in: its weights get scales too.
        sites: From `sites.chosen_sites`.
        found: Statistics of every site.
        needs: How ranges are chosen.
        data: What was replayed.

    Raises:
        InputError: weights that are not finite.
    """
    manifest = session.manifest
    maps, factors = all_maps(session), data.equalization.factors()
    entries: dict[str, ScaleEntry] = {}
    wide: dict[str, str] = {}
    recipe = recipe_from_name(needs.recipe)
    if recipe.memory is not None:
        held = {name: one.channel_absmax for name, one in _memory(found).items()}
        entries |= memory_entries(held, recipe, manifest, needs.observer)
    for site in sites if recipe.weight is not None else ():
        statistics, given = found.sites.get(site.seen_at), factors.get(site.seen_at)
        why = site.why_wide or (None if site.is_of_weights_alone else _why_wide(statistics))
        if why is not None:
            wide[site.key] = why
            continue
        if recipe.activation == "int8":  # of fp8 the emitter finds the one scale itself
            entries[f"{site.key}:weight"] = _weight(maps[site.weight], site, given)
        if statistics is not None and not site.is_of_weights_alone:
            entries[f"{site.key}:input"] = (
                _activation(statistics, needs.observer, given)
                if recipe.activation == "int8"
                else _in_fp8(statistics)
            )
    return ScaleTable(
        schema_version=SCHEMA_VERSION,
        recipe=needs.recipe,
        contract_hash=manifest.contract_hash,
        checkpoint_sha256=manifest.source.sha256,
        graph_sha256s=_graph_hashes(manifest, {site.key.partition("/")[0] for site in sites}),
        entries=entries,
        wide=wide,
        smooth=dict(data.equalization.smooth),
        steps=dict(data.equalization.steps),
        ranges={site: _range(found.sites[site]) for site in sorted(found.sites)},
        provenance=_provenance(found, data),
    )


def _why_wide(statistics: TensorStatistics | None) -> str | None:
    """Return why an activation has no scale, or None."""
    if statistics is None:
        return "no decision point reaches it"
    return "nothing but zeros was seen" if statistics.absmax <= 0.0 else None


def all_maps(session: Session) -> dict[str, nn.Linear]:
    """Return the linear maps of all graphs that are looked into, by their weights' names."""
    return {name: one for graph in GRAPHS for name, one in linear_maps(session, graph).items()}


def activation_scales(
    sites: Sequence[SiteChoice],
    found: Activations,
    needs: Needs,
    factors: Mapping[str, NDArray[np.float64]],
) -> dict[str, float]:
    """Return the scale of every quantized activation that is not zero, by site.

    Of memory, where the recipe quantizes that, the mean of its channels' scales.
    """
    scales = {}
    if recipe_from_name(needs.recipe).memory is not None:
        scales = {name: float(one.channel_absmax.mean()) for name, one in _memory(found).items()}
    for name in {site.seen_at for site in sites if site.why_wide is None}:
        statistics = found.sites.get(name)
        if statistics is not None and statistics.absmax > 0.0:
            scales[name] = (
                smoothed_scale(statistics, factors[name])
                if name in factors
                else fitted(statistics, needs.observer).scale
            )
    return dict(sorted(scales.items()))


def _memory(found: Activations) -> dict[str, TensorStatistics]:
    """Return the statistics of keys and values in memory, `memory.LL.k`."""
    return {name: one for name, one in found.sites.items() if name.startswith("memory.")}


def _graph_hashes(manifest: Manifest, graphs: set[str]) -> dict[str, str]:
    """Return the SHA-256 of the files of some graphs."""
    return {name: manifest.files[manifest.graphs[name].file].sha256 for name in sorted(graphs)}


def _activation(
    statistics: TensorStatistics, observer: str, factors: NDArray[np.float64] | None
) -> ScaleEntry:
    """Return one scale for a whole tensor: engines take no other for activations."""
    if factors is not None:
        return _smoothed(statistics, factors)
    fit = fitted(statistics, observer)
    return ScaleEntry(
        kind="activation",
        dtype="int8",
        scales=(fit.scale,),
        observer=observer,
        absmax=statistics.absmax,
        clipped=fit.clipped,
        sqnr_db=round(fit.sqnr_db, 3) if math.isfinite(fit.sqnr_db) else None,
    )


def _in_fp8(statistics: TensorStatistics) -> ScaleEntry:
    """Return one scale under which fp8 holds all that was seen."""
    wanted = np.float32(statistics.absmax / LARGEST["fp8"])
    scale = max(float(wanted), float(np.finfo(np.float32).tiny))
    values, counts = points(statistics)
    held = decoded(encoded(values / scale, "float8e4m3fn"), "float8e4m3fn") * scale
    signal, error = float(counts @ values**2), float(counts @ (values - held) ** 2)
    return ScaleEntry(
        kind="activation",
        dtype="fp8",
        scales=(scale,),
        observer="max",
        absmax=statistics.absmax,
        sqnr_db=round(10 * math.log10(signal / error), 3) if error > 0 and signal > 0 else None,
    )


def _smoothed(statistics: TensorStatistics, factors: NDArray[np.float64]) -> ScaleEntry:
    """Return one scale for a whole tensor that is divided by factors."""
    return ScaleEntry(
        kind="activation",
        dtype="int8",
        scales=(smoothed_scale(statistics, factors),),
        observer="max",
        absmax=float((statistics.channel_absmax / factors).max()),
        sqnr_db=round(smoothed_sqnr_db(statistics, factors), 3),
    )


def _weight(module: nn.Linear, site: SiteChoice, factors: NDArray[np.float64] | None) -> ScaleEntry:
    """Return one scale for each output channel of a weight [out, in], multiplied by factors."""
    weight = module.weight.detach().to(torch.float32).numpy().astype(np.float64)
    if factors is not None:
        weight = weight * factors
    absmax = np.abs(weight).max(axis=1)
    if not np.isfinite(absmax).all():
        raise InputError(
            f"{site.key}: found weights that are not finite; expected a sound checkpoint: export "
            "it again"
        )
    # A row of zeros is held by any scale.
    end = LARGEST["int8"]
    wanted = np.where(absmax > 0, absmax, 1.0) / end
    scales = np.maximum(wanted.astype(np.float32), np.finfo(np.float32).tiny).astype(np.float64)
    held = np.clip(np.rint(weight / scales[:, None]), -end, end)
    error = float(((weight - held * scales[:, None]) ** 2).sum())
    signal = float((weight**2).sum())
    return ScaleEntry(
        kind="weight",
        dtype="int8",
        scales=(),  # the largest values': the emitter finds them again, and stores them
        observer="max",
        absmax=float(absmax.max()),
        axis=site.axis,
        sqnr_db=round(10 * math.log10(signal / error), 3) if error > 0 and signal > 0 else None,
    )


def _range(statistics: TensorStatistics) -> SeenRange:
    """Return what a table tells of a site."""
    return SeenRange(
        absmax=statistics.absmax,
        p999=percentile(statistics, 99.9),
        num_values=statistics.num_values,
        groups=dict(sorted(statistics.peaks.items())),
    )


def _provenance(found: Activations, data: Data) -> Provenance:
    """Return what the scales were made from."""

    def names(split: str) -> tuple[str, ...]:
        return tuple(one.name for one in data.episodes if one.split == split)

    return Provenance(
        recordings={one.name: one.sha256 for one in data.episodes},
        calibration=names("calibration"),
        development=names("development"),
        held_out=names("held_out"),
        num_samples=len(found.samples),
        seed=data.seed,
        versions=versions(),
        samples=tuple(
            SamplePoint(episode=one.episode, frame=one.frame, seed=one.seed) for one in data.samples
        ),
        num_denoising_steps=data.num_denoising_steps,
        num_threads=data.num_threads,
        coverage=dict(data.coverage),
        missing=tuple(data.missing),
        plateau=tuple(data.plateau),
        second_pass=data.second_pass,
        statistics_sha256=hashlib.sha256(found.to_bytes()).hexdigest(),
    )
