"""Whether an episode fits: refused where memory cannot hold it, warned of where it will lack."""

import logging

from memorywam_runtime.contract import InferenceContract
from memorywam_runtime.errors import CapacityError
from memorywam_runtime.manifest import MemoryPlan

__all__ = ["check_length"]

_LOG = logging.getLogger(__name__)


def check_length(max_steps: int, contract: InferenceContract, plan: MemoryPlan) -> None:
    """Refuse an episode that memory cannot hold; warn of lost gists, and of untrained length.

    Args:
        max_steps: Longest it can get, in environment steps.
        contract: Of the bundle.
        plan: What its memory holds.

    Raises:
        CapacityError: more frames than memory holds, and its policy is not to drop.
    """
    frames = 1 + max_steps // contract.steps_per_frame
    if frames > contract.trained_frames:
        _LOG.warning(
            "an episode of %d steps reaches frame %d; positions were trained up to %d",
            max_steps,
            frames - 1,
            contract.trained_frames - 1,
        )
    if not contract.memory.num_gists or frames <= plan.max_frames:
        return
    if plan.on_full != "drop-oldest-gist":
        raise CapacityError(
            f"an episode of {max_steps} steps needs {frames} frames; the bundle holds "
            f"{plan.max_frames} and its policy is '{plan.on_full}': export with "
            f"--max-frames {frames} or more"
        )
    _LOG.warning(
        "an episode of %d steps reaches %d frames; memory holds the gists of %d: up to %d "
        "of the oldest will be dropped (policy '%s')",
        max_steps,
        frames,
        plan.max_frames,
        frames - plan.max_frames,
        plan.on_full,
    )
