"""States and actions to and from the model's units, by the statistics of its training data."""

from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from memorywam_runtime.contract import ActionSpace
from memorywam_runtime.errors import CheckpointError, InputError

__all__ = ["Affine", "Normalization", "normalization_from_stats"]

_STD_FLOOR = 1e-8
_NEARLY_CONSTANT = 1e-4
"""A value whose range is below this carries no signal: it is centred and not scaled."""


class Affine(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Normalized = clamp(raw * scale + offset); raw = (normalized - offset) / scale."""

    scale: tuple[float, ...]
    offset: tuple[float, ...]
    clamp: float
    """Largest magnitude on the way in; nothing is clamped on the way out."""

    def __post_init__(self) -> None:
        """Refuse vectors that differ in length, are not finite, or cannot be inverted."""
        values = np.array([*self.scale, *self.offset, self.clamp])
        if len(self.scale) != len(self.offset) or not np.isfinite(values).all():
            raise InputError("normalization: scale and offset must be finite and of one length")
        if 0.0 in self.scale or self.clamp <= 0:
            raise InputError("normalization: found a zero scale or clamp; expected neither")

    def normalized(self, raw: NDArray[np.floating], what: str) -> NDArray[np.float32]:
        """Return raw values [..., n] in the model's units.

        Raises:
            InputError: a wrong length, or a value that is not finite; `what` names it.
        """
        values = np.asarray(raw, np.float64)
        if values.shape[-1:] != (len(self.scale),):
            raise InputError(
                f"{what}: found shape {list(values.shape)}; expected [..., {len(self.scale)}]"
            )
        if not np.isfinite(values).all():
            bad = np.argwhere(~np.isfinite(values))[0].tolist()
            raise InputError(
                f"{what}: found {values[tuple(bad)]} at index {bad}; expected finite numbers: "
                "check the joint encoders, and hold the arms until they answer"
            )
        scaled = values * np.array(self.scale) + np.array(self.offset)
        return np.asarray(np.clip(scaled, -self.clamp, self.clamp), np.float32)

    def raw(self, normalized: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return values [..., n] in the robot's units."""
        values = np.asarray(normalized, np.float64)
        return np.asarray((values - np.array(self.offset)) / np.array(self.scale))


class Normalization(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The two maps of a bundle."""

    state: Affine
    action: Affine


def normalization_from_stats(stats: object, actions: ActionSpace) -> Normalization:
    """Read FastWAM's `dataset_stats.json`.

    Modes as in FastWAM's `normalizer.py`: zscore (mean 0, std 1), minmax and quantile (to
    [-1, 1] by min/max or q01/q99). Several keys of one kind are joined in the file's order.

    Args:
        stats: The parsed JSON: {action, state}.{key}.global_{mean, std, min, max, q01, q99}.
        actions: Sizes and mode.

    Raises:
        CheckpointError: a missing field or a wrong length.
    """
    return Normalization(
        state=_affine(stats, "state", actions.state_dim, actions),
        action=_affine(stats, "action", actions.action_dim, actions),
    )


def _affine(stats: object, kind: str, size: int, actions: ActionSpace) -> Affine:
    """Return the map of one kind."""
    names = {
        "zscore": ("global_mean", "global_std"),
        "minmax": ("global_min", "global_max"),
        "quantile": ("global_q01", "global_q99"),
    }[actions.normalization]
    first, second = (_vector(stats, kind, name, size) for name in names)
    spread = second if actions.normalization == "zscore" else second - first
    if (spread < 0).any():
        index = int(np.argmax(spread < 0))
        raise CheckpointError(
            f"dataset statistics: '{kind}' {names[1]} is {second[index]} and {names[0]} is "
            f"{first[index]} at index {index}; expected no negative spread"
        )
    if actions.normalization == "zscore":
        scale = 1 / (second + _STD_FLOOR)
        still = second < _NEARLY_CONSTANT
        offset = -first * np.where(still, 1.0, scale)
    else:
        still = spread < _NEARLY_CONSTANT
        scale = 2 / np.where(still, 1.0, spread)
        offset = np.where(still, -first, -1 - first * scale)
    scale = np.where(still, 1.0, scale)
    return Affine(scale=tuple(scale.tolist()), offset=tuple(offset.tolist()), clamp=actions.clamp)


def _vector(stats: object, kind: str, name: str, size: int) -> NDArray[np.float64]:
    """Return one statistic of all keys of a kind, side by side [size]."""
    groups: Any = stats.get(kind) if isinstance(stats, dict) else None
    if not isinstance(groups, dict) or not groups:
        raise CheckpointError(f"dataset statistics: no group '{kind}'; expected action and state")
    parts = []
    for key, group in groups.items():
        if not isinstance(group, dict) or name not in group:
            raise CheckpointError(f"dataset statistics: '{kind}.{key}' has no '{name}'")
        try:
            parts.append(np.asarray(group[name], np.float64).reshape(-1))
        except (TypeError, ValueError) as error:
            raise CheckpointError(
                f"dataset statistics: '{kind}.{key}.{name}' is not a list of numbers: {error}"
            ) from error
    values = np.concatenate(parts)
    if values.shape != (size,) or not np.isfinite(values).all():
        raise CheckpointError(
            f"dataset statistics: '{kind}' {name} has {values.size} values; "
            f"expected {size} finite ones"
        )
    return values
