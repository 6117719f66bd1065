"""Folds: factors that move from one weight into another, so that nothing else changes."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from memorywam_export.checkpoints.weights import Weight
from memorywam_runtime.errors import InputError

__all__ = ["Fold", "folded"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fold:
    """Factors that multiply one tensor of the weights file along one axis.

    Raises:
        InputError: a factor that is not finite and above 0.
    """

    tensor: str
    axis: int
    factors: tuple[float, ...]
    """One for each element along the axis."""

    def __post_init__(self) -> None:
        """Refuse what would lose the weight."""
        if not all(math.isfinite(factor) and factor > 0 for factor in self.factors):
            raise InputError(
                f"a fold of '{self.tensor}': found a factor that is not finite and above 0; "
                "expected scales of values that were seen: calibrate again"
            )


def folded(weight: Weight, folds: Sequence[Fold]) -> Weight:
    """Return a weight with its folds, in its own type; it is read when the result is loaded.

    All factors of an element are multiplied in float64, and the product is rounded once.

    Args:
        weight: Of the weights file.
        folds: Of any tensors; those of others are left out.

    Raises:
        InputError: an axis that the weight has not, or another number of factors than elements.
    """
    own = [fold for fold in folds if fold.tensor == weight.name]
    for fold in own:
        fits = 0 <= fold.axis < len(weight.shape) and weight.shape[fold.axis] == len(fold.factors)
        if not fits:
            raise InputError(
                f"a fold of '{weight.name}' {list(weight.shape)}: found {len(fold.factors)} "
                f"factors along axis {fold.axis}; expected one for each element of an axis"
            )
    if not own:
        return weight

    def load() -> torch.Tensor:
        wide = weight.checked().double()
        for fold in own:
            shape = [1] * wide.ndim
            shape[fold.axis] = -1
            wide = wide * torch.tensor(fold.factors, dtype=torch.float64).reshape(shape)
        return wide.to(weight.dtype)

    return Weight(weight.name, weight.shape, weight.dtype, load)
