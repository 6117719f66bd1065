"""Quantization recipes: which types they bring, what stays wide, what may run them."""

import re
from dataclasses import dataclass
from typing import Literal

from memorywam_export.recipes.engine_targets import ARCHITECTURES, TARGETS
from memorywam_runtime.errors import InputError
from memorywam_runtime.manifest import QuantizationRecipe
from memorywam_runtime.scale_table import ScaleTable

__all__ = [
    "LARGEST",
    "RECIPES",
    "Recipe",
    "block_length",
    "check_recipe",
    "edge_blocks",
    "recipe_from_name",
    "wide_reason",
]

LARGEST = {"int8": 127.0, "fp8": 448.0, "int4": 7.0}
"""What a value at the end of its range is in units of its scale, by narrow type; int8 leaves out
-128, so that its range is symmetric."""

BLOCKS = (128, 64, 32, 16)
"""Lengths of a block of int4 weights with one scale, best first; TensorRT takes 128 and 64."""
_MIN_SIDE = 16
"""Products with a shorter side have no tensor-core kernel."""
_EDGE_SHARE = 15
_PROJECTION = re.compile(
    r"mixtures\.(?:video|action)\.blocks\.(\d+)\.(?:self_attn\.[qkvo]|cross_attn\.[qkvo]|ffn\.[02])"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """One way to quantize a bundle: its matrix products or its memory; explicit Q/DQ, symmetric."""

    name: QuantizationRecipe
    weight: Literal["int8", "fp8", "int4"] | None = None
    """None: all products stay wide."""
    activation: Literal["int8", "fp8"] | None = None
    """Type of the other operand, one scale a tensor; None: it stays wide."""
    granularity: Literal["channel", "tensor", "block"] = "tensor"
    """Of the weights: one scale an output, one in all, one for each block of an output's inputs."""
    memory: Literal["int8", "fp8"] | None = None
    """Of the window's keys and values, one scale a tensor; None: they stay wide."""
    parts: tuple[QuantizationRecipe, ...] = ()
    """One of these for each weight, or none, as the table says; what is above is of the first."""
    needs: str
    """What a target must have, as the refusals tell it."""

    @property
    def needs_table(self) -> bool:
        """Does it quantize what only recordings can tell the range of?"""
        return self.activation is not None or self.memory is not None

    def has_blocks(self, table: ScaleTable | None) -> bool:
        """Does it round weights in blocks, under this table?"""
        chosen = () if table is None else table.chosen.values()
        return any(RECIPES[name].granularity == "block" for name in (self.name, *chosen))


RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            name="int8",
            weight="int8",
            activation="int8",
            granularity="channel",
            needs="int8 products: any architecture",
        ),
        # One scale for all: Ada takes no other, and a type with an exponent gains nothing by more.
        Recipe(
            name="fp8",
            weight="fp8",
            activation="fp8",
            granularity="tensor",
            needs="fp8 products: sm_89 or newer, and on sm_110 TensorRT 10.13 or newer",
        ),
        Recipe(
            name="int8-weight",
            weight="int8",
            activation=None,
            granularity="channel",
            needs="int8 weights beside wide activations, which TensorRT proper has not",
        ),
        Recipe(
            name="int4-weight",
            weight="int4",
            activation=None,
            granularity="block",
            needs="int4 weights in blocks: sm_80 or newer",
        ),
        Recipe(
            name="mixed",
            weight="int8",
            activation="int8",
            granularity="channel",
            parts=("int8", "int4-weight"),
            needs="int8 products and int4 weights in blocks: sm_80 or newer",
        ),
        Recipe(
            name="kv-int8",
            memory="int8",
            needs="keys and values in int8: ONNX Runtime, or TensorRT-RTX on sm_86 or newer",
        ),
        Recipe(
            name="kv-fp8",
            memory="fp8",
            needs="keys and values in fp8: ONNX Runtime, or TensorRT-RTX on sm_89 or newer",
        ),
    )
}


@dataclass(frozen=True, slots=True)
class _Floor:
    """From where on a backend runs a recipe."""

    architecture: int
    """As 89 for sm_89; 0 for a backend without targets."""
    version: tuple[int, int]


# By recipe and backend; a pair that is not here is refused. Read from the release notes of 10.x,
# for TensorRT-RTX from what 1.7.1 compiles.
_LEGAL: dict[tuple[str, str], _Floor] = {
    **{(name, "ort"): _Floor(0, (1, 20)) for name in RECIPES},
    ("int8", "tensorrt"): _Floor(75, (10, 0)),
    ("fp8", "tensorrt"): _Floor(89, (10, 0)),
    ("int4-weight", "tensorrt"): _Floor(80, (10, 0)),
    ("mixed", "tensorrt"): _Floor(80, (10, 0)),
    ("mixed", "tensorrt-rtx"): _Floor(80, (1, 0)),
    ("int8", "tensorrt-rtx"): _Floor(75, (1, 0)),
    ("fp8", "tensorrt-rtx"): _Floor(89, (1, 0)),
    ("int8-weight", "tensorrt-rtx"): _Floor(75, (1, 0)),
    ("int4-weight", "tensorrt-rtx"): _Floor(80, (1, 0)),
    ("kv-int8", "tensorrt-rtx"): _Floor(86, (1, 0)),
    ("kv-fp8", "tensorrt-rtx"): _Floor(89, (1, 0)),
}
_NEWER: dict[tuple[str, str, str], tuple[int, int]] = {("fp8", "tensorrt", "sm_110"): (10, 13)}
"""Targets that want a later release: its older ones build float32 without a word."""


