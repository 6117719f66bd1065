"""The narrow window of memory: its scales from a table, and what they fold into the weights."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from memorywam_export.quantize.quantize_folds import Fold
from memorywam_export.recipes.recipes import LARGEST, Recipe
from memorywam_runtime.contract import InferenceContract
from memorywam_runtime.errors import InputError
from memorywam_runtime.manifest import DTYPES, Manifest, MemoryQuantization, Precision, Rewrite
from memorywam_runtime.scale_table import ScaleEntry, ScaleTable
from memorywam_runtime.tensors import decoded, encoded

__all__ = [
    "Window",
    "check_window",
    "memory_entries",
    "memory_folds",
    "rotary_pairs",
    "window_from_table",
]

_CHANNEL_AXIS = 1
"""Of rows [rows, heads * head_dim], as the scale table counts keys and values."""
_LEAST = 2.0**-10
"""Of a channel's scale over the largest: one that is almost always 0 is not blown up."""
_HEADROOM = 1.25
"""Of a range over what was seen: long episodes reach values that recordings of short ones do not,
and those that are cut have the largest errors. It costs 2 dB where nothing would be; without it,
over a thousand frames, errors of the demo's window and gists were two and a half times as large."""
_TINY = 1e-6
"""Of the largest value of a tensor, so that one of zeros has a scale."""
_TYPES: dict[str, Literal["int8", "float8e4m3fn"]] = {"int8": "int8", "fp8": "float8e4m3fn"}
_AGAIN = "calibrate this bundle again"


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """How a bundle's window becomes narrow."""

    memory: MemoryQuantization
    folds: tuple[Fold, ...]
    """After these, one scale for each layer's keys, and one for its values, holds all channels."""


def check_window(manifest: Manifest, recipe: Recipe) -> None:
    """Refuse a contract whose memory has no window that could be narrow.

    Raises:
        InputError: it keeps executed actions, or remembers no frame but anchors and the newest.
    """
    contract = manifest.contract
    if contract.conventions.action_history:
        raise InputError(
            f"found a contract that keeps executed actions in memory; expected one without for "
            f"{recipe.name}, whose window holds visual tokens alone: quantize with another recipe"
        )
    is_single = contract.conventions.vae_history == "single_frame"
    if is_single or contract.num_ring_slots < 2:
        kept = 1 if is_single else contract.num_ring_slots
        raise InputError(
            f"found a window of {kept} frame; expected at least 2 for {recipe.name}: the newest "
            "frame stays wide, so there is nothing to quantize; choose another recipe"
        )


def window_from_table(manifest: Manifest, recipe: Recipe, table: ScaleTable) -> Window:
    """Return scales and folds for every layer.

    The scales of a layer are divided by their largest, which stays as the one scale in the graphs.
    What is left is folded: keys are divided in the gains of both experts' key norms, queries
    multiplied in those of their query norms; values in the rows that make them and the columns of
    the output maps that take them. Queries and keys are rotated in between, which leaves their
    products as they were only if both channels of a rotary pair have one factor.

    Raises:
        InputError: a layer without scales, or scales that do not fit.
    """
    assert recipe.memory is not None
    if "cache_update" not in table.graph_sha256s:
        raise InputError(
            "the scale table has no hash of graph 'cache_update', which writes memory; expected "
            f"it, so that a stale table is seen: {_AGAIN}"
        )
    contract = manifest.contract
    folds: list[Fold] = []
    scales: dict[str, list[float]] = {"k": [], "v": []}
    is_rough = recipe.memory == "fp8" or manifest.precision != "fp32"
    for layer in range(contract.num_layers):
        for part in "kv":
            found = _channel_scales(table, f"memory.{layer:02d}.{part}", recipe, manifest)
            factors = _factors(found, is_rough=is_rough)
            scales[part].append(_stored((found / factors).max(), manifest.precision))
            folds += memory_folds(layer, part, factors)
    memory = MemoryQuantization(
        dtype=_TYPES[recipe.memory],
        key_scales=tuple(scales["k"]),
        value_scales=tuple(scales["v"]),
    )
    return Window(memory=memory, folds=tuple(folds))


