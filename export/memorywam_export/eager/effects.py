"""What each exact rewrite takes out of the graphs, counted one rewrite at a time."""

from dataclasses import dataclass

import msgspec
import torch

from memorywam_export.eager.costs import graph_costs
from memorywam_export.graphs.rewrites import NO_REWRITES, Rewrites
from memorywam_runtime.contract import InferenceContract
from memorywam_runtime.manifest import CacheWrite, Rewrite

__all__ = ["Effect", "rewrite_effects"]

_PER_CHUNK = ("cache_update", "action_step")
"""The graphs that read the weights of the transformers while the robot waits."""


_CHANGED: dict[Rewrite, tuple[tuple[str, ...], str]] = {
    "fold-modulation": (("cache_update",), "and all multiplying and adding of the modulation"),
    "modulation-table": (("action_step",), "once for each step of a number of steps instead"),
    "collapse-padding": (_PER_CHUNK, "and prompt keys and values in proportion"),
    "rope-halves": (_PER_CHUNK, "no strided gathers: the pairs lie half a head apart"),
}
"""Which graphs a rewrite changes, and what else there is to say of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """What one call of a graph no longer reads and computes."""

    rewrite: str
    graph: str
    weight_bytes: int
    flops: int
    note: str = ""


def rewrite_effects(
    contract: InferenceContract, dtype: torch.dtype, cache_write: CacheWrite, rewrites: Rewrites
) -> list[Effect]:
    """Return what each rewrite that is in effect removes, taken alone.

    Two that are part of the split, and have no switch, are told too: the last video layer makes
    only keys and values, and a prompt's keys and values are made once an instruction. What is
    elementwise is not counted: that is all that rope-halves changes.

    Args:
        contract: Sizes and conventions.
        dtype: Of weights, keys and values.
        cache_write: How the graphs write memory.
        rewrites: Those in effect.
    """
    before = graph_costs(contract, dtype, cache_write, NO_REWRITES, _PER_CHUNK)
    found = []
    for name, (graphs, note) in _CHANGED.items():
        if name not in rewrites:
            continue
        text_rows = rewrites.text_rows if name == "collapse-padding" else None
        alone = Rewrites(names=(name,), text_rows=text_rows)
        after = graph_costs(contract, dtype, cache_write, alone, graphs)
        found += [
            Effect(
                rewrite=name,
                graph=graph,
                weight_bytes=before[graph].weight_bytes - cost.weight_bytes,
                flops=before[graph].flops - cost.flops,
                note=note,
            )
            for graph, cost in after.items()
        ]
    return [*found, *_structural(contract, dtype, cache_write)]


def _structural(
    contract: InferenceContract,
    dtype: torch.dtype,
    cache_write: CacheWrite,
) -> list[Effect]:
    """Return what the split itself removes; both are in every bundle."""
    video, action = contract.video.hidden, contract.action.hidden
    video_text = _text_maps(contract, video, contract.num_layers - 1)
    action_text = _text_maps(contract, action, contract.num_layers)
    rows, size = contract.conventions.text_len, dtype.itemsize
    once = "part of the split: once an instruction, in prompt_kv"
    return [
        _last_layer(contract, dtype, cache_write),
        *(
            Effect(
                rewrite="prompt-kv",
                graph=graph,
                weight_bytes=(products + others) * size,
                flops=2 * rows * products,
                note=once,
            )
            for graph, (products, others) in zip(_PER_CHUNK, (video_text, action_text), strict=True)
        ),
    ]


def _text_maps(contract: InferenceContract, hidden: int, num_layers: int) -> tuple[int, int]:
    """Return the matrix elements, and the other ones, of a text stem and its keys and values."""
    width = contract.attention_width
    products = contract.text_dim * hidden + hidden**2 + num_layers * 2 * hidden * width
    return products, 2 * hidden + num_layers * 3 * width


def _last_layer(contract: InferenceContract, dtype: torch.dtype, cache_write: CacheWrite) -> Effect:
    """Return what a whole last video layer would cost more than its keys and values do."""
    hidden, width = contract.video.hidden, contract.attention_width
    two, three = (
        graph_costs(
            msgspec.structs.replace(contract, num_layers=layers),
            dtype,
            cache_write,
            NO_REWRITES,
            ("cache_update",),
        )["cache_update"]
        for layers in (2, 3)
    )
    # Keys, values, their norm and the modulation are what stays.
    kept = 2 * (hidden + 1) * width + width + 6 * hidden
    products = 2 * hidden * width
    return Effect(
        rewrite="last-layer",
        graph="cache_update",
        weight_bytes=three.weight_bytes - two.weight_bytes - kept * dtype.itemsize,
        flops=three.flops - two.flops - 2 * contract.num_frame_tokens * products,
        note="part of the split: the last video layer makes only keys and values",
    )
