"""Observations out of other people's messages: cameras and joints by name, never by order."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memorywam_robot.adapters.serving import DialectOptions
from memorywam_runtime.contract import InferenceContract
from memorywam_runtime.errors import InputError
from memorywam_runtime.images import image_from_bytes
from memorywam_runtime.observation import Observation

__all__ = ["IMAGE_FILES", "STATE_KEYS", "ObservationReader", "image_from_value"]

IMAGE_FILES = ("png", "jpeg")
"""What an image may come as beside an array. PNG keeps every bit; with JPEG the policy sees what it
was not trained on, as far as the client compresses."""
_MAX_FILE_PIXELS = 1 << 22
"""Of an image in a file, 2048 by 2048: a few bytes of a message must not fill this machine."""

_KNOWN_CAMERAS = {
    "cam_high": "head",
    "cam_left_wrist": "left_wrist",
    "cam_right_wrist": "right_wrist",
    "head_camera": "head",
    "left_camera": "left_wrist",
    "right_camera": "right_wrist",
}
"""Names on ALOHA and in RoboTwin to those of the contracts that ship."""
_PREFIXES = ("observation.images.", "observation/images/", "images.", "images/", "observation/")
STATE_KEYS = ("state", "observation/state", "observation.state")
"""Where the joint state is in a message of openpi's clients."""


class ObservationReader:
    """Turns a message into an observation of one contract."""

    def __init__(self, contract: InferenceContract, options: DialectOptions) -> None:
        """Take the names.

        Raises:
            InputError: a camera is mapped to one that the contract does not have.
        """
        self._contract = contract
        self._cameras = contract.observations.cameras
        self._state_keys = options.state_keys
        for wire, name in options.cameras.items():
            if name and name not in self._cameras:
                raise InputError(
                    f"found --camera {wire}={name}; expected one of {', '.join(self._cameras)}"
                )
        known = {wire: name for wire, name in _KNOWN_CAMERAS.items() if name in self._cameras}
        self._names = {name: name for name in self._cameras} | known | dict(options.cameras)

    def observation(self, message: Mapping[str, Any], step: int) -> Observation:
        """Return what a message shows.

        Raises:
            InputError: a camera or the joint state is missing, left over, or of another form.
        """
        return Observation(images=self.images(message), state=self.state(message), step=step)

    def state(self, message: Mapping[str, Any]) -> NDArray[np.float64]:
        """Return the joint state [state_dim].

        Raises:
            InputError: none, several, or one that `vector` refuses.
        """
        keys = self._state_keys
        if not keys:
            found = [key for key in STATE_KEYS if key in message]
            if len(found) != 1:
                raise InputError(
                    f"found {len(found)} joint states among keys {_shown(message)}; expected one "
                    f"of {', '.join(STATE_KEYS)}, or name the keys: --state-keys"
                )
            keys = (found[0],)
        if missing := [key for key in keys if key not in message]:
            raise InputError(f"found no '{missing[0]}' among keys {_shown(message)}; expected it")
        return self.vector(np.concatenate([self._numbers(message[key], key) for key in keys]))

    def vector(self, value: object) -> NDArray[np.float64]:
        """Return a checked joint state [state_dim] of numbers.

        Raises:
            InputError: of another length, or not finite.
        """
        state = self._numbers(value, "state")
        if state.shape != (self._contract.actions.state_dim,):
            raise InputError(
                f"joint state: found {list(state.shape)}; expected "
                f"[{self._contract.actions.state_dim}], in the contract's order"
            )
        if not np.isfinite(state).all():  # before the images are remembered, not after
            raise InputError("joint state: expected finite numbers; check the joint encoders")
        return state

    def images(self, message: Mapping[str, Any]) -> dict[str, NDArray[np.uint8]]:
        """Return each camera's image [rows, columns, 3] by the contract's names.

        Raises:
            InputError: one is missing, there twice, of an unknown camera, or no image.
        """
        found: dict[str, NDArray[np.uint8]] = {}
        for wire, value in _images_in(message):
            name = self._name(wire)
            if not name:
                continue
            if name in found:
                raise InputError(f"found two images of camera '{name}'; expected one")
            found[name] = image_from_value(value, wire)
        if missing := [name for name in self._cameras if name not in found]:
            raise InputError(
                f"found no image of '{missing[0]}' among keys {_shown(message)}; expected "
                f"{', '.join(self._cameras)}, or names that `--camera WIRE=NAME` maps to them"
            )
        return found

    def _name(self, wire: str) -> str:
        """Return the contract's name of a camera; empty for one to ignore."""
        if wire in self._names:
            return self._names[wire]
        for prefix in _PREFIXES:
            if wire.startswith(prefix) and wire[len(prefix) :] in self._names:
                return self._names[wire[len(prefix) :]]
        raise InputError(
            f"found an image of '{wire[:80]}'; expected cameras {', '.join(self._cameras)}: say "
            f"which one it is with --camera {wire[:80]}=NAME, or ignore it with an empty NAME"
        )

    def _numbers(self, value: object, what: str) -> NDArray[np.float64]:
        """Return a vector of numbers."""
        try:
            numbers = np.atleast_1d(np.asarray(value, np.float64))
        except (TypeError, ValueError) as error:
            raise InputError(f"'{what}': expected numbers; found {type(value).__name__}") from error
        if numbers.ndim != 1:
            raise InputError(f"'{what}': found {list(numbers.shape)}; expected a vector")
        return numbers


def image_from_value(value: object, what: str) -> NDArray[np.uint8]:
    """Return an RGB image [rows, columns, 3]; one of [3, rows, columns] is turned.

    Bytes are a PNG or JPEG file.

    Raises:
        InputError: neither form, both at once, not uint8, or a file that is no such image.
    """
    if isinstance(value, memoryview | bytes):
        return image_from_bytes(
            bytes(value), f"image of '{what[:80]}'", max_pixels=_MAX_FILE_PIXELS
        )
    if not isinstance(value, np.ndarray) or value.dtype != np.uint8 or value.ndim != 3:
        found = getattr(value, "dtype", type(value).__name__)
        raise InputError(
            f"image of '{what[:80]}': found {found} {list(getattr(value, 'shape', []))}; expected "
            "uint8 [rows, columns, 3] in RGB order, or [3, rows, columns], or a PNG or JPEG file"
        )
    is_first, is_last = value.shape[0] == 3, value.shape[2] == 3
    if is_first == is_last:
        raise InputError(
            f"image of '{what[:80]}': found {list(value.shape)}; expected three colours either "
            "last or first, and not both"
        )
    return np.ascontiguousarray(value.transpose(1, 2, 0)) if is_first else value


def _images_in(message: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Return all that is an image, by its key: in the map `images`, or beside the rest."""
    nested = message.get("images")
    if nested is not None and not isinstance(nested, Mapping):
        raise InputError(f"found images as {type(nested).__name__}; expected a map by camera")
    inside = list(nested.items()) if isinstance(nested, Mapping) else []
    beside = [
        (key, value)
        for key, value in message.items()
        if isinstance(value, memoryview | bytes)
        or (isinstance(value, np.ndarray) and value.ndim == 3)
    ]
    return inside + beside


def _shown(message: Mapping[str, Any]) -> str:
    """Return a message's keys for an error."""
    return ", ".join(key[:40] for key in list(message)[:12]) or "none"
