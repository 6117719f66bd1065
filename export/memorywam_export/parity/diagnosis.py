"""Where an episode first goes wrong: the frame, then the stage, the layer and the token."""

import numpy as np

from memorywam_export.parity.trace_report import ByFrame
from memorywam_runtime.contract import InferenceContract

__all__ = ["diagnosis"]

_PARTS = {"k": "keys", "v": "values"}


def diagnosis(errors: ByFrame, contract: InferenceContract, limit: float) -> str | None:
    """Return in words what first leaves the tolerance; None if nothing does.

    The earliest frame counts; in it the order of computation: latents, then memory by layer, then
    actions. What comes later follows from it, or hides behind it.

    Args:
        errors: Of one rung, its memory carried along.
        contract: Which of a frame's tokens are visual, and which gist.
        limit: Largest absolute error.
    """
    for frame in range(len(errors.latents)):
        if errors.latents[frame] > limit:
            return f"latents, from frame {frame} on"
        for name, by_token in sorted(errors.memory.items()):
            _, layer, part = name.split(".")
            bad = np.flatnonzero(by_token[frame] > limit)
            if len(bad):
                tokens = _tokens(bad, contract)
                return f"{_PARTS[part]} of layer {int(layer)}, from frame {frame} on ({tokens})"
        if errors.actions[frame] > limit:
            return f"actions, from frame {frame} on"
    return None


def _tokens(bad: "np.ndarray[tuple[int], np.dtype[np.intp]]", contract: InferenceContract) -> str:
    """Say which kinds of tokens are wrong."""
    visual = int((bad < contract.num_visual).sum())
    gist = len(bad) - visual
    told = [f"{count} {kind}" for count, kind in ((visual, "visual"), (gist, "gist")) if count]
    return f"{' and '.join(told)} tokens"
