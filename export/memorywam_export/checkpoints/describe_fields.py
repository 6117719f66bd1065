"""The fields of a contract: which a checkpoint tells, and which it must be told."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from memorywam_export.checkpoints.checkpoint_files import TensorFile
from memorywam_export.checkpoints.declared_contract import contract_value
from memorywam_export.checkpoints.describe_sizes import ATTENTION_WIDTH
from memorywam_export.checkpoints.name_maps import NameMap
from memorywam_runtime.contract import InferenceContract

__all__ = ["FieldAnswer", "field_answers"]

_HINTS = {
    "vae.latent_mean": "numbers that Wan2.2 publishes beside its weights; the presets have them",
    "vae.latent_std": "numbers that Wan2.2 publishes beside its weights; the presets have them",
    "actions.normalization": "one of those that the statistics have the figures for",
    "num_heads": f"weights tell {ATTENTION_WIDTH} alone",
    "head_dim": f"weights tell {ATTENTION_WIDTH} alone",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldAnswer:
    """One field of a contract, and where its value comes from."""

    path: str
    source: Literal["weights", "declared", "contract", "told"]
    """Read off the shapes, declared by the checkpoint, a contract's word alone, or to be told."""
    value: Any
    """What was found; None where it must be told."""
    default: Any
    """What a contract has that says nothing; None where there is no default."""
    hint: str


def field_answers(
    sizes: Mapping[str, object],
    file: TensorFile,
    name_map: NameMap,
    contract: InferenceContract | None = None,
) -> list[FieldAnswer]:
    """Return every field of a contract, in its order.

    Args:
        sizes: What the weights tell, by the path of the field.
        file: The checkpoint, for what it declares.
        name_map: Says which declared value is which field.
        contract: Tells the others, if there is one.
    """
    declared = {
        each.contract: file.values[each.declared]
        for each in name_map.file.agrees
        if each.declared in file.values
    }
    answers = []
    for path, default in _fields(InferenceContract):
        source: Literal["weights", "declared", "contract", "told"] = "told"
        value = None
        if path in sizes:
            source, value = "weights", sizes[path]
        elif path in declared:
            source, value = "declared", declared[path]
        elif contract is not None:
            source, value = "contract", contract_value(contract, path)
        answers.append(
            FieldAnswer(path=path, source=source, value=value, default=default, hint=_hint(path))
        )
    return answers


def _hint(path: str) -> str:
    """Return what helps to answer a field."""
    from_encoder = "read off the encoder, where --vae names one" if path.startswith("vae.") else ""
    return _HINTS.get(path, from_encoder)


def _fields(
    kind: type[msgspec.Struct], prefix: str = "", base: msgspec.Struct | None = None
) -> Iterator[tuple[str, Any]]:
    """Yield path and default of every field that has no fields of its own."""
    for field in msgspec.structs.fields(kind):
        given = field.default if field.default is not msgspec.NODEFAULT else None
        default = given if base is None else getattr(base, field.name)
        if isinstance(field.type, type) and issubclass(field.type, msgspec.Struct):
            yield from _fields(field.type, f"{prefix}{field.name}.", default)
        else:
            yield f"{prefix}{field.name}", default
