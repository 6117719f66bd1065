"""Whether a scale table is of this bundle and recipe, and what it says of each site."""

import math
from collections.abc import Collection

from memorywam_export.quantize.quantize_sites import Site
from memorywam_export.recipes.recipes import RECIPES, Recipe
from memorywam_runtime.errors import InputError
from memorywam_runtime.manifest import Manifest
from memorywam_runtime.scale_table import ScaleEntry, ScaleTable

__all__ = [
    "check_entries",
    "check_table",
    "input_scale",
    "site_recipe",
    "stays_wide",
    "weight_scales",
]

_AGAIN = "calibrate this bundle again"


def check_table(table: ScaleTable, manifest: Manifest, recipe: Recipe) -> None:
    """Refuse a table of another recipe, contract, checkpoint or graph.

    Raises:
        InputError: what was found, what was expected, and what to do.
    """
    for what, found, expected in (
        ("recipe", table.recipe, recipe.name),
        ("contract", table.contract_hash, manifest.contract_hash),
        ("checkpoint", table.checkpoint_sha256, manifest.source.sha256),
    ):
        if found != expected:
            raise InputError(
                f"the scale table is of {what} {found}; expected {expected}: {_AGAIN} with recipe "
                f"{recipe.name}"
            )
    unknown = sorted(set(table.chosen.values()) - set(recipe.parts))
    if unknown:
        raise InputError(
            f"the scale table chooses recipe '{unknown[0]}'; expected one of "
            f"{', '.join(recipe.parts) or 'none'}, which {recipe.name} is made of: {_AGAIN}"
        )
    for graph, found in table.graph_sha256s.items():
        entry = manifest.graphs.get(graph)
        expected = "no such graph" if entry is None else manifest.files[entry.file].sha256
        if found != expected:
            raise InputError(
                f"the scale table is stale: its graph '{graph}' hashes to {found[:12]}..., the "
                f"bundle's to {expected[:12]}...; expected the same, since names differ between "
                f"exports: {_AGAIN}"
            )


def check_entries(table: ScaleTable, keys: Collection[str]) -> None:
    """Refuse entries of activations and weights that the bundle's graphs do not have.

    What the table says of memory is for others and not looked at.

    Args:
        table: A table of this bundle.
        keys: Of every product, as `graph/name`.

    Raises:
        InputError: an entry is left over, or of a graph whose hash is not in the table.
    """
    left = [
        key
        for key, entry in table.entries.items()
        if entry.kind != "memory" and key.rpartition(":")[0] not in keys
    ]
    left += [key for key in table.wide if _site(key) not in keys]
    if left:
        raise InputError(
            f"the scale table has {len(left)} entries for no product of the bundle, first "
            f"'{sorted(left)[0]}'; expected `graph/weight:input` or `graph/weight:weight`: {_AGAIN}"
        )
    named = {
        key.partition("/")[0] for key, entry in table.entries.items() if entry.kind != "memory"
    }
    if absent := sorted(named - set(table.graph_sha256s)):
        raise InputError(
            f"the scale table has no hash of graph '{absent[0]}'; expected one for each graph that "
            f"it has scales of, so that a stale table is seen: {_AGAIN}"
        )


def input_scale(table: ScaleTable, site: Site, recipe: Recipe) -> float:
    """Return the scale of what a site's products take.

    Raises:
        InputError: the table has no entry for it, one of another type, or several scales.
    """
    key = f"{site.key}:input"
    entry = table.entries.get(key)
    if entry is None:
        raise InputError(
            f"the scale table has no '{key}'; expected one scale for each product that "
            f"{recipe.name} quantizes, or the site among those that stay wide: {_AGAIN}"
        )
    assert recipe.activation is not None
    _check_kind(key, entry, "activation", recipe.activation)
    if entry.axis is not None or len(entry.scales) != 1:
        raise InputError(
            f"the scale table has {len(entry.scales)} scales along axis {entry.axis} for '{key}'; "
            f"expected one for the whole tensor, which is all that engines take: {_AGAIN}"
        )
    return entry.scales[0]


def weight_scales(table: ScaleTable, site: Site, recipe: Recipe) -> tuple[float, ...] | None:
    """Return the scales of a site's weight, or None where the table leaves them to its values.

    Raises:
        InputError: scales of another type, along another axis, or of another number.
    """
    key = f"{site.key}:weight"
    entry = table.entries.get(key)
    # Under `mixed` the table is of int8 and has no scales of blocks.
    if entry is None or (table.chosen and recipe.granularity == "block"):
        return None
    _check_kind(key, entry, "weight", recipe.weight or "none")
    if not entry.scales:
        return None
    outputs = 0 if site.is_transposed else 1
    axis = outputs if recipe.granularity == "channel" else None
    count = site.shape[0] if axis is not None else 1
    if recipe.granularity == "block" or (entry.axis, len(entry.scales)) != (axis, count):
        raise InputError(
            f"the scale table has {len(entry.scales)} scales along axis {entry.axis} for '{key}' "
            f"{list(site.stored_shape)}; expected {count} along axis {axis}, one for each "
            f"{recipe.granularity}: {_AGAIN}"
        )
    return entry.scales


def site_recipe(recipe: Recipe, table: ScaleTable | None, site: Site) -> Recipe:
    """Return what a site that is quantized gets: its own under `mixed`, else the recipe."""
    if not recipe.parts or table is None:
        return recipe
    return RECIPES[table.chosen[site.name]]


def stays_wide(table: ScaleTable, site: Site, recipe: Recipe) -> str | None:
    """Return why a site stays wide by the table, or None.

    A graph that was not calibrated at all stays wide; one missing site of a graph that was is an
    error, told by `input_scale`.
    """
    if recipe.parts and site.name not in table.chosen:
        return "rounding it costs more than it saves, by the table"
    if site.graph not in table.graph_sha256s:
        return f"the scale table has nothing of graph {site.graph}"
    return next((why for key, why in table.wide.items() if _site(key) == site.key), None)


def _check_kind(key: str, entry: ScaleEntry, kind: str, dtype: str) -> None:
    if (entry.kind, entry.dtype) != (kind, dtype) or not math.isfinite(entry.absmax):
        raise InputError(
            f"the scale table has {entry.kind} {entry.dtype} for '{key}'; expected {kind} {dtype}: "
            f"{_AGAIN}"
        )


def _site(key: str) -> str:
    """Return `graph/name` of a key with or without `:input` and `:weight`."""
    return key.removesuffix(":input").removesuffix(":weight")
