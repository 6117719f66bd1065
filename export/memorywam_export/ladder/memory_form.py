"""Memory form: what a bundle remembers, in the layout and units that all bundles can be read in."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memorywam_export.quantize.quantize_memory import window_from_table
from memorywam_export.recipes.recipes import recipe_from_name
from memorywam_runtime.manifest import Manifest
from memorywam_runtime.memory import MemoryState, Rows
from memorywam_runtime.scale_table import ScaleTable
from memorywam_runtime.tensors import TensorSpec, decoded, encoded

__all__ = ["MemoryForm", "form_of"]

Plain = dict[str, NDArray[np.floating]]
"""`memory.LL.k` to [heads, rows, head_dim]: one wide tensor a layer, in the exported units."""
Specs = Mapping[str, TensorSpec]


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryForm:
    """How one bundle keeps memory, against how it is kept as exported."""

    rows: Rows
    """Where things are in the bundle's own tensors."""
    plain: Rows
    """Where they are as exported."""
    factors: Mapping[str, NDArray[np.float64]] = field(default_factory=dict[str, Any])
    """By memory tensor [heads, 1, head_dim]: what its keys or values were divided by."""
    window_scales: Mapping[str, float] = field(default_factory=dict[str, float])
    """By memory tensor: of its narrow rows."""

    def read(self, arrays: Mapping[str, NDArray[Any]], specs: Specs, state: MemoryState) -> Plain:
        """Return what arrays hold of every slot and gist; elsewhere is nothing.

        Args:
            arrays: As a snapshot has them, `memory.LL.k` and where there are any `window.LL.k`.
            specs: Of these.
            state: Which slots are taken.
        """
        found: Plain = {}
        for name in sorted(one for one in arrays if one.startswith("memory.")):
            own = decoded(arrays[name], specs[name].dtype)[0]
            factor = self.factors.get(name, np.ones(1))
            if not self.rows.num_window:
                found[name] = own * factor if name in self.factors else own
                continue
            kept = own.shape[1] - self.rows.gist_table
            wide = np.zeros((own.shape[0], self.plain.gist_table + kept, own.shape[2]), own.dtype)
            window = name.replace("memory.", "window.", 1)
            narrow = decoded(arrays[window], specs[window].dtype)[0] * self.window_scales[name]
            for slot, frame in enumerate(state.slot_frames):
                place, first = self.rows.window(slot), self.plain.slot(slot)
                if frame < 0:
                    continue
                if place is None or frame == state.num_frames - 1:
                    size, at = self.rows.slot_size, self.rows.slot(slot)
                    wide[:, first : first + size] = own[:, at : at + size]
                else:
                    size = self.rows.num_visual
                    wide[:, first : first + size] = narrow[:, place : place + size]
            wide[:, self.plain.gist_table :] = own[:, self.rows.gist_table :]
            found[name] = wide * factor
        return found

    def write(self, plain: Plain, specs: Specs, state: MemoryState) -> dict[str, NDArray[Any]]:
        """Return arrays that hold the same, rounded to the bundle's types.

        Args:
            plain: From `read` of a bundle of the same contract and number of gist places.
            specs: Of the bundle's own tensors, with as many gist places.
            state: Which slots are taken.
        """
        found: dict[str, NDArray[Any]] = {}
        for name, whole in plain.items():
            values = whole / self.factors[name] if name in self.factors else whole
            if not self.rows.num_window:
                found[name] = encoded(values[None], specs[name].dtype)
                continue
            window = name.replace("memory.", "window.", 1)
            own = np.zeros(specs[name].fixed_shape, values.dtype)[0]
            narrow = np.zeros(specs[window].fixed_shape, values.dtype)[0]
            for slot, frame in enumerate(state.slot_frames):
                place, first = self.rows.window(slot), self.plain.slot(slot)
                if frame < 0:
                    continue
                if place is None or frame == state.num_frames - 1:
                    size, at = self.rows.slot_size, self.rows.slot(slot)
                    own[:, at : at + size] = values[:, first : first + size]
                if place is not None:
                    size = self.rows.num_visual
                    narrow[:, place : place + size] = values[:, first : first + size]
            own[:, self.rows.gist_table :] = values[:, self.plain.gist_table :]
            found[name] = encoded(own[None], specs[name].dtype)
            narrow /= self.window_scales[name]
            found[window] = encoded(narrow[None], specs[window].dtype)
        return found


def form_of(manifest: Manifest, table: ScaleTable | None = None) -> MemoryForm:
    """Return the form of a bundle's memory.

    Args:
        manifest: Of the bundle.
        table: The scale table that it was quantized with; only where its window is narrow is it
            looked at.
    """
    contract, plain = manifest.contract, Rows(manifest.contract)
    quantization = manifest.quantization
    if quantization is None or quantization.memory is None:
        return MemoryForm(rows=manifest.rows, plain=plain)
    assert table is not None
    window = window_from_table(manifest, recipe_from_name(quantization.recipe), table)
    by_tensor = {fold.tensor: np.asarray(fold.factors, np.float64) for fold in window.folds}
    shape = (contract.num_heads, 1, contract.head_dim)
    factors, scales = {}, {}
    for layer in range(contract.num_layers):
        attention = f"mixtures.video.blocks.{layer}.self_attn"
        for part, tensor in (("k", "norm_k.weight"), ("v", "v.bias")):
            name = f"memory.{layer:02d}.{part}"
            factors[name] = 1 / by_tensor[f"{attention}.{tensor}"].reshape(shape)
        scales[f"memory.{layer:02d}.k"] = quantization.memory.key_scales[layer]
        scales[f"memory.{layer:02d}.v"] = quantization.memory.value_scales[layer]
    return MemoryForm(rows=manifest.rows, plain=plain, factors=factors, window_scales=scales)
