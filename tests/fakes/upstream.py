"""Files as upstream projects write them: names, shapes and nesting of their own."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from tests.fakes.checkpoints import tensors_of

from memorywam_export.checkpoints.name_maps import shipped_maps
from memorywam_runtime.contract import InferenceContract, VaeSizes

__all__ = [
    "DECLARED",
    "decoder_shapes",
    "nested",
    "parts_of",
    "vae_tensors",
    "write_cache_entry",
    "write_fastwam",
    "write_upstream_stats",
]

TEMPLATE = "A video recorded from a robot's point of view executing the following instruction: {}"

DECLARED: dict[str, object] = {
    "video_scheduler_shift": 5.0,
    "action_scheduler_shift": 1.0,
    "video_num_train_timesteps": 1000,
    "action_num_train_timesteps": 1000,
    "video_attention_mask_mode": "first_frame_causal",
    "full_kv_cache": True,
    "native_cache_mode": "layerwise",
    "memory_tokens": 2,
    "dynamic_tokens_per_frame": None,
    "anchor_frames": 2,
    "recent_frames": 3,
    "reader_use_anchor": True,
    "reader_use_memory": True,
    "reader_use_recent": True,
    "variable_rate_rule": None,
    "memory_allocation_rule": None,
}
"""What Mem-WAM's trainer declares of a checkpoint with slots, for the contract `tiny`."""


def decoder_shapes(sizes: VaeSizes, base: int = 256) -> dict[str, tuple[int, ...]]:
    """Return the decoder of `Wan2.2_VAE.pth` and `conv2`, which inference never reads."""
    widths = [base * m for m in (sizes.channel_multipliers[-1], *sizes.channel_multipliers[::-1])]
    shapes: dict[str, tuple[int, ...]] = {}

    def conv(name: str, rows: int, columns: int, *kernel: int) -> None:
        shapes[f"{name}.weight"] = (rows, columns, *kernel)
        shapes[f"{name}.bias"] = (rows,)

    def residual(name: str, before: int, after: int) -> None:
        shapes[f"{name}.residual.0.gamma"] = (before, 1, 1, 1)
        conv(f"{name}.residual.2", after, before, 3, 3, 3)
        shapes[f"{name}.residual.3.gamma"] = (after, 1, 1, 1)
        conv(f"{name}.residual.6", after, after, 3, 3, 3)
        if before != after:
            conv(f"{name}.shortcut", after, before, 1, 1, 1)

    channels = sizes.latent_channels
    conv("conv2", channels, channels, 1, 1, 1)
    conv("decoder.conv1", widths[0], channels, 3, 3, 3)
    residual("decoder.middle.0", widths[0], widths[0])
    shapes["decoder.middle.1.norm.gamma"] = (widths[0], 1, 1)
    conv("decoder.middle.1.to_qkv", 3 * widths[0], widths[0], 1, 1)
    conv("decoder.middle.1.proj", widths[0], widths[0], 1, 1)
    residual("decoder.middle.2", widths[0], widths[0])
    upsample = (*sizes.temporal_downsample[::-1], None)
    for stage, (before, after, temporal) in enumerate(
        zip(widths[:-1], widths[1:], upsample, strict=True)
    ):
        name = f"decoder.upsamples.{stage}.upsamples"
        for block in range(sizes.num_res_blocks + 1):
            residual(f"{name}.{block}", before if block == 0 else after, after)
        if temporal is not None:
            conv(f"{name}.{sizes.num_res_blocks + 1}.resample.1", after, after, 3, 3)
        if temporal:
            conv(f"{name}.{sizes.num_res_blocks + 1}.time_conv", 2 * after, after, 3, 1, 1)
    shapes["decoder.head.0.gamma"] = (widths[-1], 1, 1, 1)
    conv("decoder.head.2", 12, widths[-1], 3, 3, 3)
    return shapes


