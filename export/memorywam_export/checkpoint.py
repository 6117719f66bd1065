"""Read a checkpoint: its contract, every weight by name, statistics and prompt embeddings."""

import json
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import load_file

from memorywam_export.presets import contract_from_preset
from memorywam_export.reference.model import MemoryWam
from memorywam_export.weights import Weight, random_weights, weight_spans
from memorywam_runtime.contract import InferenceContract, contract_from_json
from memorywam_runtime.errors import CheckpointError, InputError
from memorywam_runtime.files import sha256_of
from memorywam_runtime.normalization import Affine, Normalization, normalization_from_stats

__all__ = ["Checkpoint", "checkpoint_from_argument", "is_unused", "model_shapes"]

WEIGHTS_FILE = "model.safetensors"
CONTRACT_FILE = "contract.json"
STATS_FILE = "dataset_stats.json"
PROMPTS_FILE = "prompts.safetensors"

_UNUSED_PREFIXES = (
    "mixtures.video.head.",  # predicts video, which inference never does
    "vae.decoder.",
    "vae.conv2.",  # latents to the decoder
)


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


def checkpoint_from_argument(
    argument: str,
    *,
    contract: InferenceContract | None = None,
    dtype: torch.dtype = torch.float32,
    stats_path: Path | None = None,
    vae_path: Path | None = None,
) -> Checkpoint:
    """Read what a user named.

    Args:
        argument: A `.pt` of the FastWAM family, a `.safetensors` file, a folder with one, or
            `random:PRESET[:SEED]`.
        contract: Needed where the checkpoint does not bring its own; else it must be the same.
        dtype: Of random weights.
        stats_path: `dataset_stats.json`, where it does not lie beside the weights.
        vae_path: `Wan2.2_VAE.pth`, where the encoder is not among the weights.

    Raises:
        CheckpointError: no such file, or weights that do not fit the contract; names listed.
        ContractError: an unknown preset or a bad contract file.
    """
    if argument.startswith("random:"):
        return _random(argument, dtype, contract)
    path = Path(argument)
    if not path.exists():
        raise CheckpointError(
            f"no checkpoint at {path}; expected a .pt, a .safetensors file or folder, or "
            "random:PRESET[:SEED]"
        )
    is_folder = path.is_dir()
    folder, tensors_path = (path, path / WEIGHTS_FILE) if is_folder else (path.parent, path)
    contract = _contract(folder, contract)
    weights_path = tensors_path if tensors_path.suffix == ".safetensors" else None
    if weights_path:
        weights = _from_safetensors(weights_path)
    elif tensors_path.suffix in (".pt", ".pth"):
        weights = _from_pt(tensors_path)
    else:
        raise CheckpointError(
            f"{tensors_path}: found suffix '{tensors_path.suffix}'; expected .pt or .safetensors"
        )
    if vae_path is not None:
        if any(name.startswith("vae.") for name in weights):
            raise CheckpointError(
                f"{tensors_path} holds an encoder, and {vae_path} was given too; expected one"
            )
        weights |= _prefixed("vae.", _load_pt(vae_path))
        weights_path = None
    used = _strict(weights, contract, tensors_path)
    stats = _json(stats_path or folder / STATS_FILE)
    return Checkpoint(
        name=path.name,
        sha256=sha256_of(tensors_path),
        contract=contract,
        weights=used,
        normalization=normalization_from_stats(stats, contract.actions),
        prompts=_prompts(folder / PROMPTS_FILE, contract),
        weights_path=weights_path if {w.name for w in used} == set(weights) else None,
    )


def model_shapes(contract: InferenceContract) -> dict[str, tuple[int, ...]]:
    """Return name and shape of every weight that inference uses."""
    with torch.device("meta"):
        model = MemoryWam(contract)
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def is_unused(name: str) -> bool:
    """Is this a weight that training has and inference never reads?"""
    return name.startswith(_UNUSED_PREFIXES)


def _random(
    argument: str, dtype: torch.dtype, given: InferenceContract | None = None
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
        prompts={"random": prompt.astype(np.float32)},
        weights_path=None,
    )


def _contract(folder: Path, given: InferenceContract | None) -> InferenceContract:
    """Return the checkpoint's contract, or the one given where it brings none."""
    path = folder / CONTRACT_FILE
    if not path.exists():
        if given is None:
            raise CheckpointError(
                f"{folder} has no {CONTRACT_FILE}: the conventions of these weights are unknown; "
                "pass --contract FILE or --preset NAME"
            )
        return given
    own = contract_from_json(path.read_bytes())
    if given is not None and given.hash != own.hash:
        raise CheckpointError(
            f"{path} is contract {own.hash[:12]}..., but {given.hash[:12]}... ('{given.name}') was "
            "asked for: these weights were trained with the former; leave the option out"
        )
    return own


