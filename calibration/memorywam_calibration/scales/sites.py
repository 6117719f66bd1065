"""Sites: the products of a bundle's graphs, those that a recipe quantizes and those it does not."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from memorywam_export.quantize.quantize import bundle_graphs
from memorywam_export.recipes.recipes import Recipe, wide_reason
from memorywam_runtime.manifest import Manifest

__all__ = ["SiteChoice", "chosen_sites"]

_SAME_MAPS = {"action_denoise": "action_step"}
"""A graph that runs all steps takes what the graph of one step takes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteChoice:
    """One product of the graphs, as `graph/name`, and what becomes of it."""

    key: str
    weight: str
    """Its weight in the weights file, less `.weight`."""
    seen_at: str
    """The site whose inputs are its own."""
    axis: int
    """Of the weight as it is stored: its output channels."""
    is_of_weights_alone: bool
    """Does its activation stay wide all the same?"""
    why_wide: str | None
    """Why it stays in the bundle's type; None if it is quantized."""


def chosen_sites(
    root: Path, manifest: Manifest, recipe: Recipe, seen: Mapping[str, object] | None
) -> list[SiteChoice]:
    """Return every product of a bundle's graphs under a recipe.

    Args:
        root: The bundle.
        manifest: Its manifest.
        recipe: That says which products are int8.
        seen: Sites that were looked into, `graph/name:input`; None where nothing was yet.
    """
    depth = manifest.contract.num_layers
    found = []
    reasons: dict[str, str] = {}
    for site in bundle_graphs(root, manifest).sites:
        graph = _SAME_MAPS.get(site.graph, site.graph)
        seen_at = f"{graph}/{site.name}:input"
        why = wide_reason(recipe, site.name, site.shape, depth)
        is_missed = seen is not None and seen_at not in seen
        if why is None and is_missed and not site.is_of_weights_alone:
            why = "no decision point reaches it"
        if why is not None:
            reasons.setdefault(site.name, why)
        axis = 0 if site.is_transposed else 1
        found.append((site.key, site.name, seen_at, axis, site.is_of_weights_alone))
    # A weight is stored once: wide in one graph, it is wide in all.
    return [
        SiteChoice(
            key=key,
            weight=name,
            seen_at=seen_at,
            axis=axis,
            is_of_weights_alone=is_alone,
            why_wide=reasons.get(name),
        )
        for key, name, seen_at, axis, is_alone in found
    ]
