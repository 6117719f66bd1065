"""Read a checkpoint: its contract, every weight by name, statistics and prompt embeddings."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file

from memorywam_export.checkpoints.checkpoint_files import TensorFile, few, tensor_file_from_path
from memorywam_export.checkpoints.checkpoint_json import read_contract, read_stats
from memorywam_export.checkpoints.declared_contract import check_declared
from memorywam_export.checkpoints.misfit import misfit_error
from memorywam_export.checkpoints.name_maps import MappedNames, NameMap, chosen_map
from memorywam_export.checkpoints.presets import contract_from_preset
from memorywam_export.checkpoints.text_cache import check_both, embeddings_from_cache
from memorywam_export.checkpoints.weights import TORCH_DTYPES, Weight, random_weights
from memorywam_export.reference.model import MemoryWam
from memorywam_runtime.contract import InferenceContract
from memorywam_runtime.errors import CheckpointError, InputError
from memorywam_runtime.files import sha256_of
from memorywam_runtime.normalization import Affine, Normalization, normalization_from_stats

__all__ = [
    "PROMPTS_FILE",
    "Checkpoint",
    "Companions",
    "checkpoint_from_argument",
    "contract_path_of",
    "model_shapes",
    "stats_path_of",
    "tensors_path_of",
    "weights_of_file",
]

WEIGHTS_FILE = "model.safetensors"
CONTRACT_FILE = "contract.json"
STATS_FILE = "dataset_stats.json"
PROMPTS_FILE = "prompts.safetensors"


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """Trained weights, still on disk, and all that was published with them."""

    name: str
    sha256: str
    contract: InferenceContract
    weights: tuple[Weight, ...]
    normalization: Normalization
    prompts: Mapping[str, NDArray[np.float32]]
    """Instruction to text embedding [tokens, text_dim]."""
    weights_path: Path | None
    """A safetensors file with exactly these weights, if there is one."""
    name_map: str = ""
    """The name map that the weights were read through; empty for random weights."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Companions:
    """What belongs to a checkpoint and does not lie in it, or not under the usual name."""

    stats_path: Path | None = None
    """`dataset_stats.json`, where it does not lie beside the weights."""
    vae_path: Path | None = None
    """`Wan2.2_VAE.pth`, where the encoder is not among the weights."""
    name_map: str | None = None
    """A name map's name or file; by default the one that recognises the checkpoint."""
    text_cache: Path | None = None
    """FastWAM's folder of text embeddings."""
    instructions: tuple[str, ...] = ()
    """To be taken from there."""


def checkpoint_from_argument(
    argument: str,
    *,
    contract: InferenceContract | None = None,
    dtype: torch.dtype = torch.float32,
    companions: Companions | None = None,
) -> Checkpoint:
    """Read what a user named.

    Args:
        argument: A `.pt` of the FastWAM family, a `.safetensors` file, a folder with one, or
            `random:PRESET[:SEED]`.
        contract: Needed where the checkpoint does not bring its own; else it must be the same.
        dtype: Of random weights.
        companions: What does not lie in the checkpoint.

    Raises:
        CheckpointError: no such file, no name map that fits, or weights that do not fit the
            contract; names listed.
        ContractError: an unknown preset or a bad contract file.
        InputError: a bad name map, or an instruction that the text cache does not hold.
    """
    beside = companions or Companions()
    check_both(beside.text_cache, beside.instructions)
    if argument.startswith("random:"):
        return _random(argument, dtype, contract, beside)
    path = Path(argument)
    tensors_path = tensors_path_of(path)
    contract = _contract(contract_path_of(path), contract)
    file = tensor_file_from_path(tensors_path)
    used, name_map = weights_of_file(file, contract, beside)
    whole = file.container == "safetensors" and beside.vae_path is None
    as_is = {w.name for w in used} == set(file.tensors)
    prompts = _prompts(tensors_path.parent / PROMPTS_FILE, contract)
    return Checkpoint(
        name=path.name,
        sha256=sha256_of(tensors_path),
        contract=contract,
        weights=used,
        normalization=normalization_from_stats(
            read_stats(beside.stats_path or stats_path_of(tensors_path)), contract.actions
        ),
        prompts=prompts | _from_cache(beside, contract),
        weights_path=tensors_path if whole and as_is else None,
        name_map=name_map.name,
    )


