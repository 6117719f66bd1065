"""Does a recording fit a contract: its joints, and its cameras under whatever names?"""

from collections.abc import Mapping

from memorywam_runtime.contract import InferenceContract
from memorywam_runtime.errors import InputError
from memorywam_runtime.recording import Recording

__all__ = ["camera_names", "check_joints"]


def check_joints(recording: Recording, contract: InferenceContract) -> None:
    """Refuse joints that are not as many as the contract's.

    Raises:
        InputError: they are not.
    """
    found = (recording.header.state_dim, recording.header.action_dim)
    expected = (contract.actions.state_dim, contract.actions.action_dim)
    if found != expected:
        raise InputError(
            f"{recording.path} has states of {found[0]} numbers and actions of {found[1]}; the "
            f"contract '{contract.name}' has {expected[0]} and {expected[1]}: this episode is of "
            "another robot; move it elsewhere"
        )


def camera_names(
    recording: Recording, contract: InferenceContract, given: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Return the recording's name for each of the contract's cameras.

    Args:
        recording: Of any kind.
        contract: Whose cameras are wanted.
        given: The contract's camera to the recording's name for it, where they differ.

    Raises:
        InputError: a camera that the recording or the contract has not.
    """
    given, wanted = given or {}, contract.observations.cameras
    names = {camera: given.get(camera, camera) for camera in wanted}
    unknown = sorted(set(given) - set(wanted))
    missing = sorted(set(names.values()) - set(recording.header.cameras))
    if unknown or missing:
        wrong = f"no camera {missing}" if missing else f"cameras {unknown} for a contract without"
        raise InputError(
            f"{recording.path}: found {wrong}; the recording has "
            f"{sorted(recording.header.cameras)}, the contract {list(wanted)}: name them with "
            "--cameras CONTRACT=RECORDED,..."
        )
    return names