def recipe_from_name(name: str) -> Recipe:
    """Return the recipe of this name.

    Raises:
        InputError: no such recipe; the message lists the names.
    """
    if name not in RECIPES:
        raise InputError(f"unknown recipe '{name}'; expected one of {', '.join(RECIPES)}")
    return RECIPES[name]


def check_recipe(
    recipe: Recipe,
    backend: str,
    target: str | None = None,
    version: str | None = None,
    *,
    is_in_place: bool = False,
) -> None:
    """Refuse a recipe that the backend has no kernels for on this architecture.

    Args:
        recipe: Of the bundle.
        backend: `ort`, `tensorrt` or `tensorrt-rtx`.
        target: As `sm_87`; None for a backend that has no targets.
        version: Of the backend, as `10.3.0`; None if it is not known.
        is_in_place: Do the graphs write memory in place?

    Raises:
        InputError: naming the recipes that this place does run.
    """
    if recipe.memory is not None and is_in_place and backend in TARGETS:
        raise InputError(
            f"found recipe {recipe.name} for {backend} and graphs that write memory in place; "
            "expected some that give new rows out: engines would copy all of memory in every call "
            "to join the window to it; export with --opset 20, and quantize that"
        )
    if _is_legal(recipe.name, backend, target, version):
        return
    where = " ".join(part for part in (backend, version, _place(target)) if part)
    able = [name for name in RECIPES if _is_legal(name, backend, target, version)]
    raise InputError(
        f"found recipe {recipe.name} for {where}; expected {recipe.needs}: quantize with "
        f"{' or '.join(able) or 'none: leave the bundle as exported'}, or choose another target"
    )


def wide_reason(recipe: Recipe, name: str, shape: tuple[int, int], num_layers: int) -> str | None:
    """Return why the weight of a product stays wide, or None if the recipe quantizes it.

    Args:
        recipe: Recipe.
        name: Of the weight in the weights file, without `.weight`.
        shape: Outputs and inputs.
        num_layers: Blocks of each transformer: the edge is counted from the real depth.
    """
    if recipe.weight is None:
        return f"{recipe.name} quantizes no product"
    found = _PROJECTION.fullmatch(name)
    if found is None:
        return "no projection of a block: embedding, modulation, head or encoder"
    layer, edge = int(found[1]), edge_blocks(num_layers)
    if layer < edge or layer >= num_layers - edge:
        return f"block {layer} of {num_layers}: the first and last {edge} stay wide"
    if min(shape) < _MIN_SIDE:
        return f"{shape[0]} outputs of {shape[1]} inputs: under {_MIN_SIDE} there is no kernel"
    if recipe.granularity == "block" and block_length(shape[1]) is None:
        return f"{shape[1]} inputs are no multiple of {BLOCKS[-1]}"
    if recipe.weight == "int4" and shape[0] % 2:
        return f"{shape[0]} outputs are odd: two int4 share a byte"
    return None


def edge_blocks(num_layers: int) -> int:
    """Return how many blocks stay wide at either end: 2 of 30, 1 of 18, 1 of 3, none of 2.

    Recipes for similar models spare 3 of 40 blocks by number; by number, the last blocks of a
    shallower model would not be spared at all.
    """
    return max(0, min(max(1, round(num_layers / _EDGE_SHARE)), (num_layers - 1) // 2))


def block_length(num_inputs: int) -> int | None:
    """Return how many inputs share one int4 scale, or None if no length fits."""
    return next((length for length in BLOCKS if num_inputs % length == 0), None)


def _is_legal(name: str, backend: str, target: str | None, version: str | None) -> bool:
    """Return whether a place runs a recipe; what is not known of it is not held against it."""
    floor = _LEGAL.get((name, backend))
    if floor is None:
        return False
    if target is not None:
        if target not in TARGETS.get(backend, ()):
            return False
        if int(target.removeprefix("sm_")) < floor.architecture:
            return False
    least = _NEWER.get((name, backend, target or ""), floor.version)
    return version is None or _numbers(version) >= least


def _numbers(version: str) -> tuple[int, ...]:
    """Return (10, 3, 0) for `10.3.0`."""
    return tuple(int(part) for part in re.findall(r"\d+", version))


def _place(target: str | None) -> str:
    """Return a target with the GPUs that it means."""
    return "" if target is None else f"on {target} ({ARCHITECTURES.get(target, 'unknown')})"
