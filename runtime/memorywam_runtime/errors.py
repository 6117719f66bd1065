"""What can go wrong, by name; each error is also the builtin that a caller would expect."""

__all__ = [
    "BundleError",
    "CapacityError",
    "CheckpointError",
    "ContractError",
    "DeviceError",
    "InputError",
    "MemorywamError",
    "MissingPartError",
    "StaleChunkError",
]


class MemorywamError(Exception):
    """Anything this project refuses; the text says what was found, expected, and what to do."""


class InputError(MemorywamError, ValueError):
    """A frame, state, action or instruction that does not fit the contract."""


class ContractError(MemorywamError, ValueError):
    """An inference contract that is inconsistent, unknown, or not the one expected."""


class BundleError(MemorywamError, ValueError):
    """A bundle that is damaged, incomplete, or made for something else."""


class CheckpointError(MemorywamError, ValueError):
    """Weights that do not match the model: a tensor missing, left over, or of another shape."""


class CapacityError(MemorywamError, RuntimeError):
    """Memory is full and its policy is to refuse or to stop, or the machine has less free."""


class MissingPartError(MemorywamError, RuntimeError):
    """A package, library or device that this machine lacks; the text says how to get it."""


class DeviceError(MemorywamError, RuntimeError):
    """The device refused a call, or failed while it computed."""


class StaleChunkError(MemorywamError, RuntimeError):
    """A chunk that was given up before its last step: what it was begun for has changed."""
