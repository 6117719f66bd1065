"""What a file is, and what an export would make of it, from names and shapes alone."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from memorywam_export.checkpoints.checkpoint import (
    PROMPTS_FILE,
    Companions,
    checkpoint_from_argument,
    contract_path_of,
    stats_path_of,
    tensors_path_of,
    weights_of_file,
)
from memorywam_export.checkpoints.checkpoint_files import TensorFile, tensor_file_from_path
from memorywam_export.checkpoints.checkpoint_json import read_contract, read_stats
from memorywam_export.checkpoints.declared_contract import undeclared_names
from memorywam_export.checkpoints.describe_fields import FieldAnswer, field_answers
from memorywam_export.checkpoints.describe_kinds import kind_of_file, kind_of_folder
from memorywam_export.checkpoints.describe_sizes import incomplete, misfits, sizes_from_weights
from memorywam_export.checkpoints.name_maps import MappedNames, NameMap, chosen_map, recognised_maps
from memorywam_export.checkpoints.presets import PRESETS
from memorywam_export.checkpoints.weights import Weight
from memorywam_runtime.bundle import MANIFEST_FILE
from memorywam_runtime.contract import ActionSpace, InferenceContract
from memorywam_runtime.errors import CheckpointError
from memorywam_runtime.normalization import normalization_from_stats

__all__ = ["Description", "Need", "Part", "description_of"]

_PARTS = {
    "mixtures.video.": "video expert",
    "mixtures.action.": "action expert",
    "gist_tokens": "gist bank",
    "proprio_encoder.": "state encoder",
    "vae.": "video encoder",
}
"""How our names begin, and the part that they belong to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Tensors that belong together."""

    name: str
    use: str
    """`used`, or why not."""
    num_tensors: int
    num_parameters: int
    dtypes: tuple[str, ...]
    num_bytes: int
    names: tuple[str, ...]
    """The file's names; empty where they are used."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """Something an export needs."""

    what: str
    found: str
    """Where it is; empty where it is missing."""
    todo: str
    """How it is given, where it is missing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """All that can be told of a file or folder without a contract."""

    path: str
    kind: str
    is_checkpoint: bool
    hint: str = ""
    name_map: str = ""
    is_certain: bool = True
    """Whether upstream's published code has all names of the map."""
    container: str = ""
    num_bytes: int = 0
    declared: Mapping[str, object] = field(default_factory=dict[str, object])
    not_compared: tuple[str, ...] = ()
    """Declared values that no field of a contract is compared with."""
    parts: tuple[Part, ...] = ()
    missing_tensors: tuple[str, ...] = ()
    odd_shapes: tuple[str, ...] = ()
    needs: tuple[Need, ...] = ()
    misfit: str = ""
    """What keeps the weights from fitting the contract, if there is one."""
    sizes: Mapping[str, object] = field(default_factory=dict[str, object])
    presets: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])
    """Preset to what keeps it from fitting; empty where it fits."""
    fields: tuple[FieldAnswer, ...] = ()


def description_of(
    argument: str,
    companions: Companions | None = None,
    contract: InferenceContract | None = None,
) -> Description:
    """Describe a file or folder; only names, shapes and types are read.

    Args:
        argument: A checkpoint, or whatever else may have been taken for one.
        companions: What does not lie in it; the same as an export takes.
        contract: To say whether the weights fit it; by default the one that lies beside.

    Raises:
        CheckpointError: nothing is there, or the file is damaged.
        InputError: a bad name map.
    """
    beside = companions or Companions()
    if argument.startswith("random:"):
        return _of_random(argument)
    path = Path(argument)
    if path.is_dir() and not (path / "model.safetensors").is_file():
        kind, hint = kind_of_folder(path)
        return Description(path=str(path), kind=kind, is_checkpoint=False, hint=hint)
    file = tensor_file_from_path(tensors_path_of(path))
    in_bundle = (file.path.parent / MANIFEST_FILE).is_file()
    if in_bundle or (beside.name_map is None and not recognised_maps(file)):
        kind, hint = kind_of_file(file)
        return Description(
            path=str(path),
            kind=kind,
            is_checkpoint=False,
            hint=hint,
            container=file.container,
            num_bytes=file.path.stat().st_size,
            parts=_other_parts("tensors", "not used", file.tensors, sorted(file.tensors)),
        )
    return _of_checkpoint(path, file, beside, contract)


