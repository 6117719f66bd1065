"""What keeps weights from being those of a contract, in words."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from memorywam_export.checkpoints.checkpoint_files import few
from memorywam_runtime.errors import CheckpointError

__all__ = ["misfit_error"]


def misfit_error(
    path: Path,
    *,
    missing: Mapping[str, str],
    extra: Sequence[str],
    wrong: Sequence[str],
    of: str,
) -> CheckpointError:
    """Say what is wrong with a file's weights, and what to do.

    Args:
        path: The file.
        missing: Our names of what it should have, to its own.
        extra: Names that nothing is known of.
        wrong: Names with the shape or type that was found and the one that was expected.
        of: The contract and the name map.
    """
    lacking = few(list(missing.values()))
    is_encoder = bool(missing) and all(name.startswith("vae.") for name in missing)
    if is_encoder and not extra and not wrong:
        return CheckpointError(
            f"{path} has no video encoder: missing {lacking}; expected it in a file of its "
            "own: pass Wan2.2_VAE.pth with --vae FILE"
        )
    return CheckpointError(
        f"{path} does not fit {of}: missing {lacking}; left over {few(extra)}; of another "
        f"shape or type {few(wrong)}; `memorywam export --describe` says which presets have its "
        "sizes"
    )
