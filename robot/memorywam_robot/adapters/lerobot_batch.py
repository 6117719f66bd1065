"""What LeRobot hands a policy, as images and joints; tensors are taken by what they can do."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memorywam_robot.adapters.lerobot_joints import JointMap
from memorywam_runtime.errors import InputError

__all__ = [
    "array_from_value",
    "image_from_value",
    "images_from_batch",
    "like",
    "refuse_options",
    "state_from_batch",
]

_STATE, _IMAGES = "observation.state", "observation.images."


def state_from_batch(batch: Mapping[str, Any], joints: JointMap) -> NDArray[np.float64]:
    """Return the joint state [state_dim], in the contract's order and units.

    Args:
        batch: With `observation.state` in the host's order; or a robot's raw observation.
        joints: Between the two.

    Raises:
        InputError: neither is there, or it is of several robots.
    """
    if _STATE not in batch:
        return joints.from_values(batch)
    state = array_from_value(batch[_STATE])
    if state.ndim == 2 and state.shape[0] == 1:
        state = state[0]
    return joints.from_host(state)


def images_from_batch(
    batch: Mapping[str, Any], views: Mapping[str, str]
) -> dict[str, NDArray[np.uint8]]:
    """Return the images [rows, columns, 3] uint8 by the contract's names.

    Args:
        batch: With `observation.images.<camera>`; or a robot's raw observation.
        views: The contract's cameras to LeRobot's.

    Raises:
        InputError: a camera is missing, or what it gave is no image.
    """
    found: dict[str, NDArray[np.uint8]] = {}
    for name, key in views.items():
        value = batch.get(f"{_IMAGES}{key}", batch.get(key))
        if value is None:
            raise InputError(f"found no image of '{key}' for '{name}' among {sorted(batch)}")
        found[name] = image_from_value(array_from_value(value), key)
    return found


def image_from_value(value: NDArray[Any], key: str) -> NDArray[np.uint8]:
    """Return an RGB image [rows, columns, 3] uint8 of one as LeRobot has it.

    LeRobot divides by 255 in float32 and puts channels first: that is undone bit for bit.

    Raises:
        InputError: several images, another shape or type, or values outside 0 to 1: normalized by
            a processor that does not belong before this policy.
    """
    image = value[0] if value.ndim == 4 and value.shape[0] == 1 else value
    if image.ndim == 3 and image.shape[2] != 3 and image.shape[0] == 3:
        image = image.transpose(1, 2, 0)
    if image.ndim != 3 or image.shape[2] != 3:
        raise InputError(
            f"camera '{key}': found {list(value.shape)}; expected one image [3, rows, columns] or "
            "[rows, columns, 3], of one robot"
        )
    if image.dtype == np.uint8:
        return np.ascontiguousarray(image)
    is_share = np.issubdtype(image.dtype, np.floating)
    if not (is_share and image.min() >= 0 and image.max() <= 1):  # so are NaN refused
        raise InputError(
            f"camera '{key}': found {image.dtype} from {image.min()} to {image.max()}; expected "
            "uint8, or numbers from 0 to 1: use processors that normalize nothing"
        )
    return np.ascontiguousarray(np.rint(image * 255).astype(np.uint8))


def array_from_value(value: Any) -> NDArray[Any]:  # noqa: ANN401
    """Return a tensor or an array as an array."""
    for name in ("detach", "cpu"):
        if hasattr(value, name):
            value = getattr(value, name)()
    return np.asarray(value.numpy() if hasattr(value, "numpy") else value)


def like(values: Iterable[Any], found: NDArray[np.float64]) -> Any:  # noqa: ANN401
    """Return an array as what the first of these values is: a tensor beside tensors."""
    for value in values:
        if hasattr(value, "new_tensor"):
            return value.new_tensor(found)
    return found


def refuse_options(kwargs: Mapping[str, Any]) -> None:
    """Refuse what would steer a chunk and is not taken into account.

    Raises:
        InputError: an option that is given.
    """
    if unknown := [
        name
        for name, value in kwargs.items()
        if value is not None and not (name == "inference_delay" and value == 0)
    ]:
        raise InputError(f"found '{unknown[0]}'; expected a batch alone: no guidance, no noise")
