"""What a checkpoint declares of itself, compared with the contract that it is exported with."""

import reprlib
from typing import Any

import msgspec

from memorywam_export.checkpoints.checkpoint_files import TensorFile
from memorywam_export.checkpoints.name_maps import NameMap
from memorywam_runtime.contract import InferenceContract
from memorywam_runtime.errors import CheckpointError, InputError

__all__ = ["check_declared", "contract_value", "undeclared_names"]


def check_declared(file: TensorFile, name_map: NameMap, contract: InferenceContract) -> None:
    """Refuse a contract that contradicts what the checkpoint declares.

    Args:
        file: The checkpoint.
        name_map: Says which declared value is which field.
        contract: What it should agree with.

    Raises:
        CheckpointError: a declared value that differs; all of them are named.
        InputError: the map names a field that contracts do not have.
    """
    wrong = []
    for each in name_map.file.agrees:
        wanted = contract_value(contract, each.contract)
        if each.declared in file.values and file.values[each.declared] != wanted:
            wrong.append(
                f"{each.declared} is {_told(file.values[each.declared])} and {each.contract} is "
                f"{wanted!r}"
            )
    wrong += [
        f"{need.declared} is {_told(file.values[need.declared])}; expected {need.equals!r}: "
        f"{need.why}"
        for need in name_map.file.requires
        if need.declared in file.values and file.values[need.declared] != need.equals
    ]
    if wrong:
        raise CheckpointError(
            f"{file.path} declares what contract '{contract.name}' contradicts: "
            f"{'; '.join(wrong)}; pass the contract of these weights with --contract FILE"
        )


def _told(value: object) -> str:
    """Return a declared value in a few words."""
    try:
        return reprlib.repr(value)
    except ValueError:  # a number of more digits than are written out
        return f"a {type(value).__name__}"


def undeclared_names(file: TensorFile, name_map: NameMap) -> list[str]:
    """Return the declared values that nothing here is compared with."""
    known = {each.declared for each in name_map.file.agrees}
    known |= {each.declared for each in name_map.file.requires}
    return sorted(set(file.values) - known)


def contract_value(contract: InferenceContract, path: str) -> Any:  # noqa: ANN401 - any field
    """Return a field of a contract, named by its path such as `memory.num_gists`.

    Raises:
        InputError: no such field.
    """
    value: Any = contract
    for name in path.split("."):
        if not isinstance(value, msgspec.Struct) or name not in value.__struct_fields__:
            raise InputError(f"contracts have no field '{path}'; expected one such as name")
        value = getattr(value, name)
    return value