def _from_safetensors(path: Path) -> dict[str, Weight]:
    """Return the weights of a safetensors file; each is read when it is needed."""

    def load(name: str) -> torch.Tensor:
        with safe_open(path, "pt") as file:
            tensor: torch.Tensor = file.get_tensor(name)
        return tensor

    return {
        name: Weight(name, span.shape, span.dtype, _Later(load, name))
        for name, span in weight_spans(path).items()
    }


def _from_pt(path: Path) -> dict[str, Weight]:
    """Return the weights of a FastWAM checkpoint: {mot, proprio_encoder, gist_tokens, ...}.

    `mot` holds `mixtures.*`; `step` and `torch_dtype` are not weights (FastWAM, `fastwam.py`).
    """
    content = _load_pt(path)
    if "mot" not in content:
        raise CheckpointError(
            f"{path}: found the keys {sorted(map(str, content))[:8]}; expected a FastWAM "
            "checkpoint with 'mot'"
        )
    weights = _prefixed("", content["mot"])
    for part in ("proprio_encoder", "vae"):
        if part in content:
            weights |= _prefixed(f"{part}.", content[part])
    if "gist_tokens" in content:
        weights |= _prefixed("", {"gist_tokens": content["gist_tokens"]})
    extra = set(content) - {"mot", "proprio_encoder", "vae", "gist_tokens", "step", "torch_dtype"}
    if extra:
        raise CheckpointError(f"{path}: unknown parts {sorted(map(str, extra))}; refused by name")
    return weights


def _load_pt(path: Path) -> dict[str, object]:
    """Read a torch file without running code from it; tensors stay mapped on disk."""
    try:
        # Files from before torch 1.6 are no zip archives, and cannot be mapped.
        mapped = zipfile.is_zipfile(path)
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except Exception as error:  # torch raises many kinds for damaged and for unsafe files
        # Torch's own text is a page that advises to load the file unsafely: keep the reason alone.
        lines = str(error).splitlines() or [type(error).__name__]
        reason = next((line for line in lines if "WeightsUnpickler" in line), lines[0])
        raise CheckpointError(
            f"{path} cannot be read as plain tensors: {reason.partition(' Please')[0].strip()}; it "
            "is damaged, or holds objects that would run code"
        ) from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: found {type(content).__name__}; expected a dictionary")
    return content


def _prefixed(prefix: str, part: object) -> dict[str, Weight]:
    """Return the tensors of one part of a torch file under their full names."""
    if not isinstance(part, Mapping):
        raise CheckpointError(f"part '{prefix}': found {type(part).__name__}; expected tensors")
    found = {}
    for name, tensor in part.items():
        if not isinstance(tensor, torch.Tensor):
            raise CheckpointError(f"'{prefix}{name}': found {type(tensor).__name__}, not a tensor")
        full = f"{prefix}{name}"
        found[full] = Weight(full, tuple(tensor.shape), tensor.dtype, _Later(_same, tensor))
    return found


def _strict(
    weights: Mapping[str, Weight], contract: InferenceContract, path: Path
) -> tuple[Weight, ...]:
    """Return exactly the weights that the model has; each other is unused by name or refused."""
    wanted = model_shapes(contract)
    has_gist = contract.memory.num_gists > 0
    empty = wanted["gist_tokens"]
    if not has_gist:
        del wanted["gist_tokens"]
        # A bank that holds something is left over: this contract would ignore what was trained.
        weights = {n: w for n, w in weights.items() if (n, w.shape) != ("gist_tokens", empty)}
    missing = sorted(set(wanted) - set(weights))
    extra = sorted(name for name in set(weights) - set(wanted) if not is_unused(name))
    wrong = [
        f"{name} {list(weights[name].shape)} (expected {list(shape)})"
        for name, shape in sorted(wanted.items())
        if name in weights and weights[name].shape != shape
    ]
    if missing or extra or wrong:
        raise CheckpointError(
            f"{path} does not fit contract '{contract.name}': "
            f"missing {_few(missing)}; left over {_few(extra)}; of another shape {_few(wrong)}"
        )
    found = [weights[name] for name in sorted(wanted)]
    if not has_gist:
        none = torch.zeros(empty, dtype=found[0].dtype)
        found.append(Weight("gist_tokens", empty, found[0].dtype, _Later(_same, none)))
    return tuple(found)


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


def _json(path: Path) -> object:
    """Return a parsed JSON file."""
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(
            f"cannot read {path}: {error}; expected FastWAM's dataset statistics: pass --stats FILE"
        ) from error


def _few(names: Iterable[str]) -> str:
    """Return the first names of a list, and how many more there are."""
    listed = list(names)
    more = f" and {len(listed) - 4} more" if len(listed) > 4 else ""
    return f"[{', '.join(listed[:4])}{more}]"


@dataclass(frozen=True, slots=True)
class _Later:
    """A call that is made when the tensor is needed."""

    function: object
    argument: object

    def __call__(self) -> torch.Tensor:
        """Return the tensor."""
        return self.function(self.argument)  # type: ignore[operator, no-any-return]


def _same(tensor: torch.Tensor) -> torch.Tensor:
    """Return the tensor."""
    return tensor
