"""How many frames a bundle is verified over: past what breaks memories, as far as it holds them."""

from memorywam_runtime.errors import InputError
from memorywam_runtime.manifest import Manifest

__all__ = ["DEFAULT_FRAMES", "frames_to_play"]

DEFAULT_FRAMES = 40
"""Of the episode: past the first gist bucket of 32."""


def frames_to_play(manifest: Manifest, num_frames: int | None, seed: int) -> int:
    """Return how many frames to play; refuse what cannot be run, before hours of it.

    Args:
        manifest: Of the bundle.
        num_frames: That are asked for; None for as many as memory holds, 40 at most.
        seed: Of the episode.

    Raises:
        InputError: too many, or too few.
    """
    plan = manifest.memory
    has_gists = manifest.contract.memory.num_gists > 0
    most = plan.max_frames if has_gists else DEFAULT_FRAMES
    num_frames = min(DEFAULT_FRAMES, most) if num_frames is None else num_frames
    if num_frames < 1 or seed < 0:
        raise InputError(
            f"found {num_frames} frames and seed {seed}; expected at least 1, and 0 or more"
        )
    if has_gists and num_frames > plan.max_frames:
        raise InputError(
            f"found {num_frames} frames; the bundle's memory holds {plan.max_frames}, and the "
            "reference forgets no gist: verify fewer, or export with a larger --max-frames"
        )
    return num_frames
