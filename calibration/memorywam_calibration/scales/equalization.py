"""Equalization of inputs before they are rounded: factors by channel, gains by denoising step."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import nn

from memorywam_calibration.replay.activations import Activations
from memorywam_calibration.scales.sites import SiteChoice
from memorywam_calibration.scales.smoothing import chosen_factors
from memorywam_calibration.scales.step_gains import chosen_gains
from memorywam_export.quantize.quantize import bundle_graphs
from memorywam_export.quantize.quantize_smooth import shared_inputs
from memorywam_export.quantize.quantize_steps import check_steps, stepped_inputs
from memorywam_runtime.manifest import Manifest
from memorywam_runtime.scale_table import SmoothEntry, StepEntry

__all__ = ["NOTHING", "Equalization", "equalized"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Equalization:
    """What a table will say of it, by input."""

    smooth: Mapping[str, SmoothEntry] = field(default_factory=dict[str, SmoothEntry])
    steps: Mapping[str, StepEntry] = field(default_factory=dict[str, StepEntry])

    def factors(self) -> dict[str, NDArray[np.float64]]:
        """Return what divides inputs by channel, by `graph/name:input`; ones for gains alone.

        Ranges of these inputs hold all that was seen: the largest values by channel, and by step,
        are all that is known of what comes of them.
        """
        found = {f"{key}:input": np.ones(1) for one in self.steps.values() for key in one.sites}
        for one in self.smooth.values():
            found |= {f"{key}:input": np.array(one.factors) for key in one.sites}
        return found


NOTHING = Equalization()


def equalized(
    bundle: Path,
    manifest: Manifest,
    sites: Sequence[SiteChoice],
    parts: Sequence[Activations],
    maps: Mapping[str, nn.Linear],
    observer: str,
    *,
    smooth: bool,
    per_step: bool,
) -> Equalization:
    """Choose what evens out the inputs of a bundle's products, where that gains.

    Args:
        bundle: To be quantized.
        manifest: Its manifest.
        sites: From `sites.chosen_sites`.
        parts: What was seen, in parts.
        maps: Linear maps by their weights' names.
        observer: That chooses ranges where nothing is equalized.
        smooth: Divide channels.
        per_step: Give gains to denoising steps.

    Raises:
        InputError: a bundle whose steps cannot have gains, where they are asked for.
    """
    products, two = bundle_graphs(bundle, manifest).sites, _halves(parts)
    factors: dict[str, SmoothEntry] = {}
    gains: dict[str, StepEntry] = {}
    if smooth:
        factors = chosen_factors(shared_inputs(products), sites, two, maps, observer)
    if per_step:
        check_steps(manifest)
        inputs = stepped_inputs(products)
        gains = chosen_gains(inputs, sites, two, manifest.contract, observer, factors)
    return Equalization(smooth=factors, steps=gains)


def _halves(parts: Sequence[Activations]) -> list[Activations]:
    """Return the last part, which is half of all or less, and the others; one of one part."""
    *earlier, last = parts
    return [reduce(Activations.merged, earlier, Activations()), last] if earlier else [last]