def weights_of_file(
    file: TensorFile, contract: InferenceContract, companions: Companions
) -> tuple[tuple[Weight, ...], NameMap]:
    """Return exactly the weights that a contract's model has, and the map that names them.

    Args:
        file: The checkpoint's tensors.
        contract: What they should fit.
        companions: Gives the name map and the encoder, where they are not the checkpoint's own.

    Raises:
        CheckpointError: no name map that fits, or weights that do not fit; names listed.
        InputError: a bad name map.
    """
    name_map, prefix = chosen_map(file, companions.name_map)
    _check_depth(contract, file)
    shapes = model_shapes(contract)
    name_map.check_bijective(shapes)
    check_declared(file, name_map, contract)
    found = name_map.applied(file, prefix)
    if companions.vae_path is not None:
        found = _with_encoder(found, file, companions.vae_path)
    return _strict(found, shapes, contract, file, name_map, prefix), name_map


def _check_depth(contract: InferenceContract, file: TensorFile) -> None:
    """Refuse a contract of far more layers than the file has tensors, before they are made."""
    vae = contract.vae
    num_layers = contract.num_layers + len(vae.channel_multipliers) * vae.num_res_blocks
    most = 64 + len(file.tensors)
    if num_layers > most:
        raise CheckpointError(
            f"{file.path} has {len(file.tensors)} tensors; contract '{contract.name}' has "
            f"{num_layers:,} layers and blocks: pass that of these weights with --contract FILE"
        )


def tensors_path_of(path: Path) -> Path:
    """Return the file of weights that a file or folder stands for.

    Raises:
        CheckpointError: nothing is there, or a folder without `model.safetensors`.
    """
    if not path.exists():
        raise CheckpointError(
            f"no checkpoint at {path}; expected a .pt, a .safetensors file or folder, or "
            "random:PRESET[:SEED]"
        )
    if not path.is_dir():
        return path
    if not (path / WEIGHTS_FILE).is_file():
        files = sorted(p.name for p in path.iterdir() if p.suffix in (".pt", ".safetensors"))
        raise CheckpointError(
            f"{path} has no {WEIGHTS_FILE}; found {few(files)}; name the file of weights itself"
        )
    return path / WEIGHTS_FILE


def contract_path_of(path: Path) -> Path:
    """Return where the contract of a file or folder would lie."""
    return (path if path.is_dir() else path.parent) / CONTRACT_FILE


def stats_path_of(tensors_path: Path) -> Path:
    """Return where a checkpoint's statistics lie: `<its name>_dataset_stats.json`, or plain."""
    own = tensors_path.with_name(f"{tensors_path.stem}_{STATS_FILE}")
    return own if own.is_file() else tensors_path.with_name(STATS_FILE)


def model_shapes(contract: InferenceContract) -> dict[str, tuple[int, ...]]:
    """Return name and shape of every weight that inference uses."""
    with torch.device("meta"):
        model = MemoryWam(contract)
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def _random(
    argument: str, dtype: torch.dtype, given: InferenceContract | None, beside: Companions
) -> Checkpoint:
    """Return random weights of a preset's size, with a normalization that changes nothing."""
    _, _, rest = argument.partition(":")
    preset, _, seed_text = rest.partition(":")
    if seed_text and not seed_text.isdecimal():
        raise InputError(f"found seed '{seed_text}' in '{argument}'; expected random:PRESET[:SEED]")
    contract = contract_from_preset(preset)
    if given is not None and given.hash != contract.hash:
        raise CheckpointError(
            f"'{argument}' is contract {contract.hash[:12]}..., but {given.hash[:12]}... "
            f"('{given.name}') was asked for: leave one of the two out"
        )
    shapes = model_shapes(contract)
    actions = contract.actions

    def unit(size: int) -> Affine:
        return Affine(scale=(1.0,) * size, offset=(0.0,) * size, clamp=actions.clamp)

    seed = int(seed_text or 0)
    shape = (min(8, contract.conventions.text_len), contract.text_dim)
    prompt = np.random.default_rng(seed).standard_normal(shape)
    return Checkpoint(
        name=argument,
        sha256="",
        contract=contract,
        weights=tuple(random_weights(shapes.items(), dtype, seed)),
        normalization=Normalization(state=unit(actions.state_dim), action=unit(actions.action_dim)),
        prompts={"random": prompt.astype(np.float32)} | _from_cache(beside, contract),
        weights_path=None,
    )