def vae_tensors(
    contract: InferenceContract, tensors: Mapping[str, torch.Tensor], base: int = 4
) -> dict[str, torch.Tensor]:
    """Return `Wan2.2_VAE.pth` with our encoder and a decoder of zeros."""
    ours = {n.removeprefix("vae."): t for n, t in tensors.items() if n.startswith("vae.")}
    shapes = decoder_shapes(contract.vae, base)
    return ours | {name: torch.zeros(shape) for name, shape in shapes.items()}


def nested(flat: Mapping[str, object], *parts: str) -> dict[str, Any]:
    """Return flat names as nested dictionaries: each part is one, all else stays as it is."""
    found: dict[str, Any] = {}
    for name, value in flat.items():
        part = next((p for p in parts if name.startswith(f"{p}.")), None)
        if part is None:
            found[name] = value
        else:
            found.setdefault(part, {})[name.removeprefix(f"{part}.")] = value
    return found


def parts_of(
    name_map: str, tensors: Mapping[str, torch.Tensor], hidden: int = 24
) -> dict[str, Any]:
    """Return tensors of ours as the checkpoint that a name map is for, less the encoder."""
    ours = {n: t for n, t in tensors.items() if not n.startswith("vae.")}
    flat: dict[str, object] = dict(shipped_maps()[name_map].renamed(ours))
    apart = {"memorywam-robomme": "video_expert", "memorywam": "mixtures.video"}
    head = apart.get(name_map, "mot.mixtures.video")
    flat |= {
        # What upstream has beside: the video head, which predicts pictures.
        f"{head}.head.head.weight": torch.zeros(24, hidden),
        f"{head}.head.head.bias": torch.zeros(24),
        f"{head}.head.modulation": torch.zeros(1, 2, hidden),
        "step": 10_000,
        "torch_dtype": "torch.bfloat16",
    }
    if name_map.startswith("mem-wam"):
        flat |= {f"inference_contract.{name}": value for name, value in DECLARED.items()}
    return nested(
        flat,
        "mot",
        "proprio_encoder",
        "video_expert",
        "action_expert",
        "layerwise_block_memory",
        "inference_contract",
    )


def write_cache_entry(
    folder: Path, instruction: str, rows: torch.Tensor, text_len: int, **changes: Any
) -> Path:
    """Write one entry of FastWAM's text cache; rows past the prompt hold what the encoder gave."""
    folder.mkdir(exist_ok=True)
    digest = hashlib.sha256(TEMPLATE.format(instruction).encode("utf-8")).hexdigest()
    path = folder / f"{digest}.t5_len{text_len}.wan22ti2v5b.pt"
    context = torch.full((text_len, rows.shape[1]), 7.0, dtype=rows.dtype)
    context[: len(rows)] = rows
    content = {"context": context, "mask": torch.arange(text_len) < len(rows)} | changes
    torch.save(content, path)
    return path


def write_upstream_stats(folder: Path, contract: InferenceContract) -> None:
    """Write dataset_stats.json with every field that FastWAM's datasets write."""
    figures = {"min": -1.5, "max": 2.5, "mean": 0.5, "std": 2.0, "q01": -1.0, "q99": 2.0}

    def group(size: int) -> dict[str, dict[str, object]]:
        fields: dict[str, object] = {}
        for name, value in figures.items():
            fields[f"global_{name}"] = [value] * size
            fields[f"stepwise_{name}"] = [[value] * size] * 4
        return {"default": fields}

    stats = {
        "state": group(contract.actions.state_dim),
        "action": group(contract.actions.action_dim),
        "num_episodes": 50,
        "num_transition": 12_345,
    }
    (folder / "dataset_stats.json").write_text(json.dumps(stats))


def write_fastwam(folder: Path, contract: InferenceContract) -> dict[str, torch.Tensor]:
    """Write step_010000.pt, dataset_stats.json and Wan2.2_VAE.pth; return the weights."""
    tensors = tensors_of(contract)
    if not contract.memory.num_gists:
        del tensors["gist_tokens"]
    torch.save(parts_of("fastwam", tensors), folder / "step_010000.pt")
    torch.save(vae_tensors(contract, tensors), folder / "Wan2.2_VAE.pth")
    write_upstream_stats(folder, contract)
    return tensors
