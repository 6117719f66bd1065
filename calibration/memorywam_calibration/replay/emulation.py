"""Emulation: products of a session in torch, rounded as recipes would, some of them at a time."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch import nn

from memorywam_calibration.replay.listener import GRAPHS, graph_module, linear_maps
from memorywam_export.checkpoints.weights import Weight
from memorywam_export.quantize.quantize_weights import in_floats, quantized_weight
from memorywam_export.recipes.recipes import LARGEST, RECIPES, Recipe, block_length
from memorywam_runtime.errors import InputError
from memorywam_runtime.scale_table import ScaleTable
from memorywam_runtime.session import Session

__all__ = ["Emulation"]


class Emulation:
    """A session whose products can be rounded, each under a recipe of its own.

    What a quantized bundle computes, but for the order of sums: integers are multiplied as the
    floats that they stand for.
    """

    def __init__(self, session: Session, table: ScaleTable) -> None:
        """Prepare; nothing is rounded yet.

        Args:
            session: That torch runs.
            table: Scales of inputs, and what they are divided by before.
        """
        self._maps = {
            name: module for graph in GRAPHS for name, module in linear_maps(session, graph).items()
        }
        self._graphs = {graph: graph_module(session, graph) for graph in GRAPHS}
        self._scales = {
            key.removesuffix(":input"): entry.scales[0]
            for key, entry in table.entries.items()
            if entry.kind == "activation"
        }
        self._factors = {
            site.partition("/")[2]: torch.tensor(entry.factors, dtype=torch.float32)
            for entry in table.smooth.values()
            for site in entry.sites
        }
        self._running = ""
        self._rounded: dict[tuple[str, str], torch.Tensor] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """Weights of the maps that there are, less `.weight`."""
        return tuple(self._maps)

    def can(self, name: str, recipe: str) -> bool:
        """Is there such a map, and does the recipe fit its shape?"""
        if name not in self._maps:
            return False
        outputs, inputs = self._maps[name].weight.shape
        has_blocks = RECIPES[recipe].granularity == "block"
        return not has_blocks or (block_length(inputs) is not None and outputs % 2 == 0)

    @contextmanager
    def of(self, chosen: Mapping[str, str]) -> Iterator[None]:
        """Round some products in the block, and none after it.

        Args:
            chosen: Weight, less `.weight`, to the name of a recipe.

        Raises:
            InputError: a weight that there is not.
        """
        if unknown := sorted(set(chosen) - set(self._maps)):
            raise InputError(
                f"found '{unknown[0]}' to be rounded; expected one of the {len(self._maps)} maps "
                "of the graphs"
            )
        hooks: list[Any] = [
            module.register_forward_pre_hook(partial(self._begin, graph))
            for graph, module in self._graphs.items()
        ]
        wide: dict[str, torch.Tensor] = {}
        try:
            for name, recipe in chosen.items():
                module = self._maps[name]
                wide[name] = module.weight.data
                module.weight.data = self._weight(name, RECIPES[recipe])
                if RECIPES[recipe].activation is not None:
                    hook = partial(self._input, name, RECIPES[recipe])
                    hooks.append(module.register_forward_pre_hook(hook))
            yield
        finally:
            for hook in hooks:
                hook.remove()
            for name, weight in wide.items():
                self._maps[name].weight.data = weight

    def rounded(self, graph: str, name: str, recipe: str, given: torch.Tensor) -> torch.Tensor:
        """Return what a map makes of an input under a recipe, whatever is rounded now.

        Args:
            graph: That calls it.
            name: Its weight, less `.weight`.
            recipe: Name.
            given: [..., inputs], as the map is given it unrounded.
        """
        chosen, module = RECIPES[recipe], self._maps[name]
        x = given if chosen.activation is None else self._narrow(f"{graph}/{name}", chosen, given)
        return F.linear(x, self._weight(name, chosen), module.bias)

    def _begin(self, graph: str, _module: nn.Module, _inputs: tuple[Any, ...]) -> None:
        """Note which graph runs: scales differ between graphs that share a map."""
        self._running = graph

    def _weight(self, name: str, recipe: Recipe) -> torch.Tensor:
        """Return what is left of a weight [outputs, inputs]."""
        if (name, recipe.name) not in self._rounded:
            wide = self._maps[name].weight.data
            factors = self._factors.get(name)
            given = wide if factors is None else wide * factors.to(wide.dtype)
            weight = Weight(f"{name}.weight", tuple(wide.shape), wide.dtype, lambda: given)
            quantized = quantized_weight(weight, recipe, is_transposed=True)
            floats = in_floats(quantized.values.load(), quantized.scales.load())
            self._rounded[name, recipe.name] = floats if factors is None else floats / factors
        return self._rounded[name, recipe.name]

    def _input(
        self, name: str, recipe: Recipe, _module: nn.Module, inputs: tuple[Any, ...]
    ) -> tuple[Any, ...]:
        """Return what is left of a map's input."""
        return (self._narrow(f"{self._running}/{name}", recipe, inputs[0]), *inputs[1:])

    def _narrow(self, site: str, recipe: Recipe, given: torch.Tensor) -> torch.Tensor:
        """Return what is left of an input; all of it where a graph keeps its inputs wide."""
        scale = self._scales.get(site)
        if scale is None:
            return given
        factors = self._factors.get(site.partition("/")[2])
        x = given.float() if factors is None else given.float() / factors
        if recipe.activation == "fp8":
            end = LARGEST["fp8"]
            steps = (x / scale).clamp(-end, end).to(torch.float8_e4m3fn).float()
        else:
            steps = torch.clamp(torch.round(x / scale), -128, 127)
        rounded = steps * scale
        return (rounded if factors is None else rounded * factors).to(given.dtype)
