"""Scales: a table fitted to what was seen, under a recipe."""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from memorywam_calibration.activations import Activations
from memorywam_calibration.episodes import Episode
from memorywam_calibration.listener import GRAPHS, linear_maps
from memorywam_calibration.needs import Needs
from memorywam_calibration.observers import fitted, percentile
from memorywam_calibration.samples import Sample
from memorywam_calibration.sites import SiteChoice
from memorywam_calibration.statistics import TensorStatistics
from memorywam_runtime.errors import InputError
from memorywam_runtime.manifest import Manifest
from memorywam_runtime.scale_table import (
    SCHEMA_VERSION,
    PlateauEntry,
    Provenance,
    SamplePoint,
    ScaleEntry,
    ScaleTable,
    SeenRange,
)
from memorywam_runtime.session import Session
from memorywam_runtime.versions import versions

__all__ = ["Data", "activation_scales", "fitted_table"]

_MAX_QUANTIZED = 127


@dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    """What a table is made from, for its provenance."""

    episodes: Sequence[Episode]
    samples: Sequence[Sample]
    seed: int
    num_denoising_steps: int
    coverage: Mapping[str, int]
    missing: Sequence[str] = ()
    plateau: Sequence[PlateauEntry] = ()


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
    maps = {name: one for graph in GRAPHS for name, one in linear_maps(session, graph).items()}
    entries: dict[str, ScaleEntry] = {}
    wide: dict[str, str] = {}
    for site in sites:
        statistics = found.sites.get(site.seen_at)
        if site.why_wide is not None or statistics is None:
            wide[site.key] = site.why_wide or "no decision point reaches it"
        elif statistics.absmax <= 0.0:
            wide[site.key] = "nothing but zeros was seen"
        else:
            entries[f"{site.key}:input"] = _activation(statistics, needs.observer)
            entries[f"{site.key}:weight"] = _weight(maps[site.weight], site)
    return ScaleTable(
        schema_version=SCHEMA_VERSION,
        recipe=needs.recipe,
        contract_hash=manifest.contract_hash,
        checkpoint_sha256=manifest.source.sha256,
        graph_sha256s=_graph_hashes(manifest, {site.key.partition("/")[0] for site in sites}),
        entries=entries,
        wide=wide,
        ranges={site: _range(found.sites[site]) for site in sorted(found.sites)},
        provenance=_provenance(found, data),
    )


def activation_scales(
    sites: Sequence[SiteChoice], found: Activations, needs: Needs
) -> dict[str, float]:
    """Return the scale of every quantized activation that is not zero, by site."""
    scales = {}
    for name in {site.seen_at for site in sites if site.why_wide is None}:
        statistics = found.sites.get(name)
        if statistics is not None and statistics.absmax > 0.0:
            scales[name] = fitted(statistics, needs.observer).scale
    return dict(sorted(scales.items()))


def _graph_hashes(manifest: Manifest, graphs: set[str]) -> dict[str, str]:
    """Return the SHA-256 of the files of some graphs."""
    return {name: manifest.files[manifest.graphs[name].file].sha256 for name in sorted(graphs)}


def _activation(statistics: TensorStatistics, observer: str) -> ScaleEntry:
    """Return one scale for a whole tensor: engines take no other for activations."""
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


def _weight(module: nn.Linear, site: SiteChoice) -> ScaleEntry:
    """Return one scale for each output channel of a weight [out, in]."""
    weight = module.weight.detach().to(torch.float32).numpy().astype(np.float64)
    absmax = np.abs(weight).max(axis=1)
    if not np.isfinite(absmax).all():
        raise InputError(
            f"{site.key}: found weights that are not finite; expected a sound checkpoint: export "
            "it again"
        )
    # A row of zeros is held by any scale.
    wanted = np.where(absmax > 0, absmax, 1.0) / _MAX_QUANTIZED
    scales = np.maximum(wanted.astype(np.float32), np.finfo(np.float32).tiny).astype(np.float64)
    held = np.clip(np.rint(weight / scales[:, None]), -_MAX_QUANTIZED, _MAX_QUANTIZED)
    error = float(((weight - held * scales[:, None]) ** 2).sum())
    signal = float((weight**2).sum())
    return ScaleEntry(
        kind="weight",
        dtype="int8",
        scales=tuple(scales.tolist()),
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
        coverage=dict(data.coverage),
        missing=tuple(data.missing),
        plateau=tuple(data.plateau),
        statistics_sha256=hashlib.sha256(found.to_bytes()).hexdigest(),
    )
