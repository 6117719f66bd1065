"""What a file or folder is that holds no checkpoint."""

from pathlib import Path

from memorywam_export.checkpoints.checkpoint_files import TensorFile, few
from memorywam_export.checkpoints.name_maps import recognised_maps
from memorywam_export.checkpoints.name_patterns import NamePattern
from memorywam_runtime.bundle import MANIFEST_FILE

__all__ = ["kind_of_file", "kind_of_folder"]

_KINDS: tuple[tuple[str, str, tuple[tuple[str, ...], ...]], ...] = (
    (
        "text embedding",
        "one entry of FastWAM's text cache; pass its folder with --text-cache DIR",
        (("context",), ("mask",)),
    ),
    (
        "LoRA",
        "low-rank changes to a model's weights; merge them into the checkpoint first",
        (("{rest}.lora_A.weight", "{rest}.lora_A.default.weight", "{rest}.lora_down.weight"),),
    ),
    (
        "optimizer state",
        "what resumes a training, without weights; name the checkpoint beside it",
        (("param_groups", "optimizer.param_groups", "state.{i}.{rest}"),),
    ),
    (
        "video expert alone",
        "FastWAM's older form, whose part `dit` has no action expert",
        (("dit.blocks.{i}.modulation", "dit.patch_embedding.{rest}"),),
    ),
    (
        "Wan video transformer",
        "what FastWAM starts from; it has no action expert",
        (("blocks.{i}.self_attn.q.weight",), ("patch_embedding.weight",)),
    ),
    (
        "LingBot-VA or diffusers transformer",
        "another architecture, whose actions run through the video transformer",
        (("blocks.{i}.attn1.to_q.weight",),),
    ),
    (
        "text encoder",
        "umT5; pass its transformers folder with --encoder DIR to `memorywam prompt`",
        (
            ("token_embedding.weight", "shared.weight", "encoder.embed_tokens.weight"),
            ("blocks.{i}.attn.q.weight", "encoder.block.{i}.layer.{rest}"),
        ),
    ),
)
"""A kind, what to do with it, and its marks: one name of each group is there."""


def kind_of_file(file: TensorFile) -> tuple[str, str]:
    """Say what a file of tensors is that no checkpoint's name map recognises.

    Returns:
        The kind, and what to do with it.
    """
    if (file.path.parent / MANIFEST_FILE).is_file():
        return "part of a bundle", "its folder is the export already"
    encoders = recognised_maps(file, "encoder")
    if encoders:
        return encoders[0].file.family, "pass it with --vae FILE beside a checkpoint"
    for kind, what, groups in _KINDS:
        if all(_has_one(group, file) for group in groups):
            return kind, what
    return "unknown", f"found the names {few(sorted(file.names))}; name a map with --name-map FILE"


def kind_of_folder(folder: Path) -> tuple[str, str]:
    """Say what a folder is that holds no `model.safetensors`.

    Returns:
        The kind, and what to do with it.
    """
    names = sorted(path.name for path in folder.iterdir())
    if MANIFEST_FILE in names:
        return "bundle", "the export already; `memorywam inspect` tells what it holds"
    if entries := [name for name in names if ".t5_len" in name]:
        return "text cache", f"{len(entries)} entries; pass it with --text-cache DIR"
    if index := [name for name in names if name.endswith(".safetensors.index.json")]:
        return "weights in several files", f"{index[0]}: join them into one model.safetensors first"
    files = [name for name in names if name.endswith((".pt", ".pth", ".safetensors"))]
    if files:
        return "folder", f"it has no model.safetensors; name one of {few(files)}"
    return "folder without weights", f"found {few(names)}"


def _has_one(group: tuple[str, ...], file: TensorFile) -> bool:
    """Has the file a name of one of these forms?"""
    patterns = [NamePattern(text, {}) for text in group]
    return any(pattern.match(name) is not None for pattern in patterns for name in file.names)
