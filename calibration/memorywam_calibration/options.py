"""Options: what may be chosen of a calibration."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from memorywam_calibration.episodes.episodes import SHARES
from memorywam_export.recipes.recipes import recipe_from_name
from memorywam_runtime.errors import InputError

__all__ = ["Options"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What may be chosen.

    Raises:
        InputError: X^T X to be counted for what is not smoothed.
    """

    recipe: str = "int8"
    num_samples: int | None = None
    """Decision points; the recipe's by default."""
    seed: int = 0
    """Of split, choice and noise."""
    shares: tuple[float, ...] = SHARES
    """Of the episodes for calibration, development and held out."""
    allowed: tuple[str, ...] = ()
    """Cells of the coverage table that may be missing, with * for any."""
    second_pass: bool = True
    """Replay once more through the quantized memory, and fit scales to what both passes saw."""
    max_fill: int | None = None
    """Look at no frame beyond this many in memory; the coverage table tells what it costs."""
    instruction: str | None = None
    """Another one than was recorded."""
    cameras: Mapping[str, str] = field(default_factory=dict[str, str])
    """The contract's camera to the recordings' name for it, where they differ."""
    smooth: bool = True
    """Move what makes activations hard to round into the weights, where that gains."""
    gram_channels: int = 0
    """Smoothing weighs errors of weights by X^T X for inputs of at most so many channels; above, by
    the channels' mean squares, as all are by default: both choose the same but for ties."""
    per_step: bool = False
    """Bring denoising steps to one range, where that gains: after smoothing it rarely does."""
    num_threads: int = 0
    """Of torch; by default one for a small model, and for others the cores of this machine. Sums
    may round otherwise with another number: the table tells which it was."""
    cluster: str | None = None
    """Where Ray runs the episodes: `local`, or the address of a cluster; by default this process
    does. The table is the same."""
    shards: Path | None = None
    """A folder that keeps each episode's statistics until the table is written."""
    is_resuming: bool = False
    """Use the episodes that an interrupted run has left there."""

    def __post_init__(self) -> None:
        """Refuse to count what nobody reads."""
        if self.gram_channels < 0:
            raise InputError(f"found {self.gram_channels} channels for X^T X; expected 0 or more")
        if self.gram_channels and not self.is_smoothed:
            how = self.recipe if self.smooth else f"{self.recipe}, not smoothed"
            raise InputError(
                f"found X^T X asked for with {how}; expected int8 or mixed, smoothed: nothing else "
                "reads it; leave --gram-channels out"
            )

    @property
    def is_smoothed(self) -> bool:
        """Are factors looked for? What has an exponent gains nothing by them."""
        recipe = recipe_from_name(self.recipe)
        return self.smooth and (*recipe.parts, recipe.name)[0] == "int8"