def _of_random(argument: str) -> Description:
    """Describe random weights of a preset's size."""
    weights = {weight.name: weight for weight in checkpoint_from_argument(argument).weights}
    sizes = sizes_from_weights(weights)
    return Description(
        path=argument,
        kind="random weights",
        is_checkpoint=True,
        hint="for benchmarks and tests of scale; they lack nothing",
        parts=_used_parts(weights),
        sizes=sizes,
        presets=_preset_misfits(sizes),
    )


def _of_checkpoint(
    path: Path, file: TensorFile, beside: Companions, contract: InferenceContract | None
) -> Description:
    """Describe a checkpoint that a name map recognises."""
    own = contract_path_of(file.path)
    if contract is None and own.is_file():
        contract = read_contract(own)
    name_map, prefix = chosen_map(file, beside.name_map)
    found = name_map.applied(file, prefix)
    weights = dict(found.weights)
    if beside.vae_path is not None:
        vae_file = tensor_file_from_path(beside.vae_path)
        encoder_map, vae_prefix = chosen_map(vae_file, None, "encoder")
        weights |= encoder_map.applied(vae_file, vae_prefix).weights
    sizes = sizes_from_weights(weights)
    missing, odd = incomplete(weights, sizes)
    return Description(
        path=str(path),
        kind=name_map.file.family,
        is_checkpoint=True,
        hint=name_map.file.note,
        name_map=name_map.name,
        is_certain=name_map.file.certain,
        container=file.container,
        num_bytes=file.path.stat().st_size,
        declared=_plain_values(file, name_map),
        not_compared=tuple(undeclared_names(file, name_map)),
        parts=_parts(file, found),
        missing_tensors=tuple(missing),
        odd_shapes=tuple(odd),
        needs=tuple(_needs(file, weights, sizes, beside, contract)),
        misfit="" if contract is None else _misfit(file, weights, beside, contract),
        sizes=sizes,
        presets=_preset_misfits(sizes),
        fields=tuple(field_answers(sizes, file, name_map, contract)),
    )


def _plain_values(file: TensorFile, name_map: NameMap) -> dict[str, object]:
    """Return what a checkpoint declares, less the state of an optimizer."""
    unused = [entry.upstream.partition(".")[0] for entry in name_map.file.unused]
    return {
        name: value if isinstance(value, bool | int | float | str | None) else str(value)
        for name, value in file.values.items()
        if name.partition(".")[0] not in unused
    }


def _preset_misfits(sizes: Mapping[str, object]) -> dict[str, tuple[str, ...]]:
    """Return of each preset what keeps it from fitting."""
    return {name: tuple(misfits(sizes, preset)) for name, preset in PRESETS.items()}


def _used_parts(weights: Mapping[str, Weight]) -> tuple[Part, ...]:
    """Return weights of ours by the part of the model that they belong to."""
    grouped = {
        name: [weight for ours, weight in weights.items() if ours.startswith(start)]
        for start, name in _PARTS.items()
    }
    return tuple(_part(name, "used", group, ()) for name, group in grouped.items() if group)


def _parts(file: TensorFile, found: MappedNames) -> tuple[Part, ...]:
    """Return the tensors of a checkpoint by what becomes of them."""
    parts = list(_used_parts(found.weights))
    whys: dict[str, list[str]] = {}
    for name, why in found.unused.items():
        whys.setdefault(f"not used: {why}", []).append(name)
    for name, why in found.refused.items():
        whys.setdefault(f"refused: {why}", []).append(name)
    if found.unknown:
        whys["refused: the name map does not have these names"] = found.unknown
    for why, names in whys.items():
        kind = "left out" if why.startswith("not used") else "in the way"
        parts += _other_parts(kind, why, file.tensors, sorted(names))
    return tuple(parts)