def memory_entries(
    absmax: Mapping[str, NDArray[np.floating]], recipe: Recipe, manifest: Manifest, observer: str
) -> dict[str, ScaleEntry]:
    """Return the entries of a scale table for keys and values, whose whole range is kept and more.

    Args:
        absmax: By tensor, `memory.LL.k`, what was seen at most of each channel, in the order of the
            bundle's own graphs.
        recipe: Of memory.
        manifest: Of the bundle.
        observer: What the entries call this.
    """
    assert recipe.memory is not None
    entries, end = {}, LARGEST[recipe.memory]
    for name, seen in sorted(absmax.items()):
        largest = _HEADROOM * seen.astype(np.float64)
        if name.endswith("k"):
            pairs = rotary_pairs(manifest.contract, manifest.rewrites)
            # However far a later frame turns a pair, neither channel exceeds the pair's length.
            largest[pairs] = np.hypot(*largest[pairs].T)[:, None]
        least = max(float(largest.max(initial=0.0)), _TINY) * _LEAST
        entries[name] = ScaleEntry(
            kind="memory",
            dtype=recipe.memory,
            scales=tuple((np.maximum(largest, least) / end).tolist()),
            observer=observer,
            absmax=float(seen.max(initial=0.0)),
            axis=_CHANNEL_AXIS,
        )
    return entries


def rotary_pairs(contract: InferenceContract, rewrites: tuple[Rewrite, ...]) -> NDArray[np.int64]:
    """Return the channels [heads * head_dim / 2, 2] that rotate together, as the graphs have them.

    Neighbours; under `rope-halves` one of each half of a head.
    """
    channels = np.arange(contract.attention_width).reshape(contract.num_heads, contract.head_dim)
    if "rope-halves" in rewrites:
        return channels.reshape(contract.num_heads, 2, -1).swapaxes(1, 2).reshape(-1, 2)
    return channels.reshape(-1, 2)


def _factors(scales: NDArray[np.float64], *, is_rough: bool) -> NDArray[np.float64]:
    """Return what each channel is divided by: its scale over the largest.

    Args:
        scales: By channel.
        is_rough: Take powers of two, which no type of weights rounds. fp8 loses nothing by them,
            and 16 bits less than by rounding the folded weights.
    """
    factors: NDArray[np.float64] = np.maximum(scales / scales.max(), _LEAST)
    return np.exp2(np.ceil(np.log2(factors) - 1e-9)) if is_rough else factors


def _stored(scale: float, precision: Precision) -> float:
    """Return a scale as it stands in the graphs."""
    dtype = DTYPES[precision]
    return float(decoded(encoded(np.array([scale]), dtype), dtype)[0])


def _channel_scales(
    table: ScaleTable, key: str, recipe: Recipe, manifest: Manifest
) -> NDArray[np.float64]:
    """Return the scales of one memory tensor by channel."""
    entry = table.entries.get(key)
    if entry is None:
        raise InputError(
            f"the scale table has no '{key}'; expected scales of every layer's keys and values for "
            f"{recipe.name}: {_AGAIN}"
        )
    _check_entry(key, entry, recipe, manifest.contract.attention_width)
    scales = np.array(entry.scales, np.float64)
    if key.endswith("k"):
        both = scales[rotary_pairs(manifest.contract, manifest.rewrites)]
        if (both[:, 0] != both[:, 1]).any():
            raise InputError(
                f"the scale table has two scales for a rotary pair of '{key}'; expected one for "
                f"both of its channels, since keys are rotated: {_AGAIN}"
            )
    return scales


def _check_entry(key: str, entry: ScaleEntry, recipe: Recipe, width: int) -> None:
    """Refuse scales of another kind, type or number."""
    found = (entry.kind, entry.dtype, entry.axis, len(entry.scales))
    expected = ("memory", recipe.memory, _CHANNEL_AXIS, width)
    if found != expected:
        tell = "{} {}, axis {}, {} scales".format
        raise InputError(
            f"the scale table has {tell(*found)} for '{key}'; expected {tell(*expected)}: {_AGAIN}"
        )


def memory_folds(layer: int, part: str, factors: NDArray[np.float64]) -> Iterator[Fold]:
    """Yield what dividing a layer's keys (`k`) or values (`v`) by factors does to the weights."""
    divided, multiplied = tuple((1 / factors).tolist()), tuple(factors.tolist())
    for expert in ("video", "action"):
        attention = f"mixtures.{expert}.blocks.{layer}.self_attn"
        if part == "k":
            yield Fold(tensor=f"{attention}.norm_k.weight", axis=0, factors=divided)
            yield Fold(tensor=f"{attention}.norm_q.weight", axis=0, factors=multiplied)
        else:
            yield Fold(tensor=f"{attention}.v.weight", axis=0, factors=divided)
            yield Fold(tensor=f"{attention}.v.bias", axis=0, factors=divided)
            yield Fold(tensor=f"{attention}.o.weight", axis=1, factors=multiplied)
