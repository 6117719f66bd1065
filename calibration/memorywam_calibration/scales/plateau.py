"""The plateau test: do more decision points still move the scales?"""

from collections.abc import Mapping, Sequence
from functools import reduce
from itertools import accumulate, pairwise

import numpy as np
from numpy.typing import NDArray

from memorywam_calibration.episodes.needs import Needs
from memorywam_calibration.replay.activations import Activations
from memorywam_calibration.scales.scales import activation_scales
from memorywam_calibration.scales.sites import SiteChoice
from memorywam_runtime.scale_table import PlateauEntry

__all__ = ["nested_bounds", "plateau_of", "scale_change", "whole"]


def nested_bounds(count: int, least: int) -> list[int]:
    """Return where nested parts of some samples end, but the last: 8, 16, 32 of 64."""
    found = []
    while least < count:
        found.append(least)
        least *= 2
    return found


def whole(parts: Sequence[Activations]) -> Activations:
    """Return all parts together."""
    return reduce(Activations.merged, parts, Activations())


def plateau_of(
    sites: Sequence[SiteChoice],
    parts: Sequence[Activations],
    needs: Needs,
    factors: Mapping[str, NDArray[np.float64]],
) -> list[PlateauEntry]:
    """Compare the scales of each nested part with those of the part before.

    Args:
        sites: From `sites.chosen_sites`.
        parts: What each part adds to those before, from `activations.replayed`.
        needs: How ranges are chosen.
        factors: What divides inputs, by site.
    """
    grown = list(accumulate(parts, Activations.merged))
    found = []
    for before, after in pairwise(grown):
        scales = (activation_scales(sites, one, needs, factors) for one in (before, after))
        changes = scale_change(*scales)
        worst = max(changes, key=lambda site: changes[site], default="")
        settled = sum(change < needs.plateau_change for change in changes.values())
        found.append(
            PlateauEntry(
                num_samples=len(after.samples),
                worst_change=changes.get(worst, 0.0),
                worst_site=worst,
                share_settled=settled / max(len(changes), 1),
            )
        )
    return found


def scale_change(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float]:
    """Return the relative change of every scale; 1 of one that was not there."""
    return {
        site: abs(scale - before[site]) / scale if site in before else 1.0
        for site, scale in after.items()
    }