def _other_parts(
    name: str, use: str, tensors: Mapping[str, Weight], names: list[str]
) -> tuple[Part, ...]:
    """Return names that are not used as one part; those that are no tensors weigh nothing."""
    weights = [tensors[each] for each in names if each in tensors]
    return (_part(name, use, weights, tuple(names)),) if names else ()


def _part(name: str, use: str, weights: Iterable[Weight], names: tuple[str, ...]) -> Part:
    """Return tensors that belong together, counted."""
    weights = list(weights)
    counts = [math.prod(weight.shape) for weight in weights]
    return Part(
        name=name,
        use=use,
        num_tensors=len(weights),
        num_parameters=sum(counts),
        dtypes=tuple(sorted({str(w.dtype).removeprefix("torch.") for w in weights})),
        num_bytes=sum(n * w.dtype.itemsize for n, w in zip(counts, weights, strict=True)),
        names=names,
    )


def _needs(
    file: TensorFile,
    weights: Mapping[str, Weight],
    sizes: Mapping[str, object],
    beside: Companions,
    contract: InferenceContract | None,
) -> list[Need]:
    """Return what an export needs, and whether it is there."""
    fitting = [name for name, preset in PRESETS.items() if not misfits(sizes, preset)]
    prompts = file.path.parent / PROMPTS_FILE
    has_encoder = any(name.startswith("vae.") for name in weights)
    encoder = str(beside.vae_path) if beside.vae_path else "among the weights"
    instructions = str(prompts) if prompts.is_file() else ""
    if beside.text_cache is not None:
        instructions = f"{beside.text_cache}, {kind_of_folder(beside.text_cache)[1]}"
    return [
        Need(
            what="contract",
            found=f"'{contract.name}' {contract.hash[:12]}" if contract else "",
            todo="--contract FILE or --preset NAME; presets of these sizes: "
            f"{', '.join(fitting) or 'none'}",
        ),
        Need(
            what="statistics",
            found=_stats_found(beside.stats_path or stats_path_of(file.path), sizes),
            todo="--stats FILE, FastWAM's dataset_stats.json",
        ),
        Need(
            what="video encoder",
            found=encoder if has_encoder else "",
            todo="--vae FILE, Wan2.2_VAE.pth",
        ),
        Need(
            what="instructions",
            found=instructions,
            todo='--text-cache DIR --instruction "text", or later with `memorywam prompt`',
        ),
    ]


def _misfit(
    file: TensorFile, weights: Mapping[str, Weight], beside: Companions, contract: InferenceContract
) -> str:
    """Say what keeps weights from fitting a contract; nothing if they fit.

    Without an encoder only the sizes are compared: that it is missing is told apart.
    """
    if not any(name.startswith("vae.") for name in weights):
        return "; ".join(misfits(sizes_from_weights(weights), contract))
    try:
        weights_of_file(file, contract, beside)
    except CheckpointError as error:
        return str(error)
    return ""


def _stats_found(path: Path, sizes: Mapping[str, object]) -> str:
    """Say for which normalizations there are statistics of a checkpoint's sizes."""
    if not path.is_file():
        return ""
    try:
        stats = read_stats(path)
    except CheckpointError as error:
        return f"{path}, unreadable: {error}"
    modes: tuple[Literal["zscore", "minmax", "quantile"], ...] = ("zscore", "minmax", "quantile")
    complaints = {mode: _complaint(stats, mode, sizes) for mode in modes}
    fitting = [mode for mode, complaint in complaints.items() if not complaint]
    return f"{path}, " + (f"for {', '.join(fitting)}" if fitting else complaints["zscore"])


def _complaint(
    stats: object, mode: Literal["zscore", "minmax", "quantile"], sizes: Mapping[str, object]
) -> str:
    """Say what keeps statistics from normalizing vectors of a checkpoint's sizes."""
    action_dim, state_dim = (sizes.get(f"actions.{name}_dim", 1) for name in ("action", "state"))
    assert isinstance(action_dim, int)
    assert isinstance(state_dim, int)
    actions = ActionSpace(action_dim=action_dim, state_dim=state_dim, normalization=mode)
    try:
        normalization_from_stats(stats, actions)
    except CheckpointError as error:
        return str(error)
    return ""
