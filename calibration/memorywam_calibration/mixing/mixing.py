"""Mixing: a recipe for each product, found under a budget of bytes or of time."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import msgspec

from memorywam_calibration.episodes.episodes import Episode
from memorywam_calibration.episodes.held_out import development_episodes
from memorywam_calibration.mixing.assignment import (
    WIDE,
    Assignment,
    assigned,
    cheapest,
    choices_from,
    front,
)
from memorywam_calibration.mixing.gradient import gradient_scores
from memorywam_calibration.mixing.product_costs import byte_costs, time_costs
from memorywam_calibration.mixing.sensitivity import (
    CANDIDATES,
    Point,
    Sensitivity,
    decision_points,
    measured_sensitivity,
)
from memorywam_calibration.replay.replay import policy_from_bundle
from memorywam_export.quantize.quantize import BLOCK_OPSET, bundle_graphs
from memorywam_export.quantize.quantize_sites import Site
from memorywam_export.recipes.recipes import RECIPES, wide_reason
from memorywam_runtime.bundle import check_bundle
from memorywam_runtime.errors import InputError
from memorywam_runtime.manifest import DTYPES, Manifest
from memorywam_runtime.scale_table import ScaleTable
from memorywam_runtime.session import Session
from memorywam_runtime.tensors import storage_dtype

__all__ = ["Mix", "MixOptions", "check_budget", "mixed"]

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class MixOptions:
    """How recipes are found."""

    cost: Literal["bytes", "time"] = "bytes"
    """Of weights, or of a tick's products on this machine."""
    budget: float | None = None
    """Of what all products cost that may be quantized, as a share of what they cost wide; by
    default 8 bits of each weight, which is a quarter of float32 and half of 16 bits."""
    num_points: int = 8
    """Decision points of development episodes."""
    num_measured: int = 60
    """Products that are quantized one by one; of the others the gradient tells the error."""
    instruction: str | None = None
    cameras: Mapping[str, str] = field(default_factory=dict[str, str])
    seed: int = 0
    num_threads: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Mix:
    """What was found."""

    table: ScaleTable
    """With a recipe for each product."""
    assignment: Assignment
    front: list[Assignment]
    """The best for other budgets."""
    wide_cost: float
    """Of all products that may be quantized."""
    sensitivities: list[Sensitivity]
    """Largest error first."""
    cost: str
    """What the budget is of."""

    @property
    def data(self) -> dict[str, Any]:
        """Return the figures for machines."""
        return {
            "cost": self.cost,
            "wide_cost": self.wide_cost,
            "chosen": self.assignment.chosen,
            "chosen_cost": self.assignment.cost,
            "expected_error": self.assignment.error,
            "front": [
                {"cost": one.cost, "error": one.error, "recipes": Counter(one.chosen.values())}
                for one in self.front
            ],
            "sensitivities": [asdict(one) for one in self.sensitivities],
        }


def mixed(
    bundle: Path,
    table: ScaleTable,
    episodes: Sequence[Episode],
    options: MixOptions | None = None,
    tell: Tell = lambda doing: None,
) -> Mix:
    """Find a recipe for each product.

    Errors of products are taken as independent: their squares add. What comes of it is judged as
    every quantized bundle is.

    Args:
        bundle: As exported.
        table: Of int8: scales of inputs.
        episodes: All; those for development are played.
        options: How; see there.
        tell: Called with what is at work.

    Raises:
        InputError: no development episode, or a budget that nothing fits in.
        MissingPartError: scipy is not installed.
    """
    options = options or MixOptions()
    developing = development_episodes(episodes)
    manifest = check_bundle(bundle)
    sites = _free_sites(bundle, table.wide)
    candidates = _candidates(manifest)
    costs = _costs(sites, candidates, manifest, options, tell)
    session = policy_from_bundle(bundle, num_threads=options.num_threads).session
    how: dict[str, Any] = {"instruction": options.instruction, "cameras": options.cameras}
    points = decision_points(
        session, developing, options.num_points, seed=options.seed, tell=tell, **how
    )
    names = sorted({site.name for site in sites})
    found = _sensitivities(session, table, names, points, candidates, options, tell)
    offered = choices_from(_possible(found, sites, manifest.contract.num_layers), costs)
    wide_cost = sum(costs[name, WIDE] for name in names)
    budget = _budget(options, _wide_bytes(manifest), cheapest(offered) / wide_cost)
    assignment = assigned(offered, budget * wide_cost)
    return Mix(
        table=msgspec.structs.replace(table, recipe="mixed", chosen=assignment.chosen),
        assignment=assignment,
        front=front(offered),
        wide_cost=wide_cost,
        sensitivities=sorted(found, key=lambda one: -one.error),
        cost=options.cost,
    )


