"""The sizes of a model, read off the shapes of its weights."""

from collections.abc import Mapping

import msgspec

from memorywam_export.checkpoints.checkpoint import model_shapes
from memorywam_export.checkpoints.declared_contract import contract_value
from memorywam_export.checkpoints.name_patterns import NamePattern
from memorywam_export.checkpoints.weights import Weight
from memorywam_runtime.contract import (
    ActionSpace,
    ExpertSizes,
    InferenceContract,
    MemorySizes,
    Observations,
    VaeSizes,
)
from memorywam_runtime.errors import ContractError

__all__ = ["ATTENTION_WIDTH", "incomplete", "misfits", "sizes_from_weights"]

Shapes = Mapping[str, tuple[int, ...]]

ATTENTION_WIDTH = "num_heads x head_dim"
"""Weights tell the product alone."""

_AXES = {
    "video.hidden": ("mixtures.video.blocks.0.modulation", 2),
    "video.ffn": ("mixtures.video.blocks.0.ffn.0.weight", 0),
    "action.hidden": ("mixtures.action.blocks.0.modulation", 2),
    "action.ffn": ("mixtures.action.blocks.0.ffn.0.weight", 0),
    ATTENTION_WIDTH: ("mixtures.video.blocks.0.self_attn.q.weight", 0),
    "text_dim": ("mixtures.video.text_embedding.0.weight", 1),
    "time_dim": ("mixtures.video.time_embedding.0.weight", 1),
    "actions.action_dim": ("mixtures.action.action_encoder.weight", 1),
    "actions.state_dim": ("proprio_encoder.weight", 1),
    "vae.latent_channels": ("mixtures.video.patch_embedding.weight", 1),
}
"""Contract field to the weight and the axis that tell it."""
_BLOCK = NamePattern("mixtures.video.blocks.{i}.modulation")
_STAGE = "vae.encoder.downsamples.{}.downsamples.{}."


def sizes_from_weights(weights: Mapping[str, Weight]) -> dict[str, object]:
    """Return what the weights tell of a contract, by the path of the field.

    Args:
        weights: By our names; whichever there are.
    """
    shapes = {name: weight.shape for name, weight in weights.items()}
    found: dict[str, object] = {
        path: shapes[name][axis]
        for path, (name, axis) in _AXES.items()
        if len(shapes.get(name, ())) > axis
    }
    layers = [int(match["i"]) for name in shapes if (match := _BLOCK.match(name))]
    if layers:
        found["num_layers"] = 1 + max(layers)
        found["memory.num_gists"] = shapes.get("gist_tokens", (0,))[0]
    patch = shapes.get("mixtures.video.patch_embedding.weight", ())
    if len(patch) == 5:
        found["patch"] = patch[3:]
    return found | _encoder_sizes(shapes)


def misfits(sizes: Mapping[str, object], contract: InferenceContract) -> list[str]:
    """Return in which sizes a contract differs from the weights."""
    told = []
    for path, found in sizes.items():
        is_width = path == ATTENTION_WIDTH
        wanted = contract.attention_width if is_width else contract_value(contract, path)
        if wanted != found:
            told.append(f"{path} is {wanted}, found {found}")
    return told


def incomplete(
    weights: Mapping[str, Weight], sizes: Mapping[str, object]
) -> tuple[list[str], list[str]]:
    """Return which weights a model of these sizes has beside, and which are of another shape.

    The encoder counts only where one is there.

    Returns:
        Our names; and names with both shapes. Both are empty where the sizes make no model.
    """
    contract = _contract_of(sizes)
    if contract is None:
        return [], []
    has_encoder = any(name.startswith("vae.") for name in weights)
    wanted = {
        name: shape
        for name, shape in model_shapes(contract).items()
        if (has_encoder or not name.startswith("vae.")) and 0 not in shape
    }
    odd = [
        f"{name} {list(weights[name].shape)} (the others make {list(shape)})"
        for name, shape in wanted.items()
        if name in weights and weights[name].shape != shape
    ]
    return sorted(set(wanted) - set(weights)), odd


def _encoder_sizes(shapes: Shapes) -> dict[str, object]:
    """Return the sizes of the video encoder, if it is there."""
    first = shapes.get("vae.encoder.conv1.weight")
    if not first:
        return {}
    num_blocks = 0
    while f"{_STAGE.format(0, num_blocks)}residual.0.gamma" in shapes:
        num_blocks += 1
    multipliers: list[int] = []
    temporal: list[bool] = []
    while (last := f"{_STAGE.format(len(multipliers), num_blocks - 1)}residual.6.weight") in shapes:
        after = _STAGE.format(len(multipliers), num_blocks)
        temporal.append(f"{after}time_conv.weight" in shapes)
        multipliers.append(shapes[last][0] // first[0])
    return {
        "vae.base_channels": first[0],
        "vae.channel_multipliers": tuple(multipliers),
        "vae.num_res_blocks": num_blocks,
        "vae.temporal_downsample": tuple(temporal[:-1]),
    }


def _contract_of(sizes: Mapping[str, object]) -> InferenceContract | None:
    """Return a contract of these sizes, its conventions whatever they may be."""

    def size(path: str) -> int:
        value = sizes[path]
        assert isinstance(value, int)
        return value

    encoder = {
        path.removeprefix("vae."): value for path, value in sizes.items() if path.startswith("vae.")
    }
    try:
        patch = sizes["patch"]
        assert isinstance(patch, tuple)
        vae = msgspec.convert(encoder, VaeSizes)
        cell = vae.spatial_factor
        return InferenceContract(
            name="as found",
            video=ExpertSizes(hidden=size("video.hidden"), ffn=size("video.ffn")),
            action=ExpertSizes(hidden=size("action.hidden"), ffn=size("action.ffn")),
            num_layers=size("num_layers"),
            num_heads=1,
            head_dim=size(ATTENTION_WIDTH),
            text_dim=size("text_dim"),
            time_dim=size("time_dim"),
            patch=(patch[0], patch[1]),
            vae=vae,
            memory=MemorySizes(num_gists=size("memory.num_gists")),
            observations=Observations(
                cameras=("any",), mosaic="single", height=cell * patch[0], width=cell * patch[1]
            ),
            actions=ActionSpace(
                action_dim=size("actions.action_dim"), state_dim=size("actions.state_dim")
            ),
        )
    except (KeyError, msgspec.ValidationError, ContractError):
        return None