def _contract(path: Path, given: InferenceContract | None) -> InferenceContract:
    """Return the checkpoint's contract, or the one given where it brings none."""
    if not path.exists():
        if given is None:
            raise CheckpointError(
                f"{path.parent} has no {CONTRACT_FILE}: the conventions of these weights are "
                "unknown; pass --contract FILE or --preset NAME; --describe says which sizes fit"
            )
        return given
    own = read_contract(path)
    if given is not None and given.hash != own.hash:
        raise CheckpointError(
            f"{path} is contract {own.hash[:12]}..., but {given.hash[:12]}... ('{given.name}') was "
            "asked for: these weights were trained with the former; leave the option out"
        )
    return own


def _with_encoder(found: MappedNames, file: TensorFile, vae_path: Path) -> MappedNames:
    """Return the names of a checkpoint and of an encoder that lies apart.

    Raises:
        CheckpointError: the checkpoint holds an encoder too, or the other file is none.
    """
    if any(name.startswith("vae.") for name in found.weights):
        raise CheckpointError(
            f"{file.path} holds an encoder, and {vae_path} was given too; expected one"
        )
    vae_file = tensor_file_from_path(vae_path)
    name_map, prefix = chosen_map(vae_file, None, "encoder")
    encoder = name_map.applied(vae_file, prefix)
    return MappedNames(
        weights=found.weights | encoder.weights,
        upstream=found.upstream | encoder.upstream,
        unused=found.unused | encoder.unused,
        refused=found.refused | encoder.refused,
        unknown=found.unknown + encoder.unknown,
    )


def _strict(
    found: MappedNames,
    shapes: Mapping[str, tuple[int, ...]],
    contract: InferenceContract,
    file: TensorFile,
    name_map: NameMap,
    prefix: str,
) -> tuple[Weight, ...]:
    """Return exactly the weights that the model has; each other is unused by name or refused."""
    for name, why in found.refused.items():
        raise CheckpointError(f"{file.path}: '{name}' is refused: {why}")
    wanted = dict(shapes)
    weights = dict(found.weights)
    has_gist = contract.memory.num_gists > 0
    empty = wanted["gist_tokens"]
    if not has_gist:
        del wanted["gist_tokens"]
        # A bank that holds something is left over: this contract would ignore what was trained.
        if "gist_tokens" in weights and weights["gist_tokens"].shape == empty:
            del weights["gist_tokens"]
    lacking = sorted(set(wanted) - set(weights))
    extra = [found.upstream[name] for name in set(weights) - set(wanted)] + found.unknown
    wrong = [
        f"{found.upstream[name]} {list(weights[name].shape)} (expected {list(shape)})"
        for name, shape in sorted(wanted.items())
        if name in weights and weights[name].shape != shape
    ]
    wrong += [
        f"{found.upstream[name]} {weights[name].dtype} (expected floats of 2, 4 or 8 bytes)"
        for name in sorted(set(wanted) & set(weights))
        if weights[name].dtype not in TORCH_DTYPES.values()
    ]
    if lacking or extra or wrong:
        raise misfit_error(
            file.path,
            missing={name: _in_file(name, name_map, prefix) for name in lacking},
            extra=sorted(extra),
            wrong=wrong,
            of=f"contract '{contract.name}' (name map '{name_map.name}')",
        )
    chosen = [weights[name] for name in sorted(wanted)]
    if not has_gist:
        none = torch.zeros(empty, dtype=chosen[0].dtype)
        chosen.append(Weight("gist_tokens", empty, chosen[0].dtype, partial(torch.clone, none)))
    return tuple(chosen)


def _in_file(name: str, name_map: NameMap, prefix: str) -> str:
    """Return what a weight of ours would be called in the file."""
    upstream = name_map.upstream_of(name)
    return name if upstream is None else prefix + upstream


def _from_cache(beside: Companions, contract: InferenceContract) -> dict[str, NDArray[np.float32]]:
    """Return the embeddings of the instructions that were asked for."""
    if beside.text_cache is None:
        return {}
    return embeddings_from_cache(beside.text_cache, beside.instructions, contract)


def _prompts(path: Path, contract: InferenceContract) -> dict[str, NDArray[np.float32]]:
    """Return the embeddings that came with the checkpoint, if any."""
    if not path.exists():
        return {}
    try:
        prompts = load_file(path)
    except Exception as error:  # safetensors raises an exception class of its own
        raise CheckpointError(f"{path} is not a whole safetensors file: {error}") from error
    for text, rows in prompts.items():
        if rows.ndim != 2 or rows.shape[1] != contract.text_dim or not np.isfinite(rows).all():
            raise CheckpointError(
                f"{path}: '{text}' is {list(rows.shape)}; expected finite rows of "
                f"{contract.text_dim}"
            )
    return prompts