def check_budget(bundle: Path, options: MixOptions) -> None:
    """Refuse a budget of bytes that no assignment meets: graphs alone tell, so before any replay.

    Products that no decision point will reach are taken as reached. What a recipe takes of time is
    known once products are timed.

    Args:
        bundle: As exported.
        options: How recipes will be found.

    Raises:
        InputError: the cheapest recipe of every product takes more.
    """
    if options.budget is None or options.cost != "bytes":
        return
    manifest = check_bundle(bundle)
    sites, candidates = _free_sites(bundle, {}), _candidates(manifest)
    names = sorted({site.name for site in sites})
    costs = byte_costs(sites, candidates, _wide_bytes(manifest))
    every = [
        Sensitivity(name=name, recipe=recipe, error=0.0) for name in names for recipe in candidates
    ]
    offered = choices_from(_possible(every, sites, manifest.contract.num_layers), costs)
    wide_cost = sum(costs[name, WIDE] for name in names)
    _budget(options, _wide_bytes(manifest), cheapest(offered) / wide_cost)


def _budget(options: MixOptions, wide_bytes: int, least: float) -> float:
    """Return the budget as a share: 8 bits of each weight by default, or the least there is."""
    if options.budget is None:
        return max(1 / wide_bytes, least)
    if options.budget < least:
        raise InputError(
            f"found a budget of {options.budget:.3f}; expected at least {least:.3f} of what "
            f"products cost wide in {options.cost}: their cheapest recipes take that; name it "
            "with --budget"
        )
    return options.budget


def _wide_bytes(manifest: Manifest) -> int:
    """Return the bytes of an element of the bundle's type."""
    return storage_dtype(DTYPES[manifest.precision]).itemsize


def _candidates(manifest: Manifest) -> list[str]:
    """Return the recipes that a bundle's opset allows."""
    return [
        name
        for name in CANDIDATES
        if RECIPES[name].granularity != "block" or manifest.opset >= BLOCK_OPSET
    ]


def _costs(
    sites: Sequence[Site],
    candidates: Sequence[str],
    manifest: Manifest,
    options: MixOptions,
    tell: Tell,
) -> dict[tuple[str, str], float]:
    """Return what every product costs under every recipe, and wide."""
    if options.cost == "bytes":
        return byte_costs(sites, candidates, _wide_bytes(manifest))
    return time_costs(
        sites, candidates, manifest.contract, num_threads=options.num_threads, tell=tell
    )


def _free_sites(bundle: Path, wide: Mapping[str, str]) -> list[Site]:
    """Return the products that int8 would quantize, less those that a table keeps wide."""
    manifest = check_bundle(bundle)
    depth = manifest.contract.num_layers
    kept = {key.partition("/")[2] for key in wide}
    return [
        site
        for site in bundle_graphs(bundle, manifest).sites
        if site.name not in kept
        and wide_reason(RECIPES["int8"], site.name, site.shape, depth) is None
    ]


def _possible(
    found: Sequence[Sensitivity], sites: Sequence[Site], num_layers: int
) -> list[Sensitivity]:
    """Return what may be chosen: blocks of inputs do not fit every weight.

    Of maps that run once an instruction nothing is measured, as instructions keep what they have:
    those get the first recipe, whose loss every new instruction bears under `int8` as well.
    """
    shapes = {site.name: site.shape for site in sites}
    measured = {site.name for site in sites if not site.is_of_weights_alone}
    return [
        one
        for one in found
        if wide_reason(RECIPES[one.recipe], one.name, shapes[one.name], num_layers) is None
        and (one.name in measured or one.recipe == CANDIDATES[0])
    ]


def _sensitivities(
    session: Session,
    table: ScaleTable,
    names: Sequence[str],
    points: Sequence[Point],
    candidates: Sequence[str],
    options: MixOptions,
    tell: Tell,
) -> list[Sensitivity]:
    """Return the error of every product under every recipe: measured for those that matter most."""
    scores = gradient_scores(
        session, table, names, points, candidates=candidates, seed=options.seed, tell=tell
    )
    worst = {name: max(scores.get((name, one), 0.0) for one in candidates) for name in names}
    first = sorted(names, key=lambda name: -worst[name])[: options.num_measured]
    measured = measured_sensitivity(session, table, first, points, candidates=candidates, tell=tell)
    rest = [
        Sensitivity(name=name, recipe=recipe, error=scores.get((name, recipe), 0.0))
        for name in names
        if name not in first
        for recipe in candidates
    ]
    return [
        replace(one, score=scores.get((one.name, one.recipe), 0.0)) for one in (*measured, *rest)
    ]
